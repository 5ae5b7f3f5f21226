"""How long and how many, as people write them: `1 day`, `36 hours`; `48`, `all`."""

from __future__ import annotations

import difflib
import re
from typing import Final

_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86_400, "week": 7 * 86_400}  # a month has no fixed length
_SPOKEN: Final = (("day", 86_400), ("hour", 3600), ("minute", 60))
LONGEST: Final = 100 * 365 * 86_400
MOST: Final = 999_999
LASTING: Final = r"^[1-9][0-9]{0,7} (minute|hour|day|week)s?$"  # more than no time
WRITTEN: Final = r"^(0|[1-9][0-9]{0,7}) (minute|hour|day|week)s?$"


class Duration(int):
    """A span in seconds; its text is what the configuration would say."""

    def __str__(self) -> str:
        unit, per = next((unit, per) for unit, per in _SPOKEN if not self % per or per == 60)
        count = self // per
        return f"{count} {unit}" if count == 1 else f"{count} {unit}s"

    @property
    def ns(self) -> int:
        """In nanoseconds."""
        return int(self) * 10**9

    @classmethod
    def parse(cls, text: str) -> Duration | None:
        """A whole number and a unit, one space between; None for anything else, and for more than 100 years."""
        found = re.fullmatch(WRITTEN[1:-1], text, re.ASCII)
        if found is None:
            return None
        seconds = int(found[1]) * _SECONDS[found[2]]
        return cls(seconds) if seconds <= LONGEST else None

    @classmethod
    def nearest(cls, text: str) -> str:
        """What was probably meant by a text that is no duration, or nothing."""
        found = re.fullmatch(r"\s*([0-9]{1,7})\s*([a-zA-Z]*)\s*", text)
        if found is None:
            return ""
        number, word = str(int(found[1])), found[2].lower()
        units = [unit + plural for unit in _SECONDS for plural in ("", "s")]
        short = next((unit for unit in _SECONDS if word and unit.startswith(word)), "")
        close = short or next(iter(difflib.get_close_matches(word, units, n=1, cutoff=0.6)), "")
        unit = close.removesuffix("s")
        meant = f"{number} {unit}" + ("" if number == "1" else "s")
        return meant if unit and cls.parse(meant) is not None else ""


class Amount(int):
    """How many are kept; `ALL` is written `all`."""

    def __str__(self) -> str:
        return "all" if self >= ALL else str(int(self))

    @classmethod
    def parse(cls, text: str) -> Amount | None:
        """`all`, or a number from 0 to 999999; None for anything else."""
        if text == "all":
            return ALL
        return cls(text) if re.fullmatch(r"0|[1-9][0-9]{0,5}", text, re.ASCII) else None


ALL: Final = Amount(MOST + 1)
