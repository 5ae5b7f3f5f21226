"""Looking into a snapshot without restoring it: what it holds, and one file's bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.restore.errors import NotAFile, NothingToRestore, PathNotInSnapshot, ProofFailed, writing
from chatkeep.daemon.restore.parts import Proof
from chatkeep.daemon.restore.plan import nearest
from chatkeep.daemon.vault.blob import BlobKind, BlobRef
from chatkeep.daemon.vault.errors import Malformed
from chatkeep.daemon.vault.layers import Extent, FileKind, FileRecord, Reference
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.resolve import DatabasePlan, Piece, Tree, resolve_database

_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Listed:
    """A path of a snapshot. `restorable`: some version of its content is in the vault."""

    path: bytes
    record: FileRecord
    restorable: bool


def list_tree(tree: Tree, path: bytes = b"", *, recursive: bool = False) -> Iterator[Listed]:
    """What is at `path`: a directory's entries, by name, or the one file. Raises PathNotInSnapshot."""
    path = path.strip(b"/")
    prefix = path + b"/" if path else b""
    if path in tree.paths and tree.files[tree.paths[path]].kind is not FileKind.DIRECTORY:
        below = [path]
    else:
        below = sorted(own for own in tree.paths if own and own.startswith(prefix))
        if not below and path not in tree.paths and path:
            raise PathNotInSnapshot(path=path, nearest=nearest(tree.paths, path))
    for own in below:
        if recursive or own == path or b"/" not in own[len(prefix) :]:
            file_id = tree.paths[own]
            yield Listed(own, tree.files[file_id], tree.has_content(file_id))


def read_file(
    reader: VaultReader, snapshot: Snapshot, tree: Tree, path: bytes, cancelled: Callable[[], bool] = bool
) -> Iterator[bytes]:
    """The bytes of one file in pieces of at most 1 MiB; of a database its whole image, proven before the first piece.

    A database is put together in a nameless temporary file first: its pages are scattered over many blobs.

    Raises:
        PathNotInSnapshot, NotAFile; NothingToRestore: its content is not in the vault yet.
        Unresolvable, Unreadable, ProofFailed: it is damaged.
    """
    file_id = tree.paths.get(path)
    if file_id is None:
        raise PathNotInSnapshot(path=path, nearest=nearest(tree.paths, path))
    kind = tree.files[file_id].kind
    if kind not in (FileKind.FILE, FileKind.DATABASE):
        raise NotAFile(path=path, kind=kind.name.lower())
    if not tree.has_content(file_id):
        raise NothingToRestore(pending=1, damaged=0)

    def stopped() -> None:
        if cancelled():
            raise Cancelled

    if kind is FileKind.FILE:
        yield from _stream(reader, snapshot, tree.extents(file_id), stopped)
    else:
        yield from _image(reader, snapshot, path, resolve_database(tree.sections[file_id]), stopped)


def _stream(
    reader: VaultReader, snapshot: Snapshot, extents: Sequence[Extent], stopped: Callable[[], None]
) -> Iterator[bytes]:
    run: list[Extent] = []
    for extent in extents:
        if run and not _follows(run[-1], extent):
            yield from _fetched(reader, snapshot, run, stopped)
            run = []
        if extent.reference is None:
            left = extent.length
            while left:
                stopped()
                yield _ZEROS[: min(left, len(_ZEROS))]
                left -= min(left, len(_ZEROS))
        else:
            run.append(extent)
    yield from _fetched(reader, snapshot, run, stopped)


def _follows(before: Extent, extent: Extent) -> bool:
    """Whether both come out of one pack in this order, so that one request can bring both."""
    one, other = before.reference, extent.reference
    return one is not None and other is not None and one.pack == other.pack and one.slot < other.slot


def _fetched(
    reader: VaultReader, snapshot: Snapshot, run: Sequence[Extent], stopped: Callable[[], None]
) -> Iterator[bytes]:
    refs = [_ref(extent.reference) for extent in run if extent.reference is not None]
    for extent, (_, content) in zip(run, reader.fetch_blobs(snapshot, BlobKind.CHUNK, refs), strict=True):
        stopped()
        if len(content) != extent.length:
            raise Malformed(what="content", reason="length")
        yield content


def _image(
    reader: VaultReader, snapshot: Snapshot, path: bytes, plan: DatabasePlan, stopped: Callable[[], None]
) -> Iterator[bytes]:
    pieces: dict[BlobRef, list[Piece]] = {}
    for piece in plan.pieces:
        pieces.setdefault(_ref(piece.reference), []).append(piece)
    with tempfile.TemporaryFile() as file, writing(path):
        file.truncate(plan.size)
        for ref, content in reader.fetch_blobs(snapshot, BlobKind.PAGES, list(pieces)):
            stopped()
            for piece in pieces[ref]:
                for at, first, count in piece:
                    own = content[at * plan.page_size : (at + count) * plan.page_size]
                    os.pwrite(file.fileno(), own, (first - 1) * plan.page_size)
        if not Proof(snapshot.ids, stopped).database(file.fileno(), plan):
            raise ProofFailed(path=path, what="database")
        for offset in range(0, plan.size, len(_ZEROS)):
            stopped()
            yield os.pread(file.fileno(), len(_ZEROS), offset)


def _ref(reference: Reference) -> BlobRef:
    assert reference.pack is not None, "a layer that was read names every pack"
    return BlobRef(reference.pack, reference.slot, reference.id)
