"""The pin: for a few milliseconds a database stands still, and its pages are those of one transaction.

While a pin is held
- SHARED on the database file keeps rollback-mode writers, switches of the journal mode and the clean-up of a closing
  application away;
- READ0 on the index keeps every checkpoint from writing into the database file;
- one read slot of the index keeps the log from beginning anew.
Transactions go on and append to the log; frames after the pinned commit are not looked at. Where there is no index to
lock, an application has to create one before it can write, and `validate` sees it.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, Self

from chatkeep.daemon.capture import locks
from chatkeep.daemon.capture.buffer import Buffer, Copied
from chatkeep.daemon.capture.companions import Companions
from chatkeep.daemon.capture.digests import Digests, differing, lock_page, page_digests
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.capture.errors import NotProven, PageSizeChanged, SourceBusy, SourceMissing, TooManyDirty
from chatkeep.daemon.capture.layout import Layout, PinState
from chatkeep.daemon.capture.logfile import mark_of, read_header, read_shm, shrank
from chatkeep.daemon.capture.position import FileVersion, Signature, WalPoint
from chatkeep.daemon.capture.reading import Tick, no_tick, read_padded
from chatkeep.daemon.capture.wal import FRAME_HEADER_SIZE, frame_offset, parse_frame

_STEP = 1 << 20


class ScanMark(NamedTuple):
    """Where the database stood when the search for changed pages began.

    `scanned`: every page of the file was compared after `since`. Otherwise `since` is the last capture.
    """

    since: Signature
    scanned: bool
    bytes_read: int


class Pinned:
    """One transactional image of a database, readable until `release`. Made by `DatabaseFile.pin`."""

    def __init__(self, path: bytes, fd: int, side: Companions, layout: Layout, now_ns: int) -> None:
        self.path = path
        self.layout = layout
        self._fd = fd
        self._side = side
        self._held = True
        index = layout.index
        # The latest frame of each page: later frames replace earlier ones.
        self._frames: dict[int, int] = {}
        if index is not None:
            self._frames = dict(zip(index.pages, range(1, index.mx_frame + 1), strict=True))
        self._framed = sorted(self._frames)
        self._point = _point(side, layout)
        self._db = FileVersion.of(os.fstat(fd))
        mark = index.mark if index is not None else None
        self._signature = Signature(now_ns, self._db, side.wal, side.journal, mark, self._point)

    @property
    def page_size(self) -> int:
        """Bytes in a page."""
        return self.layout.page_size

    @property
    def page_count(self) -> int:
        """Pages of the pinned image."""
        return self.layout.page_count

    @property
    def state(self) -> PinState:
        """What the image is made of."""
        return self.layout.state

    @property
    def needs_recovery(self) -> bool:
        """The image is the file and its journal, to be kept side by side."""
        return self.layout.state is PinState.HOT_JOURNAL

    @property
    def signature(self) -> Signature:
        """What the next capture goes on from, to be kept when this one is committed. Final after `release`."""
        return self._signature

    def journal(self) -> bytes:
        """The whole journal, for `needs_recovery`. Raises SourceBusy when somebody took it away."""
        try:
            return b"".join(self._side.read_journal())
        except SourceMissing as exc:
            raise SourceBusy(path=self.path, reason="changed") from exc

    def complete(self, digests: Digests, dirty: DirtySet, mark: ScanMark) -> None:
        """Make `dirty` hold every page of the image that may differ from `digests`. Numbers only; no page is read.

        Why the pages that the scan found different and those of all frames of the pinned generation of the log are all
        there are: take a page that is in none of these frames. It is read from the database file. In WAL mode that file
        is written by checkpoints only, and a checkpoint copies committed frames of the generation of its time. If the
        generation is the one from before the scan began, whatever was copied since came from one of its frames, and a
        frame stays in the log until the log begins anew. So nobody has written to our page since before the scan; the
        scan saw it whole, as it is now, and found it equal. The same holds if the database file was provably not
        written at all since before the scan.

        A checkpoint does one thing more: it cuts the file to the size of the database. Pages that were cut off and came
        back without being written are zeros then, and no frame tells. So all pages beyond the smallest size at a commit
        are dirty too.

        Without a scan, from the last capture on: if the generation is the same and the captured commit still stands in
        it, only frames after that commit bring anything new. If the database file is the same, it holds what was
        captured, as long as no captured frame was missing from it.

        Raises NotProven when neither holds: scan again without `last`, or `scan_all`. Raises PageSizeChanged.
        """
        known = self._frames_known(mark)
        self._fit(digests, dirty)
        index = self.layout.index
        if index is not None:
            dirty.update(page for page in index.pages[known:] if page <= self.page_count)
            lowest = min([self.page_count, *(size for frame, size in index.commits if frame >= known)])
            dirty.add_range(lowest + 1, self.page_count - lowest)
        self._forget_lock_page(dirty)

    def scan_all(self, digests: Digests, dirty: DirtySet, seed: int, buffer: Buffer, tick: Tick = no_tick) -> None:
        """Make `dirty` hold exactly the pages that differ, by reading the whole image: a long pin, the last resort.

        In WAL mode the log grows meanwhile, as no checkpoint ends; in rollback mode no transaction ends.
        Raises PageSizeChanged, SourceBusy.
        """
        dirty.resize(0)
        self._fit(digests, dirty)
        step = min(len(buffer), _STEP) // self.page_size
        for first in range(1, self.page_count + 1, step):
            count = min(step, self.page_count + 1 - first)
            view = buffer.view[: count * self.page_size]
            self.read(first, count, view)
            found = page_digests(view, self.page_size, seed)
            dirty.update(differing(found, digests.read(first, count), first))
            tick(len(view))
        self._forget_lock_page(dirty)

    def copy(self, pages: DirtySet, buffer: Buffer) -> Copied:
        """Copy pages into the buffer. Which of them changed is told after the pin, by `Copied.changed`.

        Raises TooManyDirty when they do not fit, SourceBusy when the log is not what the pin found.
        """
        size = self.page_size
        ranges = list(pages.ranges())
        total = sum(count for _, count in ranges)
        if total * size > len(buffer):
            raise TooManyDirty(path=self.path, pages=total, room=len(buffer) // size)
        at = 0
        for first, count in ranges:
            self.read(first, count, buffer.view[at : at + count * size])
            at += count * size
        return Copied(size, ranges, buffer.view[:at])

    def read(self, first: int, count: int, out: memoryview) -> None:
        """Pages of the image into `out`, which is `count` pages long. Raises SourceBusy.

        The lock page and pages beyond the end of the file, which were never written, are zeros.
        """
        size = self.page_size
        if len(out) != count * size:
            raise ValueError(len(out))
        page, end = first, first + count
        at = bisect_left(self._framed, first)
        while page < end:
            framed = self._framed[at] if at < len(self._framed) and self._framed[at] < end else end
            if framed > page:
                read_padded(self._fd, out[(page - first) * size : (framed - first) * size], (page - 1) * size)
            if framed < end:
                self._read_frame(framed, out[(framed - first) * size : (framed + 1 - first) * size])
                at += 1
            page = framed + 1
        hole = lock_page(size)
        if first <= hole < end:
            out[(hole - first) * size : (hole + 1 - first) * size] = bytes(size)

    def unchanged(self) -> bool:
        """Whether nothing has been committed since the pin was taken. Asked of every pin once all are held, it says
        that all the images are of one moment."""
        if self.state is PinState.LIVE_WAL:
            index = self.layout.index
            shm = read_shm(self._side.shm_fd) if self._side.shm_fd is not None else None
            return index is not None and shm is not None and index.mark == mark_of(shm)
        return self._files_unchanged() and self._side.same_log() and not self._side.alive

    def validate(self) -> None:
        """To be called after the last read. Raises SourceBusy when what was read need not be one image.

        Locks stop the applications that were there before. One that opens an idle database brings an index of its own,
        and one that knows nothing of SQLite's locks writes as it likes: both show in the files.
        """
        if not self._files_unchanged():
            raise SourceBusy(path=self.path, reason="changed")
        index = self.layout.index
        if index is not None and index.mx_frame and self._side.wal_fd is not None:
            header = read_header(self._side.wal_fd)
            if header is None or header.salts != index.salts:
                raise SourceBusy(path=self.path, reason="log-restarted")

    def release(self) -> None:
        """Let the applications go on. Safe to call twice."""
        if not self._held:
            return
        self._held = False
        self._side.unlock()
        locks.release(self._fd)
        # Only now: going through all frames is no work for the pin.
        if self._point is not None and self._flushed():
            self._signature = replace(self._signature, point=self._point._replace(flushed=True))
        self._side.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _fit(self, digests: Digests, dirty: DirtySet) -> None:
        if digests.page_size != self.page_size:
            raise PageSizeChanged(path=self.path, was=digests.page_size, now=self.page_size)
        dirty.resize(self.page_count)
        if digests.count < self.page_count:
            dirty.add_range(digests.count + 1, self.page_count - digests.count)

    def _frames_known(self, mark: ScanMark) -> int:
        """How many frames from the first on bring nothing new. Raises NotProven."""
        since, was, now = mark.since, mark.since.point, self._point
        if was is not None and now is not None and was.same_generation(now) and self._checkpointed_only(since.db):
            if mark.scanned and was.mx_frame <= now.mx_frame:
                return 0
            if was.mx_frame <= now.mx_frame and self._stands(was):
                return was.mx_frame
        all_in_file = mark.scanned or was is None or not was.mx_frame or was.flushed
        if all_in_file and since.db == self._db and since.db.settled(since.taken_ns):
            return 0
        raise NotProven(path=self.path, reason="scan" if mark.scanned else "capture")

    def _checkpointed_only(self, since: FileVersion) -> bool:
        """Whether only checkpoints can have written to the file. With nobody alive, a file that changed was changed by
        something else, a restore for instance."""
        same_file = (since.dev, since.ino) == (self._db.dev, self._db.ino)
        return since == self._db or (same_file and self.state is PinState.LIVE_WAL)

    def _stands(self, was: WalPoint) -> bool:
        """Whether the commit is still in the log. It is not if SQLite took it back after a failed sync."""
        if not was.mx_frame or self._side.wal_fd is None:
            return not was.mx_frame
        raw = os.pread(self._side.wal_fd, FRAME_HEADER_SIZE, frame_offset(was.mx_frame, self.page_size))
        frame = parse_frame(raw)
        return frame is not None and frame.salts == was.salts and raw[16:24] == was.anchor

    def _forget_lock_page(self, dirty: DirtySet) -> None:
        if lock_page(self.page_size) <= self.page_count:
            dirty.discard(lock_page(self.page_size))

    def _read_frame(self, page: int, out: memoryview) -> None:
        index, wal_fd = self.layout.index, self._side.wal_fd
        if index is None or wal_fd is None:
            raise AssertionError(page)
        header = bytearray(FRAME_HEADER_SIZE)
        got = os.preadv(wal_fd, [header, out], frame_offset(self._frames[page], index.page_size))
        found = parse_frame(bytes(header))
        if got != FRAME_HEADER_SIZE + len(out) or found is None or (found.page, found.salts) != (page, index.salts):
            raise SourceBusy(path=self.path, reason="frame")

    def _files_unchanged(self) -> bool:
        if FileVersion.of(os.fstat(self._fd)) != self._db or not self._side.same_paths():
            return False
        return not self.needs_recovery or self._side.same_journal()

    def _flushed(self) -> bool:
        """Whether the database file alone was the image: every frame copied into it, and none left out.

        A checkpoint leaves out pages beyond the size of the database. If it grows again over them without writing
        them, the log still shows the old frame and the file shows zeros.
        """
        index = self.layout.index
        return index is not None and 0 < index.mx_frame <= index.backfilled and not shrank(index)


def _point(side: Companions, layout: Layout) -> WalPoint | None:
    index = layout.index
    if index is None or side.wal is None:
        return None
    return WalPoint(side.wal.dev, side.wal.ino, index.salts, index.mx_frame, index.anchor, flushed=False)
