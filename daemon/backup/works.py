"""Databases between rounds: what is open, what is still dirty, what was sealed ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatkeep.daemon.backup.draft import DraftRun, Piece
from chatkeep.daemon.backup.sealing import Lane, Sealer
from chatkeep.daemon.capture.buffer import Buffer, PageRun
from chatkeep.daemon.capture.database import DatabaseFile
from chatkeep.daemon.capture.digests import DigestTable, Overlay
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.capture.files import FileIdentity
from chatkeep.daemon.capture.pin import ScanMark
from chatkeep.daemon.capture.tree import Found
from chatkeep.daemon.state import DatabaseRow
from chatkeep.daemon.vault.blob import BlobKind
from chatkeep.daemon.vault.layers import MAX_BLOB, FileRecord

# Bytes of dirty pages that a short pin copies; more are copied beforehand, without locks.
ROOM: Final = 32 * 1024 * 1024
# What the log brings until the pin, all databases together. SQLite's own checkpoint begins at 4 MB of it.
LOG_ROOM: Final = 16 * 1024 * 1024
# Databases pinned at once: each holds three descriptors.
MAX_GROUP: Final = 32
BASE_LEVEL: Final = 1  # Zstandard: a base is large and written once in weeks
FRESH_LEVEL: Final = 3  # changed pages are few: a tenth of their size is worth the time


@dataclass
class Work:
    """One changed database during one backup. `dirty` and `mark` live across rounds, the digests are of one round."""

    file_id: int
    found: Found
    record: FileRecord
    file: DatabaseFile
    page_size: int
    row: DatabaseRow | None
    dirty: DirtySet = field(default_factory=DirtySet)
    mark: ScanMark | None = None
    passes: int = 0  # times that everything dirty was copied ahead
    tries: int = 0  # pins in vain
    touched: bool = False  # pages were sealed that no capture has published yet
    unproven: bool = False  # the last signature cannot tell what changed
    table: DigestTable | None = None
    overlay: Overlay | None = None
    ahead: list[DraftRun] = field(default_factory=list)
    journal: Sequence[Piece] | None = None  # of a transaction that was cut off

    @property
    def path(self) -> bytes:
        """The file's own path, as its errors name it."""
        return self.file.path

    @property
    def digests(self) -> Overlay:
        """What the vault will hold once this round is committed."""
        assert self.overlay is not None, "a round begins by opening the table"
        return self.overlay

    @property
    def dirty_bytes(self) -> int:
        """Bytes of pages that are known to differ."""
        return len(self.dirty) * self.page_size

    def begin(self, table: DigestTable) -> None:
        """Start a round over the digests of the last commit."""
        self.end()
        self.table = table
        self.overlay = Overlay(table)
        self.ahead = []

    def end(self) -> None:
        """Let go of the table: the commit's redo will change it."""
        if self.table is not None:
            self.table.close()
        self.table = self.overlay = None


class Works:
    """What one backup carries from round to round: the databases it has open, the memory for their pages, and how often
    it began each large file anew."""

    def __init__(self) -> None:
        self.restarts: dict[bytes, int] = {}
        self.by_id: dict[int, Work] = {}
        self.looked_at: set[FileIdentity] = set()
        self._buffer: Buffer | None = None

    @property
    def buffer(self) -> Buffer:
        """Memory that exists before any pin."""
        if self._buffer is None:
            self._buffer = Buffer(ROOM + LOG_ROOM)
        return self._buffer

    def share(self, group: Sequence[Work]) -> list[Buffer]:
        """That memory, for databases pinned together: what is dirty of each, and as much of what is left to each."""
        dirty = [work.dirty_bytes for work in group]
        spare = max(0, len(self.buffer) - sum(dirty)) // len(group)
        return self.buffer.split([min(size, ROOM) + spare for size in dirty])

    def finish(self, work: Work) -> None:
        """The database is captured, or given up for this backup."""
        work.end()
        work.file.close()
        self.by_id.pop(work.file_id, None)

    def close(self) -> None:
        """Let go of everything."""
        for work in list(self.by_id.values()):
            self.finish(work)
        self._buffer = None


class PageSealer:
    """Pages to blobs of at most 1 MiB. Aligned full megabytes become base runs, which come out the same whoever writes
    them; scattered pages are joined, since they compress better together."""

    def __init__(self, sealer: Sealer, page_size: int, *, compress: bool) -> None:
        self._sealer = sealer
        self._page_size = page_size
        self._per_blob = MAX_BLOB // page_size
        self._compress = compress
        self._ranges: list[tuple[int, int]] = []
        self._loose = bytearray()
        self.runs: list[DraftRun] = []

    def add(self, run: PageRun) -> None:
        """Consecutive pages; runs come in ascending order between two flushes."""
        first, data = run.first, run.data
        while len(data):
            at = (first - 1) % self._per_blob
            count = min(self._per_blob - at, len(data) // self._page_size)
            piece = data[: count * self._page_size]
            if count == self._per_blob:
                self._seal(Lane.BASE, [(first, count)], bytes(piece), BASE_LEVEL)
            else:
                self._join(first, count, piece)
            first += count
            data = data[count * self._page_size :]

    def flush(self) -> None:
        """Seal what is left of the scattered pages."""
        if self._loose:
            self._seal(Lane.FRESH, self._ranges, bytes(self._loose), FRESH_LEVEL)
            self._ranges, self._loose = [], bytearray()

    def _join(self, first: int, count: int, piece: memoryview) -> None:
        room = self._per_blob - len(self._loose) // self._page_size
        take = min(room, count)
        self._ranges.append((first, take))
        self._loose += piece[: take * self._page_size]
        if take == room:
            self.flush()
        if take < count:
            self._join(first + take, count - take, piece[take * self._page_size :])

    def _seal(self, lane: Lane, ranges: list[tuple[int, int]], data: bytes, level: int) -> None:
        blob = self._sealer.submit(lane, BlobKind.PAGES, data, level if self._compress else None)
        self.runs.append(DraftRun(ranges, blob))


def aligned(dirty: DirtySet, step: int) -> Iterator[tuple[int, int]]:
    """The ranges of the set, cut where blobs of `step` pages begin. The set may change meanwhile."""
    for first, count in list(dirty.ranges()):
        start, end = first, first + count
        while start < end:
            take = min(step - (start - 1) % step, end - start)
            yield start, take
            start += take


def batches(dirty: DirtySet, most: int) -> Iterator[DirtySet]:
    """The set in parts of at most `most` pages, in order."""
    part, size = DirtySet(dirty.page_count), 0
    for first, count in list(dirty.ranges()):
        start, left = first, count
        while left:
            take = min(left, most - size)
            part.add_range(start, take)
            start, left, size = start + take, left - take, size + take
            if size == most:
                yield part
                part, size = DirtySet(dirty.page_count), 0
    if size:
        yield part
