"""How a command ends, for scripts. Stable."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """The exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # the command line or the configuration is wrong
    LOCKED = 3  # it needs a secret that was not given
    STORAGE = 4  # storage cannot be reached or refuses
    INTEGRITY = 5  # something is not what was sealed or captured
    CANCELLED = 6
