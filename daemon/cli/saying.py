"""The shape of what is said about an error."""

from __future__ import annotations

from typing import Final, NamedTuple

from chatkeep.daemon.cli.exits import Exit

REPORT: Final = "This should not happen. Please report it with the output of: chatkeep doctor --json"
VERIFY: Final = "Look for the extent of the damage with: chatkeep verify --deep"
AGAIN: Final = "Nothing is lost. The next backup tries again."


class Words(NamedTuple):
    """What is said about one error code."""

    text: str
    remedy: str
    exit: Exit
