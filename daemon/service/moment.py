"""An instant, in the two clocks that a daemon needs."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was, for people and for delays.

    The wall clock jumps, by hours or by years, and is only for showing and for the schedule of days. A delay is a
    difference of `boot`: it never runs backwards and counts the time that the machine slept.
    """

    wall_ns: int  # UNIX nanoseconds, UTC
    boot: float  # seconds since the machine started, sleep included: CLOCK_BOOTTIME


def now() -> Moment:
    """The instant of the call."""
    return Moment(time.time_ns(), time.clock_gettime(time.CLOCK_BOOTTIME))
