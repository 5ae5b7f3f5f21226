"""Which packs are needed: by the snapshots that stay, and by what the next one may refer to."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from chatkeep.daemon.prune.own import Facts, OwnVault, Step
from chatkeep.daemon.state.pruning import Pruning
from chatkeep.daemon.vault.layers import Layer, decode_part
from chatkeep.daemon.vault.manifest import StackLayer

# As the backup keeps them: parts of a layer (pack, slot, id), extents of a content (length, pack, hole, slot, id).
_PART: Final = struct.Struct(">32sI32s")
_EXTENT: Final = struct.Struct(">Q32sII32s")


def packs_of(own: OwnVault, snapshots: Iterable[Facts], step: Step) -> set[bytes]:
    """Every pack that a layer of these snapshots lies in or refers to. Raises as reading does: what cannot be read
    completely must not be judged.

    References that newer layers hide count too: what is kept too long is found by the next prune.
    """
    found: set[bytes] = set()
    read: set[StackLayer] = set()
    every = list(snapshots)
    for number, facts in enumerate(every):
        step("reading layers", number, len(every))
        snapshot = own.open(facts.name)
        for layer in snapshot.manifest.stack:
            if layer in read:
                continue
            read.add(layer)
            for ref, raw in own.reader.fetch_parts(snapshot, layer):
                found.add(ref.pack)
                found.update(references(decode_part(raw, ref.pack)))
    return found


def references(layer: Layer) -> Iterator[bytes]:
    """The packs that a layer refers to."""
    for content in layer.contents:
        for extent in content.extents:
            if extent.reference is not None and extent.reference.pack is not None:
                yield extent.reference.pack
    for section in layer.sections:
        for run in section.runs:
            if run.reference.pack is not None:
                yield run.reference.pack


def packs_of_state(pruning: Pruning) -> set[bytes]:
    """Every pack that this device's records refer to: what the next snapshot may name without storing it again."""
    parts, contents, runs = pruning.references()
    found = set(runs)
    for raw in parts:
        found.update(pack for pack, _, _ in _PART.iter_unpack(raw))
    for raw in contents:
        found.update(pack for _, pack, hole, _, _ in _EXTENT.iter_unpack(raw) if not hole)
    return found
