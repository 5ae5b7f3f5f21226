"""The content of ordinary files: read once in one stable version, unchanged chunks found by id, the rest sealed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from chatkeep.daemon.backup.draft import Draft, DraftFile, Piece, decode_content, encode_record, total
from chatkeep.daemon.backup.sealing import Lane, Sealer
from chatkeep.daemon.capture.files import Extent, FileIdentity, StableReader
from chatkeep.daemon.capture.tree import Found, SourceTree
from chatkeep.daemon.state import PartialRow
from chatkeep.daemon.vault.blob import BlobKind, IdKeys
from chatkeep.daemon.vault.layers import BUSY, PENDING, FileRecord, Reference

FILE_LEVEL: Final = 1  # Zstandard: media does not shrink, and the rest is soon done
NOWHERE: Final = FileIdentity(0, 0, 0, 0, 0)  # that no file has: the next capture reads it again
MAX_RESTARTS: Final = 2
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
    found: Found
    old: tuple[Piece, ...] | None
    old_record: bytes | None


class ContentPass:
    """Reads the wanted files of one snapshot until its budget is spent.

    `describe` makes the record of a file as it was found; `tick` is told the bytes of each piece, and may raise.
    `restarts`, kept from snapshot to snapshot of one backup, counts how often a half sealed file was found changed.
    """

    def __init__(
        self,
        tree: SourceTree,
        sealer: Sealer,
        ids: IdKeys,
        draft: Draft,
        describe: Callable[[Found, int], FileRecord],
        tick: Callable[[int], None],
        restarts: dict[bytes, int],
        *,
        level: int | None,
        budget: int,
    ) -> None:
        self._tree = tree
        self._describe = describe
        self._tick = tick
        self._restarts = restarts
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
        done = self._read_once(wanted, partial)
        if done is None and (partial is None or self._may_restart(wanted)):
            done = self._read_once(wanted, None)
        if done is None:
            # Without an older content there is nothing to stand in: a restore must not make an empty file of it.
            self._keep_old(wanted, PENDING if wanted.old is None else BUSY)
        if done is not False and partial is not None:
            self._draft.finished_partials.append(wanted.found.path)
        return done is not False

    def _may_restart(self, wanted: Wanted) -> bool:
        """A file longer than a snapshot that never rests would be begun in every one, and the backup never end."""
        self._restarts[wanted.found.path] = self._restarts.get(wanted.found.path, 0) + 1
        return self._restarts[wanted.found.path] <= MAX_RESTARTS

    def _read_once(self, wanted: Wanted, partial: PartialRow | None) -> bool | None:
        """True: sealed. False: the budget ended it, the beginning is kept. None: it changed while it was read."""
        pieces: list[Piece] = []
        if partial is not None:
            pieces = decode_content(partial.content)
        with StableReader(self._tree, wanted.found.path, start_offset=total(pieces)) as reader:
            if partial is not None and decode_identity(partial.identity)[0] != reader.identity:
                return None
            # While it is open: a change of the attributes after this shows as another version, like one of the content.
            record = self._describe(reader.found, wanted.file_id)
            identity = encode_identity(reader.identity, reader.captured_ns)
            old = _by_offset(wanted.old or ())
            for extent in reader.extents():
                pieces.append(self._piece(extent, old))
                self.bytes_read += extent.length if extent.data is not None else 0
                self._tick(extent.length)
                if self.spent and extent.offset + extent.length < reader.found.size:
                    self._draft.partials.append((wanted.found.path, identity, pieces))
                    self._keep_old(wanted, PENDING)
                    return False
            if not reader.stable:
                return None
        if wanted.old is None or list(wanted.old) != pieces:
            self._draft.contents[wanted.file_id] = (record.size, pieces)
        self._speak(wanted, record)
        self._draft.files[wanted.file_id] = DraftFile(identity, record, pieces)
        return True

    def _keep_old(self, wanted: Wanted, flag: int) -> None:
        record = msgspec.structs.replace(self._describe(wanted.found, wanted.file_id), flags=flag)
        self._speak(wanted, record)
        self._draft.files[wanted.file_id] = DraftFile(encode_identity(NOWHERE, 0), record, wanted.old)

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
