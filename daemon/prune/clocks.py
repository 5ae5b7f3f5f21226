"""Whether this device and its storage agree on the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from chatkeep.daemon.prune.errors import PruneRefused
from chatkeep.providers import probing
from chatkeep.providers.base import PermissionRefused, Provider, ProviderError

APART: Final = 600.0
"""Seconds. With a clock that is wrong by more, days and weeks are others than those that people mean."""


def check_clocks(providers: Sequence[Provider], now: Callable[[], float] = time.time) -> list[Provider]:
    """Returns the storages that answer.

    Raises:
        PruneRefused: one tells another time.
        ProviderError: none answers.
    """
    answering: list[Provider] = []
    first: ProviderError | None = None
    for provider in providers:
        try:
            there = probing.clock(provider)
        except PermissionRefused:  # one that may write below its own prefix only
            there = None
        except ProviderError as exc:
            first = first or exc
            continue
        answering.append(provider)
        apart = 0.0 if there is None else there - now()
        if abs(apart) > APART:
            raise PruneRefused(reason="clock", where=provider.name, minutes=round(abs(apart) / 60))
    if not answering and first is not None:
        raise first
    return answering
