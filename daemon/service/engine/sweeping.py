"""Deleting what was pruned, once its time has come: after each backup, and when prune is asked for. Needs no secret."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.sweep import CondemnedBy, SweepResult, Terms, sweep
from chatkeep.daemon.vault.checkpoint import verify_checkpoint
from chatkeep.daemon.vault.checkpoint_codec import CheckpointHead
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.names import CheckpointName, ManifestName, PackName, parse
from chatkeep.providers.base import Provider
from chatkeep.providers.wrap import Patience, Retrying

_BRIEFLY: Final = Patience(attempts=2)


def condemned_by(credential: WriterCredential) -> CondemnedBy:
    """Proves a checkpoint with what a locked device has: the checkpoint key of the epoch that it pinned."""

    def proven(name: str, raw: bytes) -> Collection[str] | None:
        parsed = parse(name)
        assert isinstance(parsed, CheckpointName), "a row of a checkpoint names none"
        if CheckpointHead.parse(raw).epoch != credential.epoch:
            return None
        keys = {credential.epoch: credential.checkpoint}
        said = verify_checkpoint(raw, parsed, credential.vault_id, keys).checkpoint
        device = credential.device_id
        manifests = (str(ManifestName(device, stream, *one)) for stream, one in said.condemned_manifests)
        return {*manifests, *(str(PackName(device, sha256)) for sha256 in said.condemned_packs)}

    return proven


def sweep_all(
    config: Config,
    state: State,
    credential: WriterCredential,
    providers: Sequence[Provider],
    *,
    asked: bool = False,
    cancelled: Callable[[], bool] = bool,
) -> list[SweepResult]:
    """Sweeps these providers; what went wrong is in the results. Raises StateError."""
    terms = Terms(
        grace=int(config.retention.grace),
        condemned_by=condemned_by(credential),
        providers=[one.name for one in config.providers],
        asked=asked,
        now_ns=time.time_ns,
        cancelled=cancelled,
    )
    return [sweep(state.pruning, Retrying(one, _BRIEFLY), terms) for one in providers]


def after_backup(
    config: Config,
    state: State,
    credential: WriterCredential,
    providers: Sequence[Provider],
    stopped: Callable[[], bool],
) -> None:
    """Deletes at these providers what is due. A backup is done by then: nothing that happens here undoes it."""
    try:
        sweep_all(config, state, credential, providers, cancelled=stopped)
    except ChatkeepError:
        return  # the next backup tries again, and prune says what is wrong
