"""Holding what lives for longer where storage locks objects: after each backup, when it is due. Needs no secret."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config, ProviderConfig
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.retain import Keeper, extend
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.names import device_prefix
from chatkeep.providers.base import PermissionRefused, Provider, Retains
from chatkeep.providers.memo import FileMemo, MemoryMemo
from chatkeep.providers.wrap import Patience, Retrying

_BRIEFLY = Patience(attempts=2)
_DEVICES = "d/"


def after_backup(
    config: Config,
    state: State,
    credential: WriterCredential,
    providers: Sequence[Provider],
    stopped: Callable[[], bool] = bool,
) -> list[ChatkeepError]:
    """Makes the passes that are due at these providers; what kept one from its end. Raises StateError, MemoUnusable."""
    found: list[ChatkeepError] = []
    configs = {one.name: one for one in config.providers}
    for provider in providers:
        one = configs[provider.name]
        period = getattr(one.options, "retain", None)
        if period is None or not isinstance(provider, Retains):
            continue
        patient: Keeper = Retrying(provider, _BRIEFLY)
        living = functools.partial(_living, state, credential, patient)
        with contextlib.closing(_memo(one)) as memo:
            done = extend(patient, memo, float(period), living, time.time(), stopped)
        if done.problem is not None:
            found.append(done.problem)
    return found


def _memo(config: ProviderConfig) -> FileMemo | MemoryMemo:
    return FileMemo(config.memory) if config.memory is not None else MemoryMemo()


def _living(state: State, credential: WriterCredential, provider: Provider) -> Iterator[str]:
    """What this device answers for: what storage lists of its own and of all, and what its records say, because a
    listing may be old, and a key that may only put gets none. Without what is condemned."""
    own = device_prefix(credential.device_id)
    condemned = {row.name for row in state.pruning.condemned()}
    given: set[str] = set()
    try:
        for found in provider.list(""):
            if found.name not in condemned and (not found.name.startswith(_DEVICES) or found.name.startswith(own)):
                given.add(found.name)
                yield found.name
    except PermissionRefused as exc:
        if type(exc) is not PermissionRefused:
            raise
    yield from (name for name in state.pruning.objects() if name not in condemned and name not in given)
