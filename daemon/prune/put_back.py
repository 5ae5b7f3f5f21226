"""A checkpoint that storage lost or damaged is sent again.

Without it what was pruned by right is missing, for readers and for the next prune, which would refuse for ever. It is
not secret and never changes, so this device keeps the newest one that it made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from chatkeep.daemon.state import State, refusals
from chatkeep.daemon.state.pruning import CheckpointRow
from chatkeep.daemon.vault.errors import VaultError
from chatkeep.daemon.vault.fetch import get_bounded
from chatkeep.daemon.vault.labels import MAX_CHECKPOINT
from chatkeep.providers.base import ObjectDamaged, ObjectNotFound, PermissionRefused, Provider, ProviderError
from chatkeep.providers.durable import fsync_directory, write_durably


def put_back(state: State, providers: Sequence[Provider], *, only_show: bool = False) -> bool:
    """Lays the newest checkpoint of this device's records into the outbox again if some of `providers` acknowledged it
    and does not have it whole; returns whether it did. What is there in its place and damaged is deleted, unless it is
    `only_show`. Raises StateError."""
    made = state.pruning.checkpoints()
    if not made or any(item.name == made[-1].name for item in state.outbox.queue("")):
        return False
    newest = made[-1]
    raw = state.pruning.arrivals.checkpoint_copy()
    copies = [None if raw is None or hashlib.sha256(raw).digest() != newest.sha256 else raw]
    lacking: list[Provider] = []
    for provider in providers:
        try:
            found = _whole(provider, newest)
        except ProviderError:
            continue  # away: nothing is known
        copies.append(found)
        if found is None and state.pruning.received(newest.name, provider.name) is not None:
            lacking.append(provider)
    whole = next((copy for copy in copies if copy is not None), None)
    if whole is None:
        return False
    if not only_show:
        lacking = [provider for provider in lacking if _cleared(provider, newest)]
    if not lacking:
        return False
    outbox = state.outbox.directory
    with refusals(outbox):
        write_durably(outbox / newest.sha256.hex(), whole)
        # Before the row: a power cut must not leave a row whose file never got its name.
        fsync_directory(outbox)
    state.pruning.arrivals.send_again(newest.name, [provider.name for provider in lacking])
    return True


def _whole(provider: Provider, newest: CheckpointRow) -> bytes | None:
    try:
        raw = get_bounded(provider, newest.name, MAX_CHECKPOINT)
    except (ObjectNotFound, ObjectDamaged, VaultError):
        return None
    return raw if hashlib.sha256(raw).digest() == newest.sha256 else None


def _cleared(provider: Provider, newest: CheckpointRow) -> bool:
    """Nothing is in its place any more: an object is never written over."""
    try:
        provider.delete(newest.name)
    except PermissionRefused:
        return False
    except ProviderError:
        pass  # the upload tells
    return True
