"""When what waits is sent to which provider."""

from __future__ import annotations

import random
from typing import Final

from chatkeep.daemon.service.conducting.backoff import Backoff

SPACING: Final = 15.0  # seconds from a failure to the next attempt, however many reasons there are to try at once


class Sending:
    """One provider: whether something waits for it, and when it is tried."""

    def __init__(self, chance: random.Random, now: float) -> None:
        self._backoff: Final = Backoff(chance)
        self._not_before = now
        self._failed_at = now - SPACING
        self._again = False
        self.wanted = False
        self.running = False

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._backoff.failures > 0

    @property
    def covers(self) -> bool:
        """Whether the upload that runs began after everything there is to send."""
        return self.running and not self._again

    def want(self) -> None:
        """Something waits for it: a run that began before may have seen nothing of it."""
        if self.running:
            self._again = True
        self.wanted = True

    def hurry(self, now: float) -> None:
        """There is a reason to believe that it works by now, or that somebody waits."""
        self._not_before = min(self._not_before, max(now, self._failed_at + SPACING))

    def due_at(self) -> float | None:
        """When it is to begin; None: as long as nothing happens, never."""
        return self._not_before if self.wanted and not self.running else None

    def begin(self) -> None:
        """It begins."""
        self.running, self._again = True, False

    def end(self, now: float, *, done: bool, stopped: bool, moved: bool) -> bool:
        """It ended; whether that is the end of a trouble."""
        self.running = False
        recovered = False
        if done:
            recovered = self.failing
            self._backoff.succeeded()
            self.wanted = self._again
            self._not_before = now
        elif stopped:
            self.wanted = True
        else:
            if moved:  # it worked meanwhile: this is another outage
                self._backoff.succeeded()
            self.wanted = True
            self._failed_at = now
            self._not_before = now + self._backoff.failed()
        self._again = False
        return recovered
