"""Which blobs a restore needs, pack by pack, and where their bytes go. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from chatkeep.daemon.restore.plan import RestorePlan
from chatkeep.daemon.vault.blob import BlobKind
from chatkeep.daemon.vault.layers import Reference


class Chunk(NamedTuple):
    """All of a chunk blob goes to `offset` of a file."""

    slot: int
    id: bytes
    file_id: int
    offset: int
    length: int


class Pages(NamedTuple):
    """Pages of a blob go to their places in a database: flat triples of place in the blob, first page, pages."""

    slot: int
    id: bytes
    file_id: int
    spans: array[int]


@dataclass(slots=True)
class PackNeed:
    """What is needed of one pack."""

    pack: bytes
    chunks: list[Chunk] = field(default_factory=list)
    pages: list[Pages] = field(default_factory=list)

    def wanted(self, kind: BlobKind) -> list[tuple[int, bytes]]:
        """Slot and id of the blobs of a kind."""
        needs: list[Chunk] | list[Pages] = self.chunks if kind is BlobKind.CHUNK else self.pages
        return [(need.slot, need.id) for need in needs]

    def file_ids(self) -> set[int]:
        """Every file that needs something of the pack."""
        return {need.file_id for need in self.chunks} | {need.file_id for need in self.pages}


def needs_of(plan: RestorePlan, file_ids: Collection[int]) -> list[PackNeed]:
    """Packs in the order in which the files begin to need them, databases first, each pack once.

    A writer fills packs in the order of files, so that this order completes files one after the other: few are open
    at a time, and an interruption leaves few half done.
    """
    packs: dict[bytes, PackNeed] = {}

    def of(reference: Reference) -> PackNeed:
        assert reference.pack is not None, "a layer that was read names every pack"
        return packs.setdefault(reference.pack, PackNeed(reference.pack))

    for file_id in sorted(plan.databases.keys() & file_ids):
        for piece in reversed(plan.databases[file_id].pieces):  # the oldest are most of it
            of(piece.reference).pages.append(Pages(piece.reference.slot, piece.reference.id, file_id, piece.spans))
    for file_id in sorted(plan.extents.keys() & file_ids):
        offset = 0
        for extent in plan.extents[file_id]:
            ref = extent.reference
            if ref is not None:
                of(ref).chunks.append(Chunk(ref.slot, ref.id, file_id, offset, extent.length))
            offset += extent.length
    return list(packs.values())
