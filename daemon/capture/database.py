"""A database of another program, read while the program writes: found, searched for changes, pinned.

No SQLite library opens it. It is read through descriptors that cannot write, under locks that its owner sees, and
nothing beside it is created, changed or left behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, Self

from chatkeep.daemon.capture import locks
from chatkeep.daemon.capture.buffer import Buffer
from chatkeep.daemon.capture.companions import INDEX, WAL, Companions
from chatkeep.daemon.capture.digests import Digests, differing, page_digests
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.capture.errors import DatabaseReplaced, SourceBusy, SourceMissing
from chatkeep.daemon.capture.layout import HEADER_SIZE, Logs, parse_file_header, survey
from chatkeep.daemon.capture.logfile import anchor_of, mark_of, read_header, read_shm
from chatkeep.daemon.capture.pin import Pinned, ScanMark
from chatkeep.daemon.capture.position import FileVersion, Signature, WalPoint
from chatkeep.daemon.capture.reading import Tick, no_tick, open_companion, open_source, read_padded, version_at

_STEP = 1 << 20  # bytes read at a time by a scan


class DatabaseKind(NamedTuple):
    """`opaque`: the application encrypts the pages; the log's header gives the page size, or what is remembered."""

    page_size: int
    opaque: bool


def probe(path: bytes, hint: int | None = None) -> DatabaseKind | None:
    """Tells a database by its content; None for any other file, an empty one included.

    `hint`: the page size of a database captured under this path before. Without it a database with encrypted pages is
    known by the log beside it only. Raises SourceMissing, SourceUnreadable, UnsupportedSource.
    """
    fd = open_source(path)
    try:
        size = os.fstat(fd).st_size
        header = parse_file_header(os.pread(fd, HEADER_SIZE, 0))
    finally:
        os.close(fd)
    if header is not None:
        return DatabaseKind(header.page_size, opaque=False)
    page_size = _log_page_size(path) or hint
    if not size or page_size is None or size % page_size:
        return None
    return DatabaseKind(page_size, opaque=True)


def _log_page_size(path: bytes) -> int | None:
    fd = open_companion(path + WAL)
    if fd is None:
        return None
    try:
        header = read_header(fd)
    finally:
        os.close(fd)
    return header.page_size if header else None


def look(path: bytes, now_ns: int | None = None) -> Signature:
    """How the database looks, without a lock and without reading a page. `now_ns`: the wall clock, for tests.

    Raises SourceMissing, SourceUnreadable, UnsupportedSource.
    """
    taken_ns = time.time_ns() if now_ns is None else now_ns
    db = version_at(path)
    if db is None:
        raise SourceMissing(path=path)
    side = Companions(path)
    try:
        return _look(side, db, taken_ns)
    finally:
        side.close()


def _look(side: Companions, db: FileVersion, taken_ns: int) -> Signature:
    """The generation is looked up before anything else is read, so whatever is written later belongs to it or to a
    later one."""
    point, mark = None, None
    if side.wal is not None and side.wal_fd is not None:
        shm = read_shm(side.shm_fd) if side.shm_fd is not None and side.alive else None
        if shm is not None:
            mark = mark_of(shm)
            anchor = anchor_of(shm.checksum) if shm.mx_frame else bytes(8)
            point = WalPoint(side.wal.dev, side.wal.ino, shm.salts, shm.mx_frame, anchor, flushed=False)
        elif (header := read_header(side.wal_fd)) is not None:
            point = WalPoint(side.wal.dev, side.wal.ino, header.salts, 0, bytes(8), flushed=False)
    return Signature(taken_ns, db, side.wal, side.journal, mark, point)


