"""The daemon's clock: when to wake, whether the machine slept, and what the watchdog hears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from chatkeep.daemon.service.moment import Moment, now
from chatkeep.daemon.service.notify import Supervisor
from chatkeep.daemon.service.progress import Progress

BEAT: Final = 60.0
"""Seconds between two looks at the clock when nothing is due: a sleep that nobody told of shows by then."""

SLEPT: Final = 5.0
"""Seconds by which the clock that counts sleep may move ahead of the one that does not before it was a sleep."""


class Pulse:
    """Calls `tick` when it is time, in the loop, from `start` to `stop`; `slept` before, when the machine did."""

    def __init__(
        self, supervisor: Supervisor, progress: Progress, tick: Callable[[], None], slept: Callable[[], None]
    ) -> None:
        self._supervisor, self._progress = supervisor, progress
        self._tick, self._slept = tick, slept
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._feeding: asyncio.TimerHandle | None = None
        self._ahead = _ahead()

    def start(self) -> None:
        """Begins."""
        self._feed()
        self._beating = self._loop.call_later(BEAT, self._beats)

    def stop(self) -> None:
        """No tick comes any more; the watchdog is fed on, while the daemon ends."""
        for timer in (self._next, self._beating):
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Nothing is told any more."""
        self.stop()
        if self._feeding is not None:
            self._feeding.cancel()

    def wake_at(self, boot: float | None) -> None:
        """When the next tick is wanted (`Moment.boot`); in place of what was wanted before. None: by the next beat,
        which nothing puts off: while an application writes all the time this is called every few seconds."""
        if self._next is not None:
            self._next.cancel()
        if boot is not None:
            self._next = self._loop.call_later(max(0.0, boot - now().boot), self._beat)

    def noticed_sleep(self) -> None:
        """Somebody else told of it already."""
        self._ahead = _ahead()

    def _beats(self) -> None:
        self._beating = self._loop.call_later(BEAT, self._beats)
        self._beat()

    def _beat(self) -> None:
        ahead = _ahead()
        slept, self._ahead = ahead - self._ahead > SLEPT, ahead
        if slept:
            self._slept()
        self._tick()

    def _feed(self) -> None:
        every = self._supervisor.watchdog_interval()
        if every is None:
            return
        if not self._progress.stuck(time.monotonic()):
            self._supervisor.watchdog()
        self._feeding = self._loop.call_later(every, self._feed)


def _ahead() -> float:
    """By how much sleep has moved one clock ahead of the other. Grows, and only by sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def wall_of(boot: float | None, at: Moment) -> int | None:
    """What the wall clock shows then, if nobody sets it: for showing."""
    return None if boot is None else at.wall_ns + int((boot - at.boot) * 1e9)
