"""The stack of a snapshot: its layers read from storage, and the tree they make."""

from __future__ import annotations

from collections.abc import Iterator

from chatkeep.daemon.vault.layers import Layer, decode_part, join
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.resolve import Tree, resolve_tree


def read_layers(reader: VaultReader, snapshot: Snapshot) -> Iterator[Layer]:
    """The layers of a snapshot, newest first, one in memory at a time.

    Raises Unreadable, Malformed, UnsupportedVersion, VaultLocked.
    """
    for layer in snapshot.manifest.stack:
        yield join([decode_part(raw, ref.pack) for ref, raw in reader.fetch_parts(snapshot, layer)])


def read_tree(reader: VaultReader, snapshot: Snapshot) -> Tree:
    """The tree of a snapshot. Raises as `read_layers` does."""
    return resolve_tree(read_layers(reader, snapshot))
