"""The content of ordinary files: read once in one stable version, unchanged chunks found by id, the rest sealed."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from chatkeep.daemon.backup.draft import Draft, DraftFile, Piece, decode_content, encode_record, total
from chatkeep.daemon.backup.sealing import Lane, Sealer
from chatkeep.daemon.capture.files import Extent, FileIdentity, StableReader
from chatkeep.daemon.capture.tree import SourceTree
from chatkeep.daemon.state import PartialRow
from chatkeep.daemon.vault.blob import BlobKind, IdKeys
from chatkeep.daemon.vault.layers import BUSY, PENDING, FileRecord, Reference

FILE_LEVEL: Final = 1  # Zstandard: media does not shrink, and the rest is soon done
_IDENTITY: Final = struct.Struct(">QQQqqq")


def encode_identity(identity: FileIdentity, captured_ns: int) -> bytes:
    """What a file looked like and when, as the state keeps it."""
    return _IDENTITY.pack(*identity, captured_ns)


def decode_identity(raw: bytes) -> tuple[FileIdentity, int]:
    """The identity and the wall time of the capture in ns."""
    *identity, captured = _IDENTITY.unpack(raw)
    return FileIdentity(*identity), captured


class Wanted(NamedTuple):
    """A file whose content must be read. `old` and `old_record`: what the newest snapshot has, if it has it."""

    file_id: int
    path: bytes
    record: FileRecord
    old: tuple[Piece, ...] | None
    old_record: bytes | None


class ContentPass:
    """Reads the wanted files of one snapshot until its budget is spent."""

    def __init__(
        self, tree: SourceTree, sealer: Sealer, ids: IdKeys, draft: Draft, *, level: int | None, budget: int
    ) -> None:
        self._tree = tree
        self._sealer = sealer
        self._ids = ids
        self._draft = draft
        self._level = level
        self._budget = budget
        self.bytes_read = 0

    @property
    def spent(self) -> bool:
        """Whether this snapshot may introduce no more."""
        return self._sealer.size >= self._budget

    def read(self, wanted: Wanted, partial: PartialRow | None) -> bool:
        """Seal one file's content and put it into the draft; False when the budget ended it half-way or before it.

        A file that changes while it is read twice keeps its old content, if any, and is marked busy. Raises
        EntryVanished and EntryUnreadable: the file is left as the newest snapshot has it.
        """
        if self.spent:
            self._keep_old(wanted, PENDING)
            return False
        for _ in range(2):
            done = self._read_once(wanted, partial)
            if done is not None:
                return done
            partial = None
        self._keep_old(wanted, BUSY)
        return True

    def _read_once(self, wanted: Wanted, partial: PartialRow | None) -> bool | None:
        """True: sealed. False: the budget ended it, the beginning is kept. None: it changed while it was read."""
        pieces: list[Piece] = []
        if partial is not None:
            pieces = decode_content(partial.content)
        with StableReader(self._tree, wanted.path, start_offset=total(pieces)) as reader:
            if partial is not None and decode_identity(partial.identity)[0] != reader.identity:
                return None
            identity = encode_identity(reader.identity, reader.captured_ns)
            old = _by_offset(wanted.old or ())
            for extent in reader.extents():
                pieces.append(self._piece(extent, old))
                self.bytes_read += extent.length if extent.data is not None else 0
                if self.spent and total(pieces) < reader.found.size:
                    self._draft.partials.append((wanted.path, identity, pieces))
                    self._keep_old(wanted, PENDING)
                    return False
            if not reader.stable:
                return None
            size = reader.found.size
        self._settle(wanted, identity, size, pieces, had_partial=partial is not None)
        return True

    def _settle(self, wanted: Wanted, identity: bytes, size: int, pieces: list[Piece], *, had_partial: bool) -> None:
        record = _with(wanted.record, size=size)
        if wanted.old is None or list(wanted.old) != pieces:
            self._draft.contents[wanted.file_id] = (size, pieces)
        self._speak(wanted, record)
        self._draft.files[wanted.file_id] = DraftFile(identity, record, pieces)
        if had_partial:
            self._draft.finished_partials.append(wanted.path)

    def _keep_old(self, wanted: Wanted, flag: int) -> None:
        record = _with(wanted.record, flags=flag)
        self._speak(wanted, record)
        # An identity that no file has: the next capture reads it again.
        nowhere = encode_identity(FileIdentity(0, 0, 0, 0, 0), 0)
        self._draft.files[wanted.file_id] = DraftFile(nowhere, record, wanted.old)

    def _speak(self, wanted: Wanted, record: FileRecord) -> None:
        if encode_record(record) != wanted.old_record:
            self._draft.spoken[wanted.file_id] = record

    def _piece(self, extent: Extent, old: Mapping[int, tuple[int, Reference]]) -> Piece:
        if extent.data is None:
            return Piece(extent.length, None)
        before = old.get(extent.offset)
        # Only a chunk of this same file is ever reused: reuse across files would tell storage who has which file.
        if before is not None and before[0] == extent.length:
            same = self._ids.id(BlobKind.CHUNK, extent.data) == before[1].id
            if same:
                return Piece(extent.length, before[1])
        return Piece(extent.length, self._sealer.submit(Lane.MEDIA, BlobKind.CHUNK, extent.data, self._level))


def _by_offset(pieces: tuple[Piece, ...]) -> dict[int, tuple[int, Reference]]:
    found: dict[int, tuple[int, Reference]] = {}
    offset = 0
    for piece in pieces:
        if isinstance(piece.place, Reference):
            found[offset] = (piece.length, piece.place)
        offset += piece.length
    return found


def _with(record: FileRecord, *, size: int | None = None, flags: int = 0) -> FileRecord:
    return msgspec.structs.replace(record, size=record.size if size is None else size, flags=flags)
