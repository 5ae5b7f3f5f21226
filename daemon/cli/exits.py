"""How a command ends, for scripts. Stable."""

from __future__ import annotations

import enum
from collections.abc import Iterable


class Exit(enum.IntEnum):
    """The exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # the command line or the configuration is wrong
    LOCKED = 3  # it needs a secret that was not given
    STORAGE = 4  # storage cannot be reached or refuses
    INTEGRITY = 5  # something is not what was sealed or captured
    CANCELLED = 6


_BY_WEIGHT = (Exit.DONE, Exit.CANCELLED, Exit.USAGE, Exit.FAILED, Exit.LOCKED, Exit.STORAGE, Exit.INTEGRITY)


def worst(codes: Iterable[Exit]) -> Exit:
    """The one to end with when several things ended differently: damage outweighs storage, storage the rest."""
    return max(codes, key=_BY_WEIGHT.index, default=Exit.DONE)
