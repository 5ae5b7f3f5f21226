"""How long to wait so that a rate is kept to. Pure: the time is handed in."""

from __future__ import annotations

from typing import Final

from chatkeep.config.amounts import UNLIMITED, Rate

# So much time without traffic may be made up for. A sleep that ends late would cost rate otherwise.
_CREDIT: Final = 0.1
_SHORTEST: Final = 1e-6  # seconds: less than this cannot be slept, nor be seen on a clock that counts for months


class Bucket:
    """What was sent and is not yet paid for by time.

    The debt is in bytes and not a time from which on all is well: a rate that changes holds for what was sent before.
    """

    def __init__(self) -> None:
        self._debt = 0.0
        self._at: float | None = None
        self._rate = UNLIMITED

    def wait(self, rate: Rate, now: float) -> float:
        """Seconds until something may be sent, if the rate stays; 0 for now. `now`: of any clock that never goes back,
        in seconds."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        # The time that passed pays at the rate that it was waited for with, the rest of the debt at the one of now.
        paid = passed * self._rate
        self._at, self._rate = now, rate
        self._debt = 0.0 if rate >= UNLIMITED else max(self._debt - paid, -_CREDIT * rate)
        wait = self._debt / rate
        return wait if wait > _SHORTEST else 0.0

    def charge(self, size: int) -> None:
        """So many bytes are sent."""
        self._debt += size
