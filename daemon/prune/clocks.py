"""Whether this device and its storage agree on the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from chatkeep.daemon.prune.errors import PruneRefused
from chatkeep.providers import probing
from chatkeep.providers.base import Provider, ProviderError

APART: Final = 600.0
"""Seconds. With a clock that is wrong by more, days and weeks are others than those that people mean."""


def check_clocks(providers: Sequence[Provider], now: Callable[[], float] = time.time) -> None:
    """Raises PruneRefused when a storage tells another time. One that is away, or tells none, is not asked."""
    for provider in providers:
        try:
            there = probing.clock(provider)
        except ProviderError:
            continue
        apart = 0.0 if there is None else there - now()
        if abs(apart) > APART:
            raise PruneRefused(reason="clock", where=provider.name, minutes=round(abs(apart) / 60))
