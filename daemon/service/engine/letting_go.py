"""What leaves the outbox, and who is not waited for any more.

An object leaves when every provider has acknowledged it. But a provider that is not required may stay away for ever:
the outbox would fill for its sake, and in the end nothing would be captured. So when half of what the outbox may hold
is reached, what all required providers have is let go although others lack it, and those are *left behind*: they are
brought up from a provider that has everything when they are back. What no required provider acknowledged is never let
go; where none is required, the one that is furthest stands for them.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from chatkeep.config.model import Config
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.upload import release

SHARE = 2
"""The limit of the outbox through this is how much may wait for the sake of those that are not required."""


def let_go(config: Config, state: State, at_work: Collection[str] = ()) -> list[str]:
    """Lets go of what may leave the outbox. Raises StateError.

    `at_work`: providers that are being sent to, from files that must stay until that ends. Returned are those of them
    that are to be left behind: whoever sends there is to come to an end, and this to be called again.
    """
    with state.mirrors.turns:
        return _let_go(config, state, at_work)


def _let_go(config: Config, state: State, at_work: Collection[str]) -> list[str]:
    every = [provider.name for provider in config.providers]
    required = {provider.name for provider in config.providers if provider.required}
    behind = state.mirrors.behind().keys()
    # One that was left behind and is required by now is waited for all the same: nothing else has been promised.
    release(state.outbox, _waited_for(every, required, behind))
    if state.outbox.waiting()[1] <= int(config.outbox.limit) // SHARE:
        return []
    leaders = required or _furthest(state, [name for name in every if name not in behind])
    left = [
        name for name in every if name not in behind and name not in leaders and state.mirrors.held_up(name, leaders)
    ]
    now = [name for name in left if name not in at_work]
    if now:
        # First: killed between the two, one is brought up that lacks nothing; the other way round it would have a gap.
        state.mirrors.leave(now, time.time_ns())
        release(state.outbox, _waited_for(every, required, state.mirrors.behind().keys()))
    return [name for name in left if name in at_work]


def notice_gaps(config: Config, state: State) -> list[str]:
    """Who lacks what left the outbox, although nobody left it behind: one that was not in the configuration for a time,
    that has another name now, or whose storage was filled by hand. It is brought up like the others, which finds what
    is there. Raises StateError.
    """
    names = [provider.name for provider in config.providers]
    with state.mirrors.turns:
        behind = state.mirrors.behind()
        found = [name for name in names if name not in behind and state.mirrors.lacks(name)]
        state.mirrors.leave(found, time.time_ns())
    return found


def _waited_for(every: Collection[str], required: Collection[str], behind: Collection[str]) -> list[str]:
    return [name for name in every if name in required or name not in behind] or list(every)


def _furthest(state: State, names: Collection[str]) -> set[str]:
    return set(sorted(names, key=lambda name: state.figures.waiting(name)[1])[:1])
