"""What one snapshot will say: gathered in memory, durable only by the commit.

References to blobs become final when their packs are finished, so a draft holds the blobs themselves and is asked for
its layer and its rows at the very end.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from chatkeep.daemon.backup.sealing import Blob
from chatkeep.daemon.state import DatabaseRow, FileRow, PartialRow, RedoRow, RunRow
from chatkeep.daemon.vault.layer_build import LayerBuilder
from chatkeep.daemon.vault.layers import Extent, FileKind, FileRecord, Reference, Run, Section, encode_ranges

_EXTENT: Final = struct.Struct(">Q32sII32s")
_HOLE: Final = (bytes(32), 1, 0, bytes(32))
_RECORDS: Final = msgspec.msgpack.Encoder()
_RECORD: Final = msgspec.msgpack.Decoder(FileRecord)


class Piece(NamedTuple):
    """A stretch of a file: a new blob, one that is in the vault already, or (None) a hole. `length` in bytes."""

    length: int
    place: Blob | Reference | None


class DraftRun(NamedTuple):
    """A pages blob and the ascending (first, count) ranges of pages in it."""

    ranges: list[tuple[int, int]]
    place: Blob | Reference


class RunAhead(NamedTuple):
    """A run whose database had no consistent capture yet."""

    file_id: int
    page_size: int
    run: DraftRun


class DraftSection(NamedTuple):
    """One consistent capture of one database; runs newest first."""

    file_id: int
    flags: int
    page_size: int
    page_count: int
    digest: bytes
    runs: list[DraftRun]


class DraftFile(NamedTuple):
    """A file's row: what it looked like when it was read, and its content (None: none in the vault)."""

    identity: bytes
    record: FileRecord
    content: Sequence[Piece] | None


@dataclass
class Draft:
    """Changes since the newest snapshot. `spoken` are the records the layer carries; `files` every row that changes."""

    paths: list[tuple[bytes, int | None]] = field(default_factory=list)
    spoken: dict[int, FileRecord] = field(default_factory=dict)
    contents: dict[int, tuple[int, Sequence[Piece]]] = field(default_factory=dict)
    sections: list[DraftSection] = field(default_factory=list)
    files: dict[int, DraftFile] = field(default_factory=dict)
    databases: dict[int, DatabaseRow] = field(default_factory=dict)
    runs: list[RunAhead] = field(default_factory=list)
    redo: list[RedoRow] = field(default_factory=list)
    published: list[int] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    demoted: list[int] = field(default_factory=list)
    partials: list[tuple[bytes, bytes, Sequence[Piece]]] = field(default_factory=list)
    finished_partials: list[bytes] = field(default_factory=list)

    def says_something(self) -> bool:
        """Whether a snapshot is worth making: it would differ from the last, or carries work that must not be lost."""
        return bool(self.paths or self.spoken or self.contents or self.sections or self.runs or self.partials)

    def drop_paths_without_record(self, paths: Container[bytes], files: Container[int]) -> None:
        """A file that vanished between the walk and its read has a path and nothing else: no snapshot may show that.

        `paths` and `files`: what the newest snapshot has. What had the path there was given a new name, or is gone.
        """
        kept: list[tuple[bytes, int | None]] = []
        for path, file_id in self.paths:
            if file_id is None or file_id in self.files or file_id in files:
                kept.append((path, file_id))
            elif path in paths:
                kept.append((path, None))
        self.paths = kept

    def demote(self, databases: Container[int]) -> None:
        """Note which of `databases`, those of the newest snapshot, are something else in this one."""
        self.demoted = [
            file_id
            for file_id, file in self.files.items()
            if file_id in databases and file.record.kind is not FileKind.DATABASE
        ]

    def layer(self) -> LayerBuilder:
        """The snapshot's own layer. Every pack but the one that the layer goes into must be finished."""
        builder = LayerBuilder()
        for path, file_id in self.paths:
            builder.add_entry(path, file_id)
        for record in self.spoken.values():
            builder.add_file(record)
        for file_id, (size, pieces) in self.contents.items():
            builder.add_content(file_id, size, [_extent(piece) for piece in pieces])
        for section in self.sections:
            runs = tuple(_run(run) for run in section.runs)
            builder.add_section(
                Section(section.file_id, section.flags, section.page_size, section.page_count, section.digest, runs)
            )
        return builder

    def file_rows(self) -> list[FileRow]:
        """Rows of the files; every pack must be finished."""
        return [
            FileRow(file_id, file.identity, encode_record(file.record), encode_content(file.content))
            for file_id, file in self.files.items()
        ]

    def run_rows(self) -> list[RunRow]:
        """Rows of the runs sealed ahead; every pack must be finished."""
        return [_run_row(ahead) for ahead in self.runs]

    def partial_rows(self) -> list[PartialRow]:
        """Rows of the half sealed files; every pack must be finished."""
        return [PartialRow(path, identity, encode_content(pieces) or b"") for path, identity, pieces in self.partials]


def settled(place: Blob | Reference) -> Reference:
    """The reference of a blob whose pack is finished, or the reference itself."""
    return place if isinstance(place, Reference) else place.reference()


def _run_row(ahead: RunAhead) -> RunRow:
    reference = settled(ahead.run.place)
    assert reference.pack is not None, "a row outlives the pack it names"
    pages = encode_ranges(ahead.run.ranges)
    return RunRow(ahead.file_id, ahead.page_size, pages, reference.pack, reference.slot, reference.id)


def encode_content(pieces: Sequence[Piece] | None) -> bytes | None:
    """A content as the state keeps it: u64 length | pack | u32 hole | u32 slot | id for each piece."""
    if pieces is None:
        return None
    out = bytearray()
    for piece in pieces:
        if piece.place is None:
            out += _EXTENT.pack(piece.length, *_HOLE)
            continue
        reference = settled(piece.place)
        assert reference.pack is not None, "a row outlives the pack it names"
        out += _EXTENT.pack(piece.length, reference.pack, 0, reference.slot, reference.id)
    return bytes(out)


def decode_content(raw: bytes) -> list[Piece]:
    """The pieces of `encode_content`."""
    return [
        Piece(length, None if hole else Reference(pack, slot, blob))
        for length, pack, hole, slot, blob in _EXTENT.iter_unpack(raw)
    ]


def encode_record(record: FileRecord) -> bytes:
    """A file record as the state keeps it: the same bytes for the same record."""
    return _RECORDS.encode(record)


def decode_record(raw: bytes) -> FileRecord:
    """The record of `encode_record`."""
    return _RECORD.decode(raw)


def total(pieces: Iterable[Piece]) -> int:
    """Bytes that the pieces cover."""
    return sum(piece.length for piece in pieces)


def _extent(piece: Piece) -> Extent:
    return Extent(piece.length, None if piece.place is None else settled(piece.place))


def _run(run: DraftRun) -> Run:
    return Run(encode_ranges(run.ranges), sum(count for _, count in run.ranges), settled(run.place))
