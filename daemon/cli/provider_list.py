"""What `providers list` shows: from the configuration and this device's own records, without asking any storage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chatkeep.daemon.cli import provider_standing
from chatkeep.daemon.cli.provider_places import place
from chatkeep.daemon.service.device import is_set_up
from chatkeep.providers.used import glanced

if TYPE_CHECKING:
    from chatkeep.config.model import Config, ProviderConfig
    from chatkeep.daemon.state.glance import Glance, ProviderGlance


def listed(config: Config) -> list[dict[str, Any]]:
    """Each provider, as --json has it. Raises StateDamaged."""
    from chatkeep.daemon.state import glance

    if not glance.exists(config.state_dir):
        nothing = glance.ProviderGlance(0, 0, {}, None, None, None)
        return [_one(config, one, nothing, 0, lost=False) for one in config.providers]
    with glance.Glance(config.state_dir) as seen:
        newest = {one.stream: one.seq for one in seen.sources().values()}
        lost = seen.lost() is not None
        return [_seen(config, one, seen, newest, lost=lost) for one in config.providers]


def _seen(
    config: Config, provider: ProviderConfig, seen: Glance, newest: Mapping[bytes, int], *, lost: bool
) -> dict[str, Any]:
    found = seen.provider(provider.name)
    behind = sum(seq - min(found.frontiers.get(stream, 0), seq) for stream, seq in newest.items())
    return _one(config, provider, found, behind, lost=lost)


def _one(config: Config, provider: ProviderConfig, found: ProviderGlance, behind: int, *, lost: bool) -> dict[str, Any]:
    state: str = provider_standing.state(provider, found, lost=lost)
    text = provider_standing.short(provider, found, behind, lost=lost)
    if not is_set_up(config):
        state, text = "not-set-up", "no vault is made yet: chatkeep init"
    used = glanced(provider.memory, time.time())
    return {
        "name": provider.name,
        "type": provider.type,
        "required": provider.required,
        "place": place(provider, None),
        "state": state,
        "text": text,
        "requests_today": dict(used.requests) if used is not None else None,
    }
