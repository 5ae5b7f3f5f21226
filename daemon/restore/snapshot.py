"""Plan and restore of a snapshot that an unlocked vault's reader opened."""

from __future__ import annotations

import dataclasses
import functools
import socket
from collections.abc import Callable, Sequence

from chatkeep.daemon.restore.apply import Choices, Origin, RestoreReport, apply
from chatkeep.daemon.restore.plan import RestorePlan, plan_tree
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.resolve import check_databases
from chatkeep.daemon.vault.stack import read_tree


def plan(reader: VaultReader, snapshot: Snapshot, paths: Sequence[bytes] | None = None) -> RestorePlan:
    """What restoring a snapshot, or these paths of it and all below them, comes to. Reads its layers and nothing else.

    Raises:
        PathNotInSnapshot, NothingToRestore: as `plan_tree`.
        Unreadable, Malformed, UnsupportedVersion: a layer is damaged; without it nothing can be said.
    """
    tree = read_tree(reader, snapshot)
    made = plan_tree(tree, paths)
    manifest = snapshot.manifest
    fault = check_databases(tree, snapshot.ids.set_key, manifest.databases, manifest.set_digest)
    return made if fault is None else dataclasses.replace(made, faults=(*made.faults, fault))


def restore(
    reader: VaultReader,
    snapshot: Snapshot,
    plan: RestorePlan,
    target: bytes,
    choices: Choices | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = bool,
) -> RestoreReport:
    """Carry out a plan of this snapshot. Arguments and errors as `apply`."""
    manifest = snapshot.manifest
    origin = Origin(
        short_id=snapshot.name.sha256.hex()[:12],
        fetch=functools.partial(reader.fetch_blobs, snapshot),
        ids=snapshot.ids,
        source_path=manifest.source_path if manifest.host == socket.gethostname() else None,
    )
    return apply(plan, origin, target, choices, progress=progress, cancelled=cancelled)
