"""Verifying with the vault's keys: everything that a snapshot reaches is fetched, opened, hashed, and fits together.

Proves that what was captured can be restored, without restoring it. Nothing stops it but the caller: what is wrong is
collected, and all that can still be looked at is.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.capture.digests import CHUNK_PAGES, DIGEST_SIZE, page_digests, page_table_digest
from chatkeep.daemon.capture.errors import TableIncomplete
from chatkeep.daemon.vault.blob import BlobKind, BlobRef
from chatkeep.daemon.vault.copies import Findings
from chatkeep.daemon.vault.errors import (
    Malformed,
    SnapshotPruned,
    SnapshotTooLarge,
    Unresolvable,
    VaultError,
    VaultLocked,
)
from chatkeep.daemon.vault.layers import FileKind, Layer, Reference
from chatkeep.daemon.vault.manifest import StackLayer
from chatkeep.daemon.vault.names import ManifestName
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.resolve import (
    DatabasePlan,
    Piece,
    Tree,
    check_databases,
    resolve_database,
    resolve_tree,
)
from chatkeep.daemon.vault.room import Room
from chatkeep.daemon.vault.stack import read_layer


@dataclass(frozen=True, slots=True)
class DeepReport:
    """What was looked at and what is wrong.

    Attributes:
        snapshots: whose tree was resolved.
        blobs, content: distinct blobs that were opened and hashed, and their bytes of plaintext.
        databases: whose page-table digest was computed anew: those of the newest snapshot of each stream.
        pruned: snapshots that were pruned while they were looked at; what was missing of them is no finding.
        findings: with the manifest's name as `snapshot`, the path or the object, where they are known.
    """

    snapshots: int
    blobs: int
    content: int
    databases: int
    pruned: int
    findings: tuple[ChatkeepError, ...]


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


def deep(
    reader: VaultReader,
    snapshots: Iterable[Snapshot] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = bool,
) -> DeepReport:
    """Verify these snapshots (of one stream, the newest first), or all of the vault.

    Args:
        progress: told blobs done and blobs known of so far; the latter grows with each snapshot.

    Raises:
        ProviderError: no provider could be asked which streams there are. VaultLocked. Cancelled.
    """
    work = _Deep(reader, progress or _silent, cancelled)
    if snapshots is not None:
        work.stream(snapshots)
    else:
        for stream in reader.streams():
            chain = reader.chain(stream)
            work.stream(reader.snapshots(chain))
            for problem in chain.findings:
                work.findings.add(problem)
    for problem in reader.findings:
        work.findings.add(problem)
    return DeepReport(work.snapshots, work.blobs, work.content, work.databases, work.pruned, tuple(work.findings))


class _Deep:
    """One verification as it goes on."""

    def __init__(
        self, reader: VaultReader, progress: Callable[[int, int], None], cancelled: Callable[[], bool]
    ) -> None:
        self._reader, self._progress, self._cancelled = reader, progress, cancelled
        self._known: dict[tuple[bytes, bytes, int], tuple[BlobKind, bytes]] = {}  # device, pack, slot: what it must be
        self.findings = Findings()
        self.snapshots = self.blobs = self.content = self.databases = self.pruned = 0

    def stream(self, snapshots: Iterable[Snapshot]) -> None:
        """Snapshots of one stream, newest first. Layers are shared by neighbours and kept from one to the next."""
        kept: dict[StackLayer, tuple[Layer, int]] = {}
        newest = True
        for snapshot in snapshots:
            try:
                kept = self._layers(snapshot, kept)
                if len(kept) < len(snapshot.manifest.stack):
                    continue  # a layer is damaged, and told: what the others say alone is not the snapshot
                tree = resolve_tree(kept[layer][0] for layer in snapshot.manifest.stack)
                self._tree(snapshot, tree, newest=newest)
            except SnapshotPruned:
                self.pruned += 1
                continue
            self.snapshots += 1
            newest = False

    def _layers(
        self, snapshot: Snapshot, kept: dict[StackLayer, tuple[Layer, int]]
    ) -> dict[StackLayer, tuple[Layer, int]]:
        """The layers that can be read, each with the memory it takes."""
        layers: dict[StackLayer, tuple[Layer, int]] = {}
        room = Room()
        for layer in snapshot.manifest.stack:
            self._ask()
            before = room.used
            try:
                if layer in kept:
                    room.take(kept[layer][1])
                    layers[layer] = kept[layer]
                    continue
                layers[layer] = (read_layer(self._reader, snapshot, layer, room), room.used - before)
                self.blobs += len(layer.parts)
            except SnapshotTooLarge as exc:
                self._find(exc, snapshot.name)
                return {}
            except (VaultLocked, SnapshotPruned):
                raise
            except VaultError as exc:
                self._find(exc, snapshot.name)
        return layers

    def _tree(self, snapshot: Snapshot, tree: Tree, *, newest: bool) -> None:
        name, manifest = snapshot.name, snapshot.manifest
        for fault in tree.faults:
            self._find(fault, name)
        fault_of_set = check_databases(tree, snapshot.ids.set_key, manifest.databases, manifest.set_digest)
        if fault_of_set is not None:
            self._find(fault_of_set, name)
        first_paths: dict[int, bytes] = {}
        for path, file_id in tree.paths.items():
            first_paths.setdefault(file_id, path)
        wanted: dict[BlobRef, tuple[BlobKind, int]] = {}
        for file_id, path in first_paths.items():
            if not tree.has_content(file_id):
                continue
            try:
                if tree.files[file_id].kind is FileKind.FILE:
                    for extent in tree.extents(file_id):
                        if extent.reference is not None:
                            wanted[_ref(extent.reference)] = (BlobKind.CHUNK, extent.length)
                elif tree.files[file_id].kind is FileKind.DATABASE:
                    plan = resolve_database(tree.sections[file_id])
                    if newest:
                        self._database(snapshot, plan, path)
                    else:
                        wanted.update((_ref(piece.reference), (BlobKind.PAGES, 0)) for piece in plan.pieces)
            except Unresolvable as exc:
                self._find(exc, name, path=path)
        self._blobs(snapshot, wanted)

    # -- blobs

    def _blobs(self, snapshot: Snapshot, wanted: dict[BlobRef, tuple[BlobKind, int]]) -> None:
        """Open each blob that was not opened yet; reading it computes its id."""
        for kind in (BlobKind.CHUNK, BlobKind.PAGES):
            fresh = [ref for ref, (own, _) in wanted.items() if own is kind and self._is_new(snapshot, kind, ref)]
            for ref, content in self._each(snapshot, kind, fresh):
                length = wanted[ref][1]
                if kind is BlobKind.CHUNK and len(content) != length:
                    self._find(Malformed(what="content", reason="length", slot=ref.slot), snapshot.name)

    def _is_new(self, snapshot: Snapshot, kind: BlobKind, ref: BlobRef) -> bool:
        """Whether the blob was not asked for yet, which it is from now on: damage is told once, not once a snapshot."""
        place = (snapshot.header.device_id, ref.pack, ref.slot)
        new = self._known.get(place) != (kind, ref.id)
        self._known[place] = (kind, ref.id)
        return new

    def _each(self, snapshot: Snapshot, kind: BlobKind, refs: list[BlobRef]) -> Iterator[tuple[BlobRef, bytes]]:
        """Each blob that can be read; one that cannot is a finding."""
        left = dict.fromkeys(refs)
        try:
            yield from self._read(snapshot, kind, left)
        except VaultLocked:
            raise
        except SnapshotPruned:
            for ref in left:  # what was not read may be in a snapshot that lives, and is to be read there
                self._known.pop((snapshot.header.device_id, ref.pack, ref.slot), None)
            raise
        except VaultError:
            for ref in list(left):  # each alone: one bad blob must not hide what became of its neighbours
                try:
                    yield from self._read(snapshot, kind, {ref: None})
                except (VaultLocked, SnapshotPruned):
                    raise
                except VaultError as exc:
                    self._find(exc, snapshot.name)

    def _read(self, snapshot: Snapshot, kind: BlobKind, left: dict[BlobRef, None]) -> Iterator[tuple[BlobRef, bytes]]:
        for ref, content in self._reader.fetch_blobs(snapshot, kind, list(left)):
            self._ask()
            del left[ref]
            self.blobs += 1
            self.content += len(content)
            self._progress(self.blobs, self.blobs + len(left))
            yield ref, content

    # -- databases

    def _database(self, snapshot: Snapshot, plan: DatabasePlan, path: bytes) -> None:
        """The page-table digest over the pages as a restore would lay them, without the pages themselves in memory."""
        pieces: dict[BlobRef, list[Piece]] = {}
        for piece in plan.pieces:
            pieces.setdefault(_ref(piece.reference), []).append(piece)
            self._is_new(snapshot, BlobKind.PAGES, _ref(piece.reference))
        seed, key = snapshot.ids.page_seed, snapshot.ids.page_table_key
        try:
            made = _Digests(plan)
        except OSError:  # no room for the table: on the disk, or in what this process may address
            self._find(Unresolvable(what="database", reason="too-large", path=path), snapshot.name)
            return
        with made as table:
            for ref, content in self._each(snapshot, BlobKind.PAGES, list(pieces)):
                table.put(content, pieces.pop(ref), seed)
            if pieces:
                return  # told blob by blob
            if table.digest(key, seed) != plan.digest:
                self._find(Unresolvable(what="database", reason="digest", path=path), snapshot.name)
        self.databases += 1

    def _find(self, problem: VaultError, snapshot: ManifestName, **where: object) -> None:
        self.findings.add(problem, snapshot=str(snapshot), **where)

    def _ask(self) -> None:
        if self._cancelled():
            raise Cancelled


def _ref(reference: Reference) -> BlobRef:
    assert reference.pack is not None, "a layer that was read names every pack"
    return BlobRef(reference.pack, reference.slot, reference.id)


class _Digests:
    """Page digests of one database, in a file that has no name: 16 bytes a page, 400 MB for a database of 100 GB."""

    def __init__(self, plan: DatabasePlan) -> None:
        self._plan = plan
        self._size = plan.page_count * DIGEST_SIZE
        with tempfile.TemporaryFile() as file:
            file.truncate(self._size or 1)
            self._table = mmap.mmap(file.fileno(), self._size or 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def put(self, content: bytes, pieces: Iterable[Piece], seed: int) -> None:
        """What counts of a blob's pages. Pages that the blob lacks stay without a digest."""
        whole = len(content) - len(content) % self._plan.page_size
        digests = page_digests(memoryview(content)[:whole], self._plan.page_size, seed)
        for piece in pieces:
            for at, first, count in piece:
                own = digests[at * DIGEST_SIZE : (at + count) * DIGEST_SIZE]
                start = (first - 1) * DIGEST_SIZE
                self._table[start : start + len(own)] = own

    def digest(self, key: bytes, seed: int) -> bytes | None:
        """The page-table digest (format section 12); None when a page has no digest."""
        step = CHUNK_PAGES * DIGEST_SIZE
        digests = (self._table[at : min(at + step, self._size)] for at in range(0, self._size, step))
        try:
            return page_table_digest(digests, self._plan.page_size, self._plan.page_count, key, seed)
        except TableIncomplete:
            return None
