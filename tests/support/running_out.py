"""Times that are to run out, on a machine that may be busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def in_time(act: Callable[[float], Result], seconds: float, late: type[BaseException]) -> Result:
    """What `act` makes of a time, in seconds, that runs out in it.

    On a busy machine it may have run out before the test came to what it is about, which `late` says: then it is given
    more. What is wrong stays so with the most.
    """
    for each in (seconds, seconds * 5):
        try:
            return act(each)
        except late:
            continue
    return act(seconds * 10)
