"""What a capture of a database leaves in the draft: its section, its record, its cursor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from chatkeep.daemon.backup.contents import NOWHERE, encode_identity
from chatkeep.daemon.backup.draft import (
    Draft,
    DraftFile,
    DraftRun,
    DraftSection,
    RunAhead,
    decode_record,
    encode_record,
    total,
)
from chatkeep.daemon.backup.listing import Before
from chatkeep.daemon.backup.tables import redo_of
from chatkeep.daemon.backup.works import Work
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.capture.companions import JOURNAL
from chatkeep.daemon.capture.digests import CHUNK_PAGES, DigestTable, page_table_digest
from chatkeep.daemon.capture.errors import TableIncomplete
from chatkeep.daemon.capture.files import FileIdentity
from chatkeep.daemon.capture.pin import Pinned
from chatkeep.daemon.capture.tree import Found
from chatkeep.daemon.state import DatabaseRow, RunRow
from chatkeep.daemon.vault.layers import (
    BUSY,
    NEEDS_RECOVERY,
    OPAQUE,
    PENDING,
    RESET,
    FileKind,
    FileRecord,
    Reference,
    decode_pages,
)

NO_SIGNATURE = b""  # what no database looks like: it is captured again next time


class Settler:
    """Turns captured databases into what the draft says about them.

    `describe` makes the record of a found file (attributes, no flags); `allocate` gives a new file id.
    """

    def __init__(
        self,
        writer: Writer,
        draft: Draft,
        before: Before,
        stream: bytes,
        describe: Callable[[Found, int], FileRecord],
        allocate: Callable[[], int],
    ) -> None:
        self._writer = writer
        self._ids = writer.ids
        self._draft = draft
        self._before = before
        self.stream = stream
        self._describe = describe
        self._allocate = allocate

    def is_flagged(self, file_id: int) -> bool:
        """Whether the newest snapshot has it pending or busy: then it is captured whatever it looks like."""
        row = self._before.files.get(file_id)
        return row is None or bool(decode_record(row.record).flags & (PENDING | BUSY))

    def unchanged(self, file_id: int, found: Found) -> None:
        """No page changed; the attributes may have."""
        row = self._before.files[file_id]
        if row.identity == self._identity(found):
            return
        old = decode_record(row.record)
        self._speak(file_id, found, _with(self.describe(found, file_id), flags=old.flags, size=old.size))

    def describe(self, found: Found, file_id: int) -> FileRecord:
        """The attributes of a database as it was found. Raises EntryVanished, EntryUnreadable."""
        return _with(self._describe(found, file_id), kind=FileKind.DATABASE)

    def is_believed(self, work: Work, table: DigestTable) -> bool:
        """Whether the table is of the newest capture, and of what was sealed since: every page that it calls clean is
        in the vault.

        It is a file of its own. Restored from elsewhere, or left over by a database that was a file for a while, it
        would call pages clean that no capture has.
        """
        if self._writer.state.runs(self.stream, work.file_id):
            return True  # no digest is known of what is sealed and not captured; its page-table digest will tell
        row = work.row
        if row is None or row.digest is None or row.page_size != table.page_size or table.count > row.page_count:
            return False
        keys = self._ids
        pieces = (
            table.read(first, min(CHUNK_PAGES, row.page_count + 1 - first))
            for first in range(1, row.page_count + 1, CHUNK_PAGES)
        )
        try:
            found = page_table_digest(pieces, row.page_size, row.page_count, keys.page_table_key, keys.page_seed)
        except TableIncomplete:
            return False
        return found == row.digest

    def settle(self, work: Work, pinned: Pinned) -> None:
        """A consistent capture: publish every run that was sealed for it, newest first. Raises TableIncomplete."""
        row, overlay = work.row, work.digests
        earlier = self._writer.state.runs(self.stream, work.file_id)
        first = row is None or row.digest is None or row.page_size != work.page_size
        # Of another page size, and not of the last capture's: what was sealed ahead while it was rewritten.
        older = [_run(old) for old in reversed(earlier) if old.page_size == work.page_size]
        every = [*reversed(work.ahead), *older]
        changed = first or bool(every) or (row is not None and row.page_count != pinned.page_count)
        digest = row.digest if row is not None else None
        if changed:
            digest = page_table_digest(
                overlay.chunks(pinned.page_count),
                work.page_size,
                pinned.page_count,
                self._ids.page_table_key,
                self._ids.page_seed,
            )
            self._draft.sections.append(
                DraftSection(work.file_id, RESET if first else 0, work.page_size, pinned.page_count, digest, every)
            )
            self._draft.redo.append(redo_of(work.file_id, overlay))
            if earlier:
                self._draft.published.append(work.file_id)
        self._draft.databases[work.file_id] = DatabaseRow(
            work.file_id, work.page_size, pinned.page_count, pinned.signature.encode(), digest
        )
        flags = (NEEDS_RECOVERY if pinned.needs_recovery else 0) | (OPAQUE if pinned.layout.opaque else 0)
        # The time is that of the image. The identity stays the older one, of before the other attributes were read.
        record = _with(work.record, mtime=pinned.signature.db.mtime_ns)
        self._record(work, record, flags, work.page_size * pinned.page_count)
        self._journal(work)

    def postpone(self, work: Work, flag: int) -> None:
        """No consistent capture this time: what was sealed ahead is kept, an older capture stands."""
        row = work.row
        self._draft.runs += [RunAhead(work.file_id, work.page_size, run) for run in work.ahead]
        if work.ahead:
            self._draft.redo.append(redo_of(work.file_id, work.digests))
        if row is None:
            row = DatabaseRow(work.file_id, work.page_size, 0, NO_SIGNATURE, None)
        self._draft.databases[work.file_id] = replace(row, signature=NO_SIGNATURE)
        work.row = self._draft.databases[work.file_id]
        if row.digest is None:
            flag = PENDING
        else:  # what the older capture needs for its recovery, it needs still
            flag |= self._flags(work.file_id) & (NEEDS_RECOVERY | OPAQUE)
        self._record(work, work.record, flag, work.found.size)

    def _journal(self, work: Work) -> None:
        """Keep a hot journal as a file beside its database: together they are what SQLite recovers from."""
        path = work.found.path + JOURNAL
        kept = self._before.paths.get(path) if self._flags(work.file_id) & NEEDS_RECOVERY else None
        if work.journal is None:
            if kept is not None:
                self._draft.paths.append((path, None))
                self._draft.forgotten.append(kept)
            return
        file_id = self._allocate() if kept is None else kept
        size = total(work.journal)
        record = _with(work.record, file_id=file_id, kind=FileKind.FILE, size=size)
        self._draft.paths.append((path, file_id))
        self._draft.contents[file_id] = (size, work.journal)
        self._draft.spoken[file_id] = record
        self._draft.files[file_id] = DraftFile(encode_identity(NOWHERE, 0), record, work.journal)

    def _flags(self, file_id: int) -> int:
        row = self._before.files.get(file_id)
        return 0 if row is None else decode_record(row.record).flags

    def _record(self, work: Work, record: FileRecord, flags: int, size: int) -> None:
        self._speak(work.file_id, work.found, _with(record, size=size, flags=flags))

    def _speak(self, file_id: int, found: Found, record: FileRecord) -> None:
        row = self._before.files.get(file_id)
        if row is None or row.record != encode_record(record):
            self._draft.spoken[file_id] = record
        self._draft.files[file_id] = DraftFile(self._identity(found), record, None)

    def _identity(self, found: Found) -> bytes:
        return encode_identity(FileIdentity.of(found), 0)


def _run(row: RunRow) -> DraftRun:
    return DraftRun(decode_pages(row.pages), Reference(row.pack, row.slot, row.blob))


def _with(record: FileRecord, **changes: object) -> FileRecord:
    return msgspec.structs.replace(record, **changes)
