"""An instant has both clocks of this machine."""

from __future__ import annotations

import time

from chatkeep.daemon.service.moment import now


def test_an_instant_lies_between_two_readings_of_both_clocks() -> None:
    wall, boot = time.time_ns(), time.clock_gettime(time.CLOCK_BOOTTIME)
    made = now()
    assert wall <= made.wall_ns <= time.time_ns()
    assert boot <= made.boot <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_delays_are_of_the_clock_that_counts_sleep() -> None:
    # CLOCK_MONOTONIC stops while the machine sleeps. They agree here only if it never slept: what is shown is that it
    # is not a clock that can be set.
    first, second = now(), now()
    assert second.boot >= first.boot
    assert abs(first.boot - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
