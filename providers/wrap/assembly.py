"""What is put around every provider of a configuration, in the one right order."""

from __future__ import annotations

from chatkeep.config.limits import Limit
from chatkeep.config.model import ProviderConfig
from chatkeep.providers.base import Provider
from chatkeep.providers.memo import Memo
from chatkeep.providers.wrap.daily import Daily
from chatkeep.providers.wrap.limited import Limited
from chatkeep.providers.wrap.narrow import Narrow


def wrapped(provider: Provider, config: ProviderConfig, memo: Memo) -> Provider:
    """The provider, counted, with so many connections and as fast as its configuration says; without `Retrying`.

    The rate is outside of the connections: who waits for the rate holds up none. The count is innermost: it counts
    every attempt. `memo`: as `Daily`.
    """
    narrow = Narrow(Daily(provider, memo), config.connections)
    return narrow if config.limit == Limit() else Limited(narrow, config.limit)
