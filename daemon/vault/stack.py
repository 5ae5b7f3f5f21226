"""The stack of a snapshot: its layers read from storage, and the tree they make."""

from __future__ import annotations

from collections.abc import Iterator

from chatkeep.daemon.vault.layers import Layer, decode_part, join
from chatkeep.daemon.vault.manifest import StackLayer
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.resolve import Tree, resolve_tree
from chatkeep.daemon.vault.room import Room, weight


def read_layers(reader: VaultReader, snapshot: Snapshot) -> Iterator[Layer]:
    """The layers of a snapshot, newest first, one in memory at a time.

    Raises Unreadable, Malformed, UnsupportedVersion, SnapshotTooLarge, VaultLocked.
    """
    room = Room()
    for layer in snapshot.manifest.stack:
        yield read_layer(reader, snapshot, layer, room)


def read_layer(reader: VaultReader, snapshot: Snapshot, layer: StackLayer, room: Room) -> Layer:
    """One layer of a snapshot, for which there must be room. Raises as `read_layers` does."""
    parts = []
    for ref, raw in reader.fetch_parts(snapshot, layer):
        part = decode_part(raw, ref.pack)
        room.take(weight(part, len(raw)))
        parts.append(part)
    return join(parts)


def read_tree(reader: VaultReader, snapshot: Snapshot) -> Tree:
    """The tree of a snapshot. Raises as `read_layers` does."""
    return resolve_tree(read_layers(reader, snapshot))
