"""What a capture of a database leaves in the draft: its section, its record, its cursor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from chatkeep.daemon.backup.contents import FILE_LEVEL, encode_identity
from chatkeep.daemon.backup.draft import (
    Draft,
    DraftFile,
    DraftRun,
    DraftSection,
    Piece,
    decode_record,
    encode_record,
)
from chatkeep.daemon.backup.listing import Before
from chatkeep.daemon.backup.sealing import Lane, Sealer
from chatkeep.daemon.backup.tables import redo_of
from chatkeep.daemon.backup.works import Work
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.capture.digests import page_table_digest
from chatkeep.daemon.capture.files import FileIdentity
from chatkeep.daemon.capture.pin import Pinned
from chatkeep.daemon.capture.tree import Found
from chatkeep.daemon.state import DatabaseRow, RunRow
from chatkeep.daemon.vault.blob import BlobKind
from chatkeep.daemon.vault.layers import (
    BUSY,
    MAX_BLOB,
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
        self._record(file_id, found, old.flags, old.size)

    def settle(self, work: Work, pinned: Pinned) -> None:
        """A consistent capture: publish every run that was sealed for it, newest first."""
        row, overlay = work.row, work.digests
        earlier = self._writer.state.runs(self.stream, work.file_id)
        same_size = row is not None and row.page_size == work.page_size
        first = row is None or row.digest is None or not same_size
        every = [*reversed(work.ahead), *(_run(old) for old in reversed(earlier) if same_size)]
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
        self._record(work.file_id, work.found, flags, work.page_size * pinned.page_count)

    def postpone(self, work: Work, flag: int) -> None:
        """No consistent capture this time: what was sealed ahead is kept, an older capture stands."""
        row = work.row
        for run in work.ahead:
            self._draft.runs.append((work.file_id, run))
        if work.ahead:
            self._draft.redo.append(redo_of(work.file_id, work.digests))
        if row is None:
            row = DatabaseRow(work.file_id, work.page_size, 0, NO_SIGNATURE, None)
        self._draft.databases[work.file_id] = replace(row, signature=NO_SIGNATURE)
        work.row = self._draft.databases[work.file_id]
        self._record(work.file_id, work.found, flag if row.digest is not None else PENDING, work.found.size)

    def journal(self, work: Work, pinned: Pinned, sealer: Sealer, *, compress: bool) -> None:
        """Keep a hot journal as a file beside its database: together they are what SQLite recovers from."""
        path = work.found.path + b"-journal"
        file_id = self._allocate()
        pieces = [
            Piece(len(part), sealer.submit(Lane.MEDIA, BlobKind.CHUNK, part, FILE_LEVEL if compress else None))
            for part in _pieces(pinned.journal())
        ]
        size = sum(piece.length for piece in pieces)
        record = _with(self._describe(work.found, file_id), kind=FileKind.FILE, size=size)
        self._draft.paths.append((path, file_id))
        self._draft.contents[file_id] = (size, pieces)
        self._draft.spoken[file_id] = record
        self._draft.files[file_id] = DraftFile(encode_identity(FileIdentity(0, 0, 0, 0, 0), 0), record, pieces)

    def _record(self, file_id: int, found: Found, flags: int, size: int) -> None:
        record = _with(self._describe(found, file_id), kind=FileKind.DATABASE, size=size, flags=flags)
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


def _pieces(content: bytes) -> list[bytes]:
    return [content[at : at + MAX_BLOB] for at in range(0, len(content), MAX_BLOB)]
