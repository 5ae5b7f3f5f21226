"""When which source is captured: its pace, its failures, and who asked."""

from __future__ import annotations

import random
from typing import Final

from chatkeep.daemon.service.conducting.backoff import FIRST, Backoff
from chatkeep.daemon.service.conducting.inputs import How
from chatkeep.daemon.service.pace import Pace, PaceSettings


class Capture:
    """One source. Times are seconds of `Moment.boot`."""

    def __init__(self, settings: PaceSettings, chance: random.Random, now: float) -> None:
        self.pace: Final = Pace(settings, now)
        self._backoff: Final = Backoff(chance)
        self._not_before = now
        self._ended = now - FIRST
        self._asked = False

    @property
    def running(self) -> bool:
        """Whether a snapshot began and has not ended."""
        return self.pace.running

    def ask(self) -> None:
        """A person wants it now; one that runs has begun too early."""
        self._asked = True

    def back(self, now: float) -> None:
        """What failed before may do better now. It is compared, and a failure is no reason to wait for long."""
        self.pace.resumed(now)
        self._not_before = min(self._not_before, max(now, self._ended + FIRST))

    def due_at(self, now: float) -> float | None:
        """When the next one is to begin; None: one is running, and its end decides."""
        if self._asked and not self.running:
            return now
        due = self.pace.due_at
        return None if due is None else max(due, self._not_before)

    def begin(self, now: float) -> None:
        """It begins."""
        self._asked = False
        self.pace.began(now)

    def end(self, how: How, now: float) -> None:
        """It ended."""
        self.pace.ended(now)
        self._ended = self._not_before = now
        if how in {How.MADE, How.NOTHING}:
            self._backoff.succeeded()
            return
        self.pace.resumed(now)  # what it was to answer is open again, and one that was stopped did not fail
        if how is How.FAILED:
            self._not_before = now + self._backoff.failed()
