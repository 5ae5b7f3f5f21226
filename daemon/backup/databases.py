"""The databases of one snapshot: found changed without a lock, copied beforehand if much changed, pinned together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from chatkeep.daemon.backup.listing import Before
from chatkeep.daemon.backup.sealing import Sealer
from chatkeep.daemon.backup.settle import Settler
from chatkeep.daemon.backup.tables import open_table
from chatkeep.daemon.backup.tree import Assignment
from chatkeep.daemon.backup.works import ROOM, PageSealer, Work, Works, aligned, batches
from chatkeep.daemon.backup.writer import Progress, Writer
from chatkeep.daemon.capture.buffer import Buffer, Copied, PageRun
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
from chatkeep.daemon.vault.layers import BUSY, PENDING

# Copying beforehand chases a writer; after this many rounds a longer pin takes what is left.
MAX_PASSES: Final = 3
MAX_TRIES: Final = 3
# A log holds 1,000 pages when SQLite's own checkpoint begins.
LOG_ROOM: Final = 4 * 1024 * 1024
# Databases pinned at once: each holds three descriptors. More changed ones are captured in several groups.
MAX_GROUP: Final = 32


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

    def run(self, tree: SourceTree, databases: Sequence[Database], assignment: Assignment, stream: bytes) -> bool:
        """Capture every changed database that the budget allows, smallest first. True: they are of one moment.

        Those that are no databases after all are left in `plain`, to be kept as ordinary files.
        """
        ready: list[Work] = []
        seen: set[int] = set()
        for database in sorted(databases, key=lambda one: (one.found.size, one.found.path)):
            self._writer.check_cancelled()
            file_id = assignment.ids[database.found.path]
            if file_id in seen:
                continue  # another hard link of the same file
            seen.add(file_id)
            work = self._open(tree, database, file_id)
            if work is None:
                continue
            work.begin(open_table(self._writer.state, stream, file_id, work.page_size))
            with self._guarded(work):
                if self._copy_ahead(work):
                    ready.append(work)
                else:
                    self._settler.postpone(work, PENDING)
        return self._capture(ready)

    # -- before any pin -----------------------------------------------------------------------------------------------

    def _open(self, tree: SourceTree, database: Database, file_id: int) -> Work | None:
        """The database if it may have changed."""
        known = self._works.by_id.get(file_id)
        if known is not None:
            return known
        found = database.found
        path = os.path.join(tree.root, found.path)
        row = self._before.databases.get(file_id)
        try:
            if row is not None and row.digest is not None and not self._settler.is_flagged(file_id):
                last = Signature.decode(row.signature)
                if last is not None and not look(path).changed_since(last):
                    self._settler.unchanged(file_id, found)
                    return None
            work = Work(file_id, found, DatabaseFile(path, database.page_size), database.page_size, row)
        except CaptureError as error:
            self._problem(found, error)
            return None
        self._works.by_id[file_id] = work
        return work

    def _copy_ahead(self, work: Work) -> bool:
        """Bring what is dirty down to what a short pin can copy. False: the budget ended it; the next round goes on."""
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
        if work.digests.count == 0:
            pages = work.found.size // work.page_size
            work.dirty.resize(pages)
            work.dirty.add_range(1, pages)

    def _copy(self, work: Work) -> bool:
        """Seal dirty pages as the file has them now; False when the budget is spent before the last."""
        pages = PageSealer(self._sealer, work.page_size, compress=self._compress)
        step = (1 << 20) // work.page_size
        view = self._works.buffer.view
        with _kept_ahead(work, pages):
            for first, count in aligned(work.dirty, step):
                if self._sealer.size >= self._budget:
                    return False
                self._copy_run(work, pages, first, count, view)
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

    def _capture(self, ready: list[Work]) -> bool:
        # The busiest is pinned last: then all others only have to stand still until it is.
        ready.sort(key=lambda work: work.dirty_bytes)
        group = True
        for start in range(0, len(ready), MAX_GROUP):
            group &= self._capture_group(ready[start : start + MAX_GROUP]) and len(ready) <= MAX_GROUP
        return group

    def _capture_group(self, works: list[Work]) -> bool:
        left = list(works)
        for attempt in range(MAX_TRIES):
            last_try = attempt == MAX_TRIES - 1
            try:
                group, again = self._try_group(left, last_try=last_try)
            except CaptureError as error:
                culprit = [work for work in left if work.path == error.params.get("path")] or left
                for work in culprit:
                    if last_try or not isinstance(error, SourceBusy | PageSizeChanged):
                        self._give_up(work, error)
                        left.remove(work)
                    else:
                        self._restart(work, error)
                continue
            if not again:
                return group
        return False

    def _restart(self, work: Work, error: CaptureError) -> None:
        if isinstance(error, PageSizeChanged):
            # The digests are of pages of another size: an empty table makes every page dirty.
            now = error.params["now"]
            assert isinstance(now, int)
            work.page_size = now
            work.begin(open_table(self._writer.state, self._settler.stream, work.file_id, now))
        work.mark = None
        self._scan(work)

    def _try_group(self, works: list[Work], *, last_try: bool) -> tuple[bool, bool]:
        """Pin all, complete, copy. Returns whether they are of one moment, and whether it must be tried again."""
        if not works:
            return True, False
        buffers = [*(_buffer(work) for work in works[:-1]), self._works.buffer]
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
                return group, True
            for work, pinned in zip(works, pins, strict=True):
                if work in unproven:
                    pinned.scan_all(work.digests, work.dirty, self._seed, self._works.buffer)
            copies = self._copy_pinned(works, pins, buffers)
            for pinned in pins:
                pinned.validate()
        for work, pinned, copied in zip(works, pins, copies, strict=True):
            self._seal(work, pinned, copied)
        return group, False

    def _copy_pinned(self, works: list[Work], pins: list[Pinned], buffers: list[Buffer]) -> list[Copied | None]:
        """Copy what is dirty; what is more than the buffer holds is sealed under the pin, part by part."""
        copies: list[Copied | None] = []
        for work, pinned, buffer in zip(works, pins, buffers, strict=True):
            if pinned.needs_recovery:
                self._settler.journal(work, pinned, self._sealer, compress=self._compress)
            if work.dirty_bytes <= len(buffer):
                copies.append(pinned.copy(work.dirty, buffer))
                continue
            pages = PageSealer(self._sealer, work.page_size, compress=self._compress)
            with _kept_ahead(work, pages):
                for part in batches(work.dirty, len(buffer) // work.page_size):
                    self._take(work, pages, pinned.copy(part, buffer))
            copies.append(None)
        return copies

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
        if isinstance(error, DatabaseDamaged | UnsupportedSource) and work.row is None:
            self.plain.append(work.found)
        else:
            self._settler.postpone(work, BUSY)
        self._problem(work.found, error)
        self._works.finish(work)

    def _problem(self, found: Found, error: CaptureError) -> None:
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


def _buffer(work: Work) -> Buffer:
    """Memory for a database beside the busiest one: what is known to be dirty, and room for what the log adds."""
    return Buffer(min(work.dirty_bytes, ROOM) + LOG_ROOM)
