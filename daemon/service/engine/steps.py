"""How long work speaks with whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Step: TypeAlias = Callable[[str, int, int | None], None]
"""What is worked at (the name of a source, or `to <provider>`), bytes done, all there are if that is known. Called from
any thread."""
Stopped: TypeAlias = Callable[[], bool]
"""Whether the work is to end at its next safe point. Asked often, from any thread."""


def unwatched(what: str, done: int, total: int | None) -> None:
    """A step of work that nobody watches."""