class DatabaseFile:
    """One database file, held open. `hint`: the page size where no file tells it.

    One capture is: `scan` without locks, `prefetch`, `pin`; under the pin `complete`, `copy`, `validate`; after it
    `Copied.changed`. Raises SourceMissing, SourceUnreadable, UnsupportedSource.
    """

    def __init__(self, path: bytes, hint: int | None = None, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self._hint = hint
        self._clock = clock
        self._logs = Logs()
        self._fd = open_source(path)

    def scan(
        self,
        digests: Digests,
        dirty: DirtySet,
        seed: int,
        buffer: Buffer,
        last: Signature | None = None,
        tick: Tick = no_tick,
    ) -> ScanMark:
        """Find the pages of the file that differ from `digests`, without any lock; `dirty` is theirs alone afterwards.

        `last`: the signature of the capture that `digests` are of. When it still tells what changed since, no page is
        read. After NotProven leave it out. About 0.5 s of CPU per GB; the first MiB of `buffer` is overwritten.
        Raises SourceBusy.
        """
        dirty.resize(0)
        side = Companions(self.path)
        try:
            since = _look(side, FileVersion.of(os.fstat(self._fd)), self._clock())
            self._read_ahead(side, since, digests.page_size)
        finally:
            side.close()
        if last is not None and _continues(last, since):
            return ScanMark(last, scanned=False, bytes_read=0)
        if not digests.count:  # nothing is known: every page is dirty without being looked at
            dirty.resize(-(-since.db.size // digests.page_size))
            dirty.add_range(1, dirty.page_count)
            return ScanMark(since, scanned=True, bytes_read=0)
        return ScanMark(since, scanned=True, bytes_read=self._compare(digests, dirty, seed, buffer, tick))

    def _compare(self, digests: Digests, dirty: DirtySet, seed: int, buffer: Buffer, tick: Tick) -> int:
        size = digests.page_size
        pages = -(-os.fstat(self._fd).st_size // size)
        dirty.resize(max(pages, digests.count))
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        step = min(_STEP, len(buffer)) // size
        total = 0
        for first in range(1, dirty.page_count + 1, step):
            # Pages beyond the end of the file count as the zeros that a grown database would show there.
            count = min(step, dirty.page_count + 1 - first)
            view = buffer.view[: count * size]
            total += read_padded(self._fd, view, (first - 1) * size)
            known = digests.read(first, count)
            found = page_digests(view, size, seed)
            if found != known:
                dirty.update(differing(found, known, first))
            tick(len(view))
        return total

    def _read_ahead(self, side: Companions, since: Signature, page_size: int) -> None:
        """Read what the pin will want to know of the log: all but what is appended until then."""
        if side.wal_fd is None:
            return
        if since.index is None:
            self._logs.verified.read(side.wal_fd, self._clock())
        else:
            self._logs.sizes.read(side.wal_fd, page_size, since.index.salts, since.index.mx_frame)

    def prefetch(self, pages: DirtySet, page_size: int, buffer: Buffer) -> None:
        """Bring pages, and the log, into memory before the pin: from a cold disk they take twenty times as long."""
        fd = open_companion(self.path + WAL)
        if fd is not None:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
            os.close(fd)
        ranges = list(pages.ranges())
        for first, count in ranges:
            os.posix_fadvise(self._fd, (first - 1) * page_size, count * page_size, os.POSIX_FADV_WILLNEED)
        step = min(_STEP, len(buffer)) // page_size
        for first, count in ranges:
            for start in range(first, first + count, step):
                self.read_unlocked(start, min(step, first + count - start), page_size, buffer.view)

    def read_unlocked(self, first: int, count: int, page_size: int, out: memoryview) -> None:
        """Pages of the file as it is now, without a lock, to copy much of a large database before a short pin.

        They may be torn, and newer ones may be in the log: put the digests of what was read into an `Overlay` and take
        the pages off the dirty set, and `complete` puts back those that must be read again under the pin. The mark has
        to be one of a scan, of before the first such read: after a capture that took a page from the log, the file can
        still hold an older one, and a mark of that capture would not look back that far.
        """
        read_padded(self._fd, out[: count * page_size], (first - 1) * page_size)

    def pin(self) -> Pinned:
        """Hold the database still. One pin at a time.

        Raises SourceBusy after 0.4 s in vain, SourceMissing, DatabaseReplaced, DatabaseDamaged, UnsupportedSource.
        """
        for pause in locks.pauses():
            found = self._try_pin()
            if isinstance(found, Pinned):
                return found
            time.sleep(pause)
        raise SourceBusy(path=self.path, reason=found)

    def _try_pin(self) -> Pinned | str:
        """The pin, or the reason why not now."""
        side: Companions | None = None
        pinned: Pinned | None = None
        try:
            if not locks.share_database(self._fd):
                return "exclusive" if self._without_index() else "writing"
            self._require_same_file()
            side = Companions(self.path)
            if not side.lock():
                return "checkpoint"
            now_ns = self._clock()
            layout = survey(self.path, self._fd, side, self._logs, self._hint, now_ns)
            pinned = Pinned(self.path, self._fd, side, layout, now_ns)
        except SourceBusy as busy:
            return str(busy.params["reason"])
        finally:
            if pinned is None:
                locks.release(self._fd)
                if side is not None:
                    side.close()
        return pinned

    def _without_index(self) -> bool:
        """A log without an index: its owner keeps the index to itself, and the database locked as long as it runs."""
        return version_at(self.path + WAL) is not None and version_at(self.path + INDEX) is None

    def _require_same_file(self) -> None:
        now = version_at(self.path)
        if now is None:
            raise SourceMissing(path=self.path)
        here = os.fstat(self._fd)
        if (now.dev, now.ino) != (here.st_dev, here.st_ino):
            raise DatabaseReplaced(path=self.path)

    def close(self) -> None:
        """Let go of the file; safe to repeat."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pin_all(files: Sequence[DatabaseFile]) -> list[Pinned]:
    """Pin several databases. When `unchanged` of each is then true, nothing was committed anywhere between the first
    pin and the last, and the images are of one moment.

    Raises what `DatabaseFile.pin` raises; its `path` tells for which. Nothing stays pinned then.
    """
    with ExitStack() as held:
        pins = [held.enter_context(file.pin()) for file in files]
        held.pop_all()
    return pins


def _continues(last: Signature, now: Signature) -> bool:
    """Whether `complete` will probably be able to prove what changed since `last` without a scan."""
    was, point = last.point, now.point
    if was is not None and point is not None and was.same_generation(point):
        # With nobody alive the number of frames is not known here; a file that was written then is looked at.
        return was.mx_frame <= point.mx_frame if now.index is not None else last.db == now.db
    if last.db != now.db or not last.db.settled(last.taken_ns):
        return False
    return was is None or not was.mx_frame or was.flushed
