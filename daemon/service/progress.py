"""Whether the daemon gets anywhere: what the service manager's watchdog is told goes by this. Pure.

That the loop turns shows by itself, since it is the loop that feeds the watchdog; and it proves little when every
worker hangs. So each piece of work says when it moved, and one that has not for too long keeps the watchdog from being
fed: the service manager then restarts the daemon, which loses nothing.

Times are seconds of a clock that stands still while the machine sleeps (CLOCK_MONOTONIC, as the service manager's own):
by one that counts sleep everything would have hung for the whole night.
"""

from __future__ import annotations

import threading
from typing import Final

WORK_LIMIT: Final = 900.0
"""Seconds without a sign of life. One object on a slow line, with its retries, takes minutes."""


class Progress:
    """What is busy, and when it last moved. For any thread."""

    def __init__(self, limit: float = WORK_LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._moved: dict[str, float] = {}

    def began(self, work: str, now: float) -> None:
        """A piece of work began; each has a name of its own."""
        with self._lock:
            self._moved[work] = now

    def moved(self, work: str, now: float) -> None:
        """It got further. One that has ended does not live again by a late word."""
        with self._lock:
            if work in self._moved:
                self._moved[work] = max(now, self._moved[work])

    def ended(self, work: str) -> None:
        """It is over, however."""
        with self._lock:
            self._moved.pop(work, None)

    def stuck(self, now: float) -> tuple[str, ...]:
        """What has not moved for too long; empty: all is well."""
        with self._lock:
            return tuple(work for work, moved in self._moved.items() if now - moved > self._limit)
