"""Which notice goes out by one way of telling, and when it is tried again. Pure.

A later notice about the same thing takes the place of one that still waits: who was not told that uploads fail is told
that they failed, and since when, once that gets through. What waits is bounded, in number and in time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.telling.notice import Key, Notice

FIRST: Final = 30.0  # seconds until the second try, which doubles
LONGEST: Final = 3600.0
KEPT: Final = 3 * 86_400.0  # what did not get through for so long is given up; it is told again if it lasts
MOST: Final = 100
BROKEN: Final = 3600.0  # a way that fails for so long is itself a problem


class Deliveries:
    """What waits for one way of telling."""

    def __init__(self) -> None:
        self._waiting: dict[Key, tuple[Notice, float]] = {}  # and since when
        self._tries = 0
        self._failing_since: float | None = None
        self._last = float("-inf")  # when it last failed
        self.values: Mapping[str, Any] = {}  # what was wrong then

    def add(self, notice: Notice, now: Moment) -> None:
        """A notice to deliver."""
        self._waiting.pop(notice.key, None)
        self._waiting[notice.key] = (notice, now.boot)
        if len(self._waiting) > MOST:
            del self._waiting[next(iter(self._waiting))]

    def next(self, now: Moment) -> Notice | None:
        """What is to be tried now, the oldest first; it stays until `done`."""
        self._waiting = {key: one for key, one in self._waiting.items() if one[1] + KEPT > now.boot}
        if self.wake_at > now.boot:
            return None
        return next(iter(self._waiting.values()))[0]

    @property
    def wake_at(self) -> float:
        """When `next` has something at the latest, on the clock `boot`."""
        if not self._waiting:
            return float("inf")
        if not self._tries:
            return float("-inf")
        usual = self._last + min(FIRST * 2.0 ** min(self._tries - 1, 20), LONGEST)
        # News that came since the last try do not wait as long as what failed at it; neither are they a way to hurry.
        newest = max(since for _, since in self._waiting.values())
        return min(usual, self._last + FIRST) if newest > self._last else usual

    def done(self, notice: Notice) -> None:
        """It got through, unless a later one took its place meanwhile: that is yet to go."""
        if (held := self._waiting.get(notice.key)) is not None and held[0] is notice:
            del self._waiting[notice.key]
        self._tries, self._failing_since, self._last, self.values = 0, None, float("-inf"), {}

    def failed(self, now: Moment, values: Mapping[str, Any]) -> None:
        """It did not."""
        self._tries += 1
        self._last = now.boot
        self._failing_since = now.boot if self._failing_since is None else self._failing_since
        self.values = values

    def broken(self, now: Moment) -> bool:
        """Whether nothing got through for an hour."""
        return self._failing_since is not None and self._tries >= 3 and now.boot - self._failing_since >= BROKEN

    def plain(self) -> list[dict[str, Any]]:
        """What waits, for a restart, as JSON has it."""
        return [notice.plain() for notice, _ in self._waiting.values()]

    def remember(self, plain: Sequence[Mapping[str, Any]], now: Moment) -> None:
        """Takes up what waited before a restart. What is more than three days old, or no notice, is left out."""
        for one in plain:
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
                age = max(0, now.wall_ns - int(one["at_ns"])) / 1e9
                notice = Notice.of_plain(one, Moment(int(one["at_ns"]), now.boot - age))
                if age < KEPT and len(self._waiting) < MOST:
                    self._waiting[notice.key] = (notice, now.boot - age)
