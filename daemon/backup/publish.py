"""From a draft to a snapshot that exists: layer, fold, manifest, outbox, and the one commit.

The order of durable steps: packs and manifest are whole, fsynced and under their final names in the outbox, and the
outbox directory is synced; then one transaction in the state database. Before it nothing happened (files without a row
are removed at the next start); after it the snapshot exists, and uploads follow from its rows.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import blake3
import zstandard

from chatkeep.daemon.backup.draft import Draft
from chatkeep.daemon.backup.sealing import Blob, Lane, Sealer
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.state import (
    Commit,
    DatabaseRow,
    ObjectRow,
    SnapshotRow,
    SnapshotStatistics,
    StackRow,
    StreamRow,
    refusals,
)
from chatkeep.daemon.vault import fold
from chatkeep.daemon.vault.blob import BlobKind, BlobRef
from chatkeep.daemon.vault.labels import MANIFEST_HEAD
from chatkeep.daemon.vault.layer_build import LayerBuilder
from chatkeep.daemon.vault.layers import Layer, decode_part
from chatkeep.daemon.vault.manifest import COMPLETE, GROUP, Manifest, NewPack, StackLayer, Statistics, seal_manifest
from chatkeep.daemon.vault.names import ManifestName, PackName
from chatkeep.providers.durable import fsync_directory, write_durably

LAYER_LEVEL: Final = 3  # Zstandard: layers are small and are read at every restore
LAYER_ROOM: Final = 32 * 1024 * 1024  # bytes; with 16 MiB of pages they fit into the 64 MiB of one pack
_PART: Final = struct.Struct(">32sI32s")
_LENGTH: Final = struct.Struct(">I")
_MEMBER: Final = struct.Struct(">Q32s")


@dataclass(frozen=True)
class Outline:
    """What the manifest says beside the stack: counts of the whole source after this snapshot.

    `compress` is the source's setting. It covers the layers too: names of files are chosen by those who send them, and
    compressed together with others' they are guessed at by size as text is.
    """

    source: str
    path: bytes
    clock: int
    group: bool
    pending: int
    busy: int
    files: int
    source_bytes: int
    bytes_read: int
    compress: bool = True


@dataclass(frozen=True)
class Changes:
    """What a snapshot says is new, in numbers of files: with new content, with new attributes only, paths gone."""

    databases: int
    files: int
    attributes: int
    removed: int

    @classmethod
    def of(cls, draft: Draft) -> Changes:
        """Of what the draft says."""
        databases = {section.file_id for section in draft.sections}
        content = databases | draft.contents.keys()
        removed = sum(1 for _, file_id in draft.paths if file_id is None)
        return cls(len(databases), len(draft.contents), len(draft.spoken.keys() - content), removed)


@dataclass(frozen=True)
class Published:
    """A snapshot that exists on this device. `stored` counts packs and manifest, `new_plaintext` before compression."""

    seq: int
    name: str
    clock: int
    complete: bool
    packs: int
    stored: int
    new_plaintext: int
    changes: Changes


def publish(writer: Writer, stream: StreamRow, draft: Draft, sealer: Sealer, outline: Outline) -> Published:
    """Make the draft a snapshot. Raises what sealing, the outbox and the state raise; then nothing happened."""
    state = writer.state
    old = state.stack(stream.stream)
    now = max(outline.clock, stream.head_time)
    level = LAYER_LEVEL if outline.compress else None
    # Every pack must be finished before the layer is encoded, but the one that the layer goes into.
    sealer.close(Lane.BASE, Lane.MEDIA)
    own = draft.layer().parts()
    if sum(map(len, own)) <= LAYER_ROOM:
        own_blobs = sealer.append_layer(Lane.FRESH, own, level)
    else:
        # Of a million files: packs of its own, as many as it takes, so nothing in it may say "this pack".
        sealer.close(Lane.FRESH)
        own = draft.layer().parts()
        own_blobs = [sealer.submit(Lane.FRESH, BlobKind.LAYER, part, level) for part in own]
    folded = [(merge, *_fold(sealer, old, merge, level)) for merge in fold.due([_entry(row) for row in old], now)]
    sealer.close(Lane.FRESH, Lane.FOLDED)

    seq = stream.seq + 1
    stack = _new_stack(old, [(merge, _row(old, merge, parts, blobs)) for merge, parts, blobs in folded])
    if own:
        stack.insert(0, StackRow(0, seq, seq, now, now, _refs(own_blobs), _body(own)))
    databases = _merged(state.databases(stream.stream), draft)
    manifest = _manifest(writer, outline, now, stack, sealer, databases)
    raw = seal_manifest(manifest, stream.stream, seq, stream.head or bytes(32), writer.credential)
    objects = _to_outbox(writer, sealer, stream.stream, seq, raw)
    complete = outline.pending == 0
    state.commit(
        Commit(
            stream=stream.stream,
            source=outline.source,
            next_file_id=stream.next_file_id,
            snapshot=SnapshotRow(seq, objects[-1].name, now, outline.clock, complete, _statistics(outline, sealer)),
            head=objects[-1].sha256,
            objects=objects,
            stack=stack,
            paths=draft.paths,
            files=draft.file_rows(),
            databases=list(draft.databases.values()),
            runs=draft.run_rows(),
            published=draft.published,
            forgotten=draft.forgotten,
            demoted=draft.demoted,
            redo=draft.redo,
            partials=draft.partial_rows(),
            finished_partials=draft.finished_partials,
            reused=sealer.reused,
        )
    )
    return _published(seq, objects, sealer, outline, Changes.of(draft))


def _published(seq: int, objects: Sequence[ObjectRow], sealer: Sealer, outline: Outline, changes: Changes) -> Published:
    stored = sum(item.size for item in objects)
    complete = outline.pending == 0
    name, packs = objects[-1].name, len(sealer.packs)
    return Published(seq, name, outline.clock, complete, packs, stored, sealer.new_plaintext, changes)


def set_digest(databases: Iterable[DatabaseRow], key: bytes) -> tuple[int, bytes]:
    """How many databases are complete, and the digest over all of them (format section 12)."""
    total = blake3.blake3(key=key)
    count = 0
    for row in sorted(databases, key=lambda row: row.file_id):
        if row.digest is not None:
            total.update(_MEMBER.pack(row.file_id, row.digest))
            count += 1
    return count, total.digest()


def _merged(old: dict[int, DatabaseRow], draft: Draft) -> list[DatabaseRow]:
    rows = {**old, **draft.databases}
    return [row for file_id, row in rows.items() if file_id not in (*draft.forgotten, *draft.demoted)]


def _manifest(
    writer: Writer, outline: Outline, now: int, stack: Sequence[StackRow], sealer: Sealer, rows: list[DatabaseRow]
) -> Manifest:
    count, digest = set_digest(rows, writer.ids.set_key)
    return Manifest(
        time=now,
        clock=outline.clock,
        source_name=outline.source,
        source_path=outline.path,
        host=writer.host,
        id_key=bytes(writer.credential.id_key.view()),
        epoch_record=writer.credential.pin.sha256,
        flags=(COMPLETE if outline.pending == 0 else 0) | (GROUP if outline.group else 0),
        stack=tuple(
            StackLayer(row.level, row.first_seq, row.last_seq, tuple(BlobRef(*part) for part in parts_of(row)))
            for row in stack
        ),
        packs=tuple(NewPack(pack.sha256, pack.size) for pack in sealer.packs),
        databases=count,
        pending=outline.pending,
        busy=outline.busy,
        set_digest=digest,
        statistics=Statistics(
            outline.files, outline.source_bytes, outline.bytes_read, sealer.new_plaintext, _stored(sealer)
        ),
    )


def _stored(sealer: Sealer) -> int:
    return sum(pack.size for pack in sealer.packs)


def _statistics(outline: Outline, sealer: Sealer) -> bytes:
    return SnapshotStatistics(
        files=outline.files,
        source_bytes=outline.source_bytes,
        pending=outline.pending,
        busy=outline.busy,
        bytes_read=outline.bytes_read,
        new_plaintext=sealer.new_plaintext,
        stored=_stored(sealer),
    ).encode()


def _to_outbox(writer: Writer, sealer: Sealer, stream: bytes, seq: int, raw: bytes) -> list[ObjectRow]:
    outbox = writer.state.outbox.directory
    device = writer.credential.device_id
    objects: list[ObjectRow] = []
    sha256 = hashlib.sha256(raw).digest()
    name = str(ManifestName(device, stream, seq, sha256))
    with refusals(outbox):
        for pack in sealer.packs:
            os.rename(pack.path, outbox / pack.sha256.hex())
            # Finishing it read it back. Who takes the very file over need not read it again a moment later.
            writer.state.outbox.note_proven(outbox / pack.sha256.hex())
            pack_name = str(PackName(device, pack.sha256))
            objects.append(ObjectRow(pack_name, pack.sha256, pack.size, is_manifest=False, proof=pack.footer))
        write_durably(outbox / sha256.hex(), raw)
        # Without this a power cut after the commit could leave rows whose files never got their names.
        fsync_directory(outbox)
    objects.append(ObjectRow(name, sha256, len(raw), is_manifest=True, proof=raw[:MANIFEST_HEAD]))
    return objects


# -- the stack ------------------------------------------------------------------------------------------


def _entry(row: StackRow) -> fold.StackEntry:
    return fold.StackEntry(row.level, row.first_seq, row.last_seq, row.first_time, row.last_time)


def _fold(
    sealer: Sealer, old: Sequence[StackRow], merge: fold.Merge, level: int | None
) -> tuple[list[bytes], list[Blob]]:
    """Merge layers from what the state remembers of them: a locked device cannot read them back."""
    layers = [stored_layer(row) for row in old[merge.start : merge.stop]]
    builder = LayerBuilder()
    builder.add_layer(fold.merge(layers, oldest=merge.stop == len(old)))
    parts = builder.parts()
    return parts, [sealer.submit(Lane.FOLDED, BlobKind.LAYER, part, level) for part in parts]


def stored_layer(row: StackRow) -> Layer:
    """What a layer of the stack says, from what the state remembers of it."""
    raw = zstandard.ZstdDecompressor().decompress(row.body)
    parts: list[Layer] = []
    at = 0
    for pack, _, _ in parts_of(row):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        parts.append(decode_part(raw[at : at + length], pack))
        at += length
    return Layer(
        tuple(entry for part in parts for entry in part.entries),
        tuple(record for part in parts for record in part.files),
        tuple(content for part in parts for content in part.contents),
        tuple(section for part in parts for section in part.sections),
    )


def _row(old: Sequence[StackRow], merge: fold.Merge, parts: list[bytes], blobs: list[Blob]) -> StackRow:
    newest, oldest = old[merge.start], old[merge.stop - 1]
    return StackRow(
        merge.level, oldest.first_seq, newest.last_seq, oldest.first_time, newest.last_time, _refs(blobs), _body(parts)
    )


def _new_stack(old: Sequence[StackRow], merged: Sequence[tuple[fold.Merge, StackRow]]) -> list[StackRow]:
    stack: list[StackRow] = []
    at = 0
    for merge, row in merged:
        stack += old[at : merge.start]
        # A fold of what was all deleted again says nothing: no layer.
        stack += [row] if row.parts else []
        at = merge.stop
    return [*stack, *old[at:]]


def _refs(blobs: Sequence[Blob]) -> bytes:
    out = bytearray()
    for blob in blobs:
        reference = blob.reference()
        assert reference.pack is not None, "a stack names finished packs only"
        out += _PART.pack(reference.pack, reference.slot, reference.id)
    return bytes(out)


def parts_of(row: StackRow) -> list[tuple[bytes, int, bytes]]:
    """Where the parts of a layer are: pack, slot, id."""
    return list(_PART.iter_unpack(row.parts))


def _body(parts: Sequence[bytes]) -> bytes:
    return zstandard.ZstdCompressor(level=LAYER_LEVEL).compress(b"".join(_LENGTH.pack(len(p)) + p for p in parts))
