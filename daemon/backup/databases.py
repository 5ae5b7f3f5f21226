"""The databases of one snapshot: found changed without a lock, copied beforehand if much changed, pinned together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from chatkeep.daemon.backup.contents import FILE_LEVEL
from chatkeep.daemon.backup.draft import Piece
from chatkeep.daemon.backup.listing import Before
from chatkeep.daemon.backup.sealing import Lane, Sealer
from chatkeep.daemon.backup.settle import Settler
from chatkeep.daemon.backup.tables import open_table
from chatkeep.daemon.backup.tree import Assignment
from chatkeep.daemon.backup.works import MAX_GROUP, ROOM, PageSealer, Work, Works, aligned, batches
from chatkeep.daemon.backup.writer import Progress, Writer
from chatkeep.daemon.capture.buffer import Buffer, Copied, PageRun
from chatkeep.daemon.capture.companions import INDEX, JOURNAL, WAL
from chatkeep.daemon.capture.database import DatabaseFile, look, pin_all
from chatkeep.daemon.capture.digests import page_digests
from chatkeep.daemon.capture.discover import Database
from chatkeep.daemon.capture.errors import (
    CaptureError,
    DatabaseDamaged,
    NotProven,
    PageSizeChanged,
    SourceBusy,
    UnsupportedSource,
)
from chatkeep.daemon.capture.pin import Pinned
from chatkeep.daemon.capture.position import Signature
from chatkeep.daemon.capture.tree import Found, SourceTree
from chatkeep.daemon.vault.blob import BlobKind
from chatkeep.daemon.vault.layers import BUSY, MAX_BLOB, PENDING

# Copying beforehand chases a writer; after this many rounds a longer pin takes what is left.
MAX_PASSES: Final = 3
MAX_TRIES: Final = 3
AHEAD: Final = MAX_BLOB  # bytes copied beforehand at a time


class DatabaseProblem(NamedTuple):
    """A database that could not be captured now; an older capture of it stands, if there is one."""

    path: bytes
    error: CaptureError


class DatabasePass:
    """Captures what changed in the databases of a source into one draft."""

    def __init__(
        self,
        writer: Writer,
        sealer: Sealer,
        before: Before,
        works: Works,
        settler: Settler,
        *,
        compress: bool,
        source: str,
    ) -> None:
        self._writer = writer
        self._sealer = sealer
        self._before = before
        self._works = works
        self._settler = settler
        self._compress = compress
        self._source = source
        self._budget = writer.budget
        self._seed = writer.ids.page_seed
        self.bytes_read = 0
        self.problems: list[DatabaseProblem] = []
        self.plain: list[Found] = []
        self.group = True
        self._moments = 0  # how many at least: of one only, the databases are a group
        self._seen: set[int] = set()
        self._ready: list[Work] = []
        self._unchanged: list[tuple[bytes, Signature]] = []

    def run(self, tree: SourceTree, databases: Sequence[Database], assignment: Assignment, stream: bytes) -> None:
        """Capture every changed database that the budget allows, smallest first. `group`: they are of one moment.

        Those that are no databases after all are left in `plain`, to be kept as ordinary files.
        """
        for database in sorted(databases, key=_smallest_first):
            self._writer.check_cancelled()
            file_id = assignment.ids[database.found.path]
            if file_id in self._seen:
                continue  # another hard link of the same file
            self._seen.add(file_id)
            work = self._open(tree, database, file_id)
            if work is None:
                continue
            self._begin(work, stream)
            with self._guarded(work):
                if self._copy_ahead(work):
                    self._join(work)
                else:
                    self._put_off(work)
        self._capture()
        self.group = self._moments < 2 and self._still_unchanged()

    def _join(self, work: Work) -> None:
        """Pin it together with others, as many as memory and descriptors allow."""
        if len(self._ready) == MAX_GROUP or work.dirty_bytes + sum(one.dirty_bytes for one in self._ready) > ROOM:
            self._capture()
        self._ready.append(work)

    def _put_off(self, work: Work) -> None:
        self._moments = 2
        self._settler.postpone(work, PENDING)
        if not work.touched:
            self._works.finish(work)  # nothing to go on from: no descriptor is held for it until the next round

    def _still_unchanged(self) -> bool:
        """Whether what was found unchanged still was when the others were pinned: else they are of two moments."""
        try:
            return not any(look(path).changed_since(last) for path, last in self._unchanged)
        except CaptureError:
            return False

    # -- before any pin -----------------------------------------------------------------------------------------------

    def _open(self, tree: SourceTree, database: Database, file_id: int) -> Work | None:
        """The database if it may have changed."""
        found = database.found
        path = os.path.join(tree.root, found.path)
        row = self._before.databases.get(file_id)
        try:
            if row is not None and row.digest is not None and not self._settler.is_flagged(file_id):
                last = Signature.decode(row.signature)
                if last is not None and not look(path).changed_since(last):
                    self._settler.unchanged(file_id, found)
                    self._unchanged.append((path, last))
                    return None
            record = self._settler.describe(found, file_id)
            work = self._works.by_id.get(file_id)
            if work is not None and work.path == path:
                work.found, work.record, work.row = found, record, row
                return work
            if work is not None:
                self._works.finish(work)  # renamed between two rounds
            work = Work(file_id, found, record, DatabaseFile(path, database.page_size), database.page_size, row)
        except CaptureError as error:
            self._problem(found, error)
            return None
        self._works.by_id[file_id] = work
        return work

    def _begin(self, work: Work, stream: bytes) -> None:
        table = open_table(self._writer.state, stream, work.file_id, work.page_size)
        if not self._settler.is_believed(work, table):
            table.truncate(0)
        work.begin(table)

    def _copy_ahead(self, work: Work) -> bool:
        """Bring what is dirty down to what a short pin can copy. False: the budget ended it; the next round goes on."""
        if self._sealer.size >= self._budget:
            return False
        while True:
            if work.mark is None:
                self._scan(work)
            if work.dirty_bytes <= ROOM or work.passes >= MAX_PASSES:
                return True
            # The mark of the scan stays good: every page copied was read after it, as if it had been scanned then.
            if not self._copy(work):
                return False
            work.passes += 1

    def _scan(self, work: Work) -> None:
        # A page copied ahead may be older than what the last capture took from the log: then only a full comparison,
        # with every frame of the log, finds it. So the last signature counts only while nothing was copied.
        row = None if work.touched or work.unproven or not work.digests.count else work.row
        last = None if row is None else Signature.decode(row.signature)
        work.mark = work.file.scan(work.digests, work.dirty, self._seed, self._works.buffer, last)
        self.bytes_read += work.mark.bytes_read

    def _copy(self, work: Work) -> bool:
        """Seal dirty pages as the file has them now; False when the budget is spent before the last."""
        pages = PageSealer(self._sealer, work.page_size, compress=self._compress)
        step = AHEAD // work.page_size
        view = self._works.buffer.view
        assert work.mark is not None, "a database is scanned before it is copied"
        # Beyond the end of the file there is nothing to copy: the database shrank, or the log has it.
        last = -(-work.mark.since.db.size // work.page_size)
        with _kept_ahead(work, pages):
            for first, count in aligned(work.dirty, step):
                if first > last:
                    break
                if self._sealer.size >= self._budget:
                    return False
                self._copy_run(work, pages, first, min(count, last + 1 - first), view)
        return True

    def _copy_run(self, work: Work, pages: PageSealer, first: int, count: int, view: memoryview) -> None:
        data = view[: count * work.page_size]
        work.file.read_unlocked(first, count, work.page_size, data)
        digests = page_digests(data, work.page_size, self._seed)
        pages.add(PageRun(first, data, digests))
        work.digests.put(first, digests)
        work.dirty.discard_range(first, count)
        self.bytes_read += len(data)
        self._writer.check_cancelled()
        self._writer.report(Progress(self._source, "databases", self.bytes_read, work.found.size))

    # -- the pin ------------------------------------------------------------------------------------------------------

    def _capture(self) -> None:
        """Capture what was gathered, of one moment if its applications leave one."""
        left, self._ready = self._ready, []
        if not left:
            return
        self._moments += 1
        attempts = 0
        while left:
            # Who kept a pin waiting comes first: nobody stands still for it. The busiest of the others comes last.
            left.sort(key=lambda work: (-work.tries, work.dirty_bytes))
            attempts += 1
            try:
                if self._try_group(left, last_try=attempts >= MAX_TRIES):
                    return
            except CaptureError as error:
                left = [work for work in left if not _concerns(error, work) or self._again(work, error)]

    def _again(self, work: Work, error: CaptureError) -> bool:
        """Get ready for another try; False when there is none: an older capture stands."""
        work.tries += 1
        if work.tries < MAX_TRIES and isinstance(error, SourceBusy | PageSizeChanged):
            try:
                self._restart(work, error)
                return True
            except CaptureError as another:
                error = another
        self._give_up(work, error)
        return False

    def _restart(self, work: Work, error: CaptureError) -> None:
        if isinstance(error, PageSizeChanged):
            # The digests are of pages of another size: an empty table makes every page dirty.
            now = error.params["now"]
            assert isinstance(now, int)
            work.page_size = now
            self._begin(work, self._settler.stream)
        self._scan(work)

    def _try_group(self, works: list[Work], *, last_try: bool) -> bool:
        """Pin all, complete, copy. False: it must be tried again, for one could not be proven, or a commit fell
        between."""
        buffers = self._works.share(works)
        for work, buffer in zip(works, buffers, strict=True):
            work.file.prefetch(work.dirty, work.page_size, buffer)
        with contextlib.ExitStack() as stack:
            pins = [stack.enter_context(pinned) for pinned in pin_all([work.file for work in works])]
            group = all(pinned.unchanged() for pinned in pins[:-1])
            unproven = [work for work, pinned in zip(works, pins, strict=True) if not _complete(work, pinned)]
            if not last_try and (unproven or not group):
                stack.close()
                for work in unproven:
                    work.unproven = True
                    self._scan(work)
                return False
            for work, pinned in zip(works, pins, strict=True):
                if work in unproven:
                    pinned.scan_all(work.digests, work.dirty, self._seed, self._works.buffer)
            copies = self._copy_pinned(works, pins, buffers)
            for pinned in pins:
                pinned.validate()
        self._moments += 0 if group else 1
        for work, pinned, copied in zip(works, pins, copies, strict=True):
            with self._guarded(work):
                self._seal(work, pinned, copied)
        return True

    def _copy_pinned(self, works: list[Work], pins: list[Pinned], buffers: list[Buffer]) -> list[Copied | None]:
        """Copy what is dirty; what is more than the buffer holds is sealed under the pin, part by part."""
        copies: list[Copied | None] = []
        for work, pinned, buffer in zip(works, pins, buffers, strict=True):
            work.journal = self._journal(pinned) if pinned.needs_recovery else None
            if work.dirty_bytes <= len(buffer):
                copies.append(pinned.copy(work.dirty, buffer))
                continue
            pages = PageSealer(self._sealer, work.page_size, compress=self._compress)
            with _kept_ahead(work, pages):
                for part in batches(work.dirty, len(buffer) // work.page_size):
                    self._take(work, pages, pinned.copy(part, buffer))
            copies.append(None)
        return copies

    def _journal(self, pinned: Pinned) -> list[Piece]:
        content = pinned.journal()
        level = FILE_LEVEL if self._compress else None
        parts = [content[at : at + MAX_BLOB] for at in range(0, len(content), MAX_BLOB)]
        return [Piece(len(part), self._sealer.submit(Lane.MEDIA, BlobKind.CHUNK, part, level)) for part in parts]

    # -- after the pin ------------------------------------------------------------------------------------------------

    def _seal(self, work: Work, pinned: Pinned, copied: Copied | None) -> None:
        work.digests.truncate(pinned.page_count)
        if copied is not None:
            pages = PageSealer(self._sealer, work.page_size, compress=self._compress)
            with _kept_ahead(work, pages):
                self._take(work, pages, copied)
        self._settler.settle(work, pinned)
        self._works.finish(work)

    def _take(self, work: Work, pages: PageSealer, copied: Copied) -> None:
        for run in copied.changed(work.digests, self._seed):
            pages.add(run)
            work.digests.put(run.first, run.digests)
        self.bytes_read += len(copied.view)

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _guarded(self, work: Work) -> Iterator[None]:
        try:
            yield
        except CaptureError as error:
            self._give_up(work, error)

    def _give_up(self, work: Work, error: CaptureError) -> None:
        self._moments = 2
        captured = work.row is not None and work.row.digest is not None
        if isinstance(error, DatabaseDamaged | UnsupportedSource) and not captured:
            self.plain.append(work.found)
        else:
            self._settler.postpone(work, BUSY)
        self._problem(work.found, error)
        self._works.finish(work)

    def _problem(self, found: Found, error: CaptureError) -> None:
        self._moments = 2
        self.problems.append(DatabaseProblem(found.path, error))


@contextlib.contextmanager
def _kept_ahead(work: Work, pages: PageSealer) -> Iterator[None]:
    """Whatever ends the block, every page whose digest was recorded is sealed and its run kept.

    A digest without its blob would call a page clean that the vault does not have.
    """
    try:
        yield
    finally:
        pages.flush()
        work.ahead += pages.runs
        work.touched = True


def _complete(work: Work, pinned: Pinned) -> bool:
    assert work.mark is not None, "a database is scanned before it is pinned"
    try:
        pinned.complete(work.digests, work.dirty, work.mark)
    except NotProven:
        return False
    return True


def _smallest_first(database: Database) -> tuple[int, int, int, bool, bytes]:
    """Of several names of one file, the one comes first that has the log: only that name's companions count."""
    found = database.found
    return found.size, found.dev, found.ino, database.wal is None and database.journal is None, found.path


def _concerns(error: CaptureError, work: Work) -> bool:
    path = error.params.get("path")
    return path is None or path in (work.path, *(work.path + suffix for suffix in (WAL, INDEX, JOURNAL)))
