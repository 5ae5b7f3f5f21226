"""How often and how long to try. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from chatkeep.config.errors import Disposition
from chatkeep.providers import base


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to try.

    Attributes:
        attempts: calls in all, at least 1.
        first: seconds before the second attempt; each further wait doubles.
        longest: most seconds of one wait. A storage that asks for more is not waited for: the caller, who knows of
            other work, gets the error.
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 30.0

    def wait(self, attempt: int, error: base.ProviderError, chance: float) -> float | None:
        """Seconds to wait after the failed attempt of that number (from 1), or None to give up.

        Pure: `chance` in [0, 1) is the jitter, which spreads devices that lost the same server at the same instant.
        Half of the wait is kept, so that a server is never hit at once.
        """
        if error.disposition is not Disposition.RETRY or attempt >= self.attempts:
            return None
        wait = min(self.longest, self.first * 2.0 ** (attempt - 1)) * (0.5 + 0.5 * chance)
        asked = error.after if isinstance(error, base.Throttled) else None
        if asked is None:
            return wait
        return None if asked > self.longest else max(wait, asked)
