"""The shape of what is said about an error."""

from __future__ import annotations

from typing import NamedTuple

from chatkeep.daemon.cli.exits import Exit


class Words(NamedTuple):
    """What is said about one error code."""

    text: str
    remedy: str
    exit: Exit
