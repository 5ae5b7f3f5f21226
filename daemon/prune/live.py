"""Which packs are needed: by the snapshots that stay, and by what the next one may refer to."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from chatkeep.daemon.prune.own import Facts, OwnVault, Step
from chatkeep.daemon.state.pruning import Pruning
from chatkeep.daemon.vault.layers import Layer
from chatkeep.daemon.vault.manifest import StackLayer
from chatkeep.daemon.vault.reader import Snapshot
from chatkeep.daemon.vault.resolve import Gathered, gather
from chatkeep.daemon.vault.room import Room
from chatkeep.daemon.vault.stack import read_layer

# As the backup keeps them: parts of a layer (pack, slot, id), extents of a content (length, pack, hole, slot, id).
_PART: Final = struct.Struct(">32sI32s")
_EXTENT: Final = struct.Struct(">Q32sII32s")


def packs_of(own: OwnVault, snapshots: Iterable[Facts], step: Step) -> set[bytes]:
    """Every pack that a layer of these snapshots lies in, or that holds content of theirs. Raises as reading does: what
    cannot be read completely must not be judged.

    What only older layers say of a file, or say of one that no path names, no reader asks for. Of a database everything
    since its reset counts, also pages that newer runs hide: the next fold leaves them out.
    """
    found: set[bytes] = set()
    layers: dict[StackLayer, tuple[Layer, int]] = {}
    every = sorted(snapshots, key=lambda facts: (facts.name.stream_id, facts.name.seq), reverse=True)
    for number, facts in enumerate(every):
        step("reading layers", number, len(every))
        # Neighbours have most of their layers in common; those of one snapshot are in memory, not those of all.
        layers = _layers(own, own.open(facts.name), layers)
        found.update(part.pack for layer in layers for part in layer.parts)
        found.update(references(gather(layer for layer, _ in layers.values())))
    return found


def _layers(
    own: OwnVault, snapshot: Snapshot, kept: Mapping[StackLayer, tuple[Layer, int]]
) -> dict[StackLayer, tuple[Layer, int]]:
    """The layers of a snapshot, each with the memory it takes: a thief of this device's key may have signed it."""
    room = Room()
    layers: dict[StackLayer, tuple[Layer, int]] = {}
    for layer in snapshot.manifest.stack:
        before = room.used
        if layer in kept:
            room.take(kept[layer][1])
            layers[layer] = kept[layer]
        else:
            layers[layer] = (read_layer(own.reader, snapshot, layer, room), room.used - before)
    return layers


def references(gathered: Gathered) -> Iterator[bytes]:
    """The packs that the content of a snapshot is in."""
    for file_id in {file_id for file_id in gathered.paths.values() if file_id is not None}:
        for content in gathered.contents.get(file_id, ()):
            for extent in content.extents:
                if extent.reference is not None and extent.reference.pack is not None:
                    yield extent.reference.pack
        for section in gathered.sections.get(file_id, ()):
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
