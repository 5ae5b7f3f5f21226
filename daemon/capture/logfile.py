"""Reading a database's write-ahead log and its index from their descriptors, under the pin or without it."""

from __future__ import annotations

import os
from array import array
from typing import NamedTuple

from chatkeep.daemon.capture import locks
from chatkeep.daemon.capture.position import FileVersion, IndexMark
from chatkeep.daemon.capture.wal import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    SHM_HEADER_SIZE,
    Commit,
    FrameChain,
    ShmHeader,
    WalHeader,
    frame_offset,
    parse_frame,
    parse_header,
    parse_shm,
    shm_page_numbers,
)

_BATCH = 1 << 20  # bytes of frames verified at a time
_TORN_READS = 5  # a writer is between its two copies of the header for microseconds


class WalIndex(NamedTuple):
    """The committed frames of one generation: `pages[i]` is the page that frame i + 1 holds."""

    page_size: int
    salts: bytes
    mx_frame: int
    page_count: int
    anchor: bytes  # checksum of frame mx_frame, as the log has it; zeros without frames
    pages: tuple[int, ...]
    backfilled: int  # frames up to here are in the database file, as far as is known
    commits: tuple[Commit, ...]  # all of this generation, in order
    mark: IndexMark | None  # of the living index, from the same look; None when nobody is alive


def read_shm(fd: int) -> ShmHeader | None:
    """The index's header, None when it is torn or none. Never mapped: an application may cut the file at any time."""
    for _ in range(_TORN_READS):
        header = parse_shm(os.pread(fd, SHM_HEADER_SIZE, 0))
        if header is not None:
            return header
    return None


def mark_of(header: ShmHeader) -> IndexMark:
    """What a living index counts."""
    return IndexMark(header.changes, header.mx_frame, header.salts)


def alive(shm_fd: int) -> bool:
    """Whether any connection is open. If not, the index may be of a time long gone."""
    return locks.held_by_others(shm_fd, locks.ALIVE)


def trusted_index(wal_fd: int, shm_fd: int, sizes: CommitSizes) -> WalIndex | None:
    """The committed frames as the living applications see them; None when log and index do not agree.

    For use under the pin: without it the log may begin anew between two reads.
    """
    shm = read_shm(shm_fd)
    if shm is None:
        return None
    pages: tuple[int, ...] = ()
    commits: tuple[Commit, ...] = ()
    anchor = bytes(8)
    if shm.mx_frame:
        header = read_header(wal_fd)
        last = parse_frame(os.pread(wal_fd, FRAME_HEADER_SIZE, frame_offset(shm.mx_frame, shm.page_size)))
        if header is None or last is None or (header.salts, header.page_size) != (shm.salts, shm.page_size):
            return None
        # The log could have been exchanged below a living index, by a restore: then nothing is known.
        if (last.salts, last.checksum, last.page_count) != (shm.salts, shm.checksum, shm.page_count):
            return None
        anchor = anchor_of(last.checksum)
        pages = _page_numbers(shm_fd, shm.mx_frame)
        found = sizes.read(wal_fd, shm.page_size, shm.salts, shm.mx_frame)
        if len(pages) != shm.mx_frame or 0 in pages or found is None:
            return None
        commits = found
    return WalIndex(
        shm.page_size, shm.salts, shm.mx_frame, shm.page_count, anchor, pages, shm.backfilled, commits, mark_of(shm)
    )


def _page_numbers(shm_fd: int, mx_frame: int) -> tuple[int, ...]:
    numbers = array("I")
    for offset, size in shm_page_numbers(1, mx_frame):
        piece = os.pread(shm_fd, size, offset)
        if len(piece) != size:
            return ()
        numbers.frombytes(piece)
    return tuple(numbers)


def read_header(wal_fd: int) -> WalHeader | None:
    """The header of a log, None when it has none."""
    return parse_header(os.pread(wal_fd, HEADER_SIZE, 0))


class VerifiedLog:
    """The committed frames by the log's own checksums: what SQLite would recover when nobody is alive to ask.

    Costs about 10 us of CPU per 4 KiB frame, so the result is kept for as long as the file is provably the same.
    """

    def __init__(self) -> None:
        self._version: FileVersion | None = None
        self._settled = False
        self._index: WalIndex | None = None

    def read(self, wal_fd: int, now_ns: int) -> WalIndex | None:
        """None when the log holds no committed frame: its content then counts for nothing."""
        version = FileVersion.of(os.fstat(wal_fd))
        if version != self._version or not self._settled:
            # The version from before the read: a write during it then shows as another version.
            self._version, self._settled = version, version.settled(now_ns)
            self._index = verify(wal_fd)
        return self._index


def verify(wal_fd: int) -> WalIndex | None:
    """Follow the checksums from frame 1 to the last commit; None when there is none."""
    header = read_header(wal_fd)
    if header is None:
        return None
    chain = FrameChain(header)
    size = header.page_size + FRAME_HEADER_SIZE
    batch = max(1, _BATCH // size) * size
    offset = HEADER_SIZE
    while True:
        frames = os.pread(wal_fd, batch, offset)
        whole = len(frames) - len(frames) % size
        if not whole or not chain.feed(memoryview(frames)[:whole]) or whole < batch:
            break
        offset += whole
    if not chain.mx_frame:
        return None
    return WalIndex(
        header.page_size,
        header.salts,
        chain.mx_frame,
        chain.page_count,
        anchor_of(chain.checksum),
        tuple(chain.pages),
        0,
        tuple(chain.commits),
        None,
    )


class CommitSizes:
    """How large the database was at each commit of the log that applications are writing to.

    The index does not tell, and a header has to be read for every frame. What was read before the pin, when nothing
    waits for it, is not read again under it.
    """

    def __init__(self) -> None:
        self._generation: tuple[int, int, bytes] | None = None
        self._seen = 0
        self._commits: list[Commit] = []

    def read(self, wal_fd: int, page_size: int, salts: bytes, mx_frame: int) -> tuple[Commit, ...] | None:
        """The commits up to `mx_frame`, which is committed; None when the log has begun anew."""
        facts = os.fstat(wal_fd)
        if self._generation != (facts.st_dev, facts.st_ino, salts) or mx_frame < self._seen:
            self._generation, self._seen, self._commits = (facts.st_dev, facts.st_ino, salts), 0, []
        for frame in range(self._seen + 1, mx_frame + 1):
            found = parse_frame(os.pread(wal_fd, FRAME_HEADER_SIZE, frame_offset(frame, page_size)))
            if found is None or found.salts != salts:
                self._generation = None
                return None
            if found.page_count:
                self._commits.append(Commit(frame, found.page_count))
        self._seen = mx_frame
        return tuple(self._commits)


def shrank(index: WalIndex) -> bool:
    """Whether there was ever a frame for a page beyond the database's end: a checkpoint may have left it out."""
    start, size = 0, 0
    for frame, page_count in index.commits:
        if page_count < size or max(index.pages[start:frame]) > page_count:
            return True
        start, size = frame, page_count
    return False


def anchor_of(checksum: tuple[int, int]) -> bytes:
    """A running checksum as the log has it."""
    return checksum[0].to_bytes(4, "big") + checksum[1].to_bytes(4, "big")
