"""How long to wait after a failure."""

from __future__ import annotations

import random
from typing import Final

FIRST: Final = 5.0  # seconds, at least
LAST: Final = 900.0  # seconds, at most: a disk that is plugged in again is noticed within a quarter of an hour
_DOUBLINGS: Final = 8  # 5 s doubled so often is past the last


class Backoff:
    """Waits that grow. Within what the number of failures allows each is drawn anew, so that many devices that met the
    same outage do not come back together."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.failures = 0

    def failed(self) -> float:
        """One more failure: how long to wait (seconds), `FIRST` to `LAST`."""
        self.failures += 1
        most = min(LAST, FIRST * 2 ** min(self.failures, _DOUBLINGS))
        return self._chance.uniform(FIRST, most)

    def succeeded(self) -> None:
        """The next failure is a first one."""
        self.failures = 0
