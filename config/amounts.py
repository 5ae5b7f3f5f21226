"""How long, how many, how much, as people write them: `1 day`, `36h`; `48`, `all`; `20 GB`; `1%`; `never`; `2 MB/s`;
`22:30`."""

from __future__ import annotations

import difflib
import re
from typing import Final, Self

# A month has no fixed length. Single letters stand for what they can only mean: an m is a minute to some and a month to
# others, and a policy of 6 minutes would delete what one of 6 months keeps.
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 7 * 86_400}
_SHORT: Final = {"s": "second", "min": "minute", "h": "hour", "d": "day", "w": "week"}
_SPOKEN: Final = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
LONGEST: Final = 100 * 365 * 86_400
MOST: Final = 999_999
_COUNT: Final = "[1-9][0-9]{0,8}"
_FROM_MINUTES: Final = "( (minute|hour|day|week)s?|min|h|d|w)"
_ANY: Final = "( (second|minute|hour|day|week)s?|s|min|h|d|w)"
WRITTEN: Final = f"^(0|{_COUNT}){_ANY}$"
LASTING: Final = f"^{_COUNT}{_ANY}$"  # more than no time
_MINUTE: Final = f"^({_COUNT}{_FROM_MINUTES}|([6-9][0-9]|[1-9][0-9]{{2,8}})( seconds|s))$"  # a minute or more

_BYTES: Final = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE: Final = "^[1-9][0-9]{0,5} ?(MB|GB|TB)$"
_PER_SECOND: Final = {"KB/s": 10**3, "MB/s": 10**6, "GB/s": 10**9}
# From 10 KB/s on: a server does not wait for ever for the next 64 KiB of an object.
RATE: Final = "^([1-9][0-9]{1,5} ?K|[1-9][0-9]{0,5} ?[MG])B/s$"
TIME: Final = "^([01][0-9]|2[0-3]):[0-5][0-9]$"
MOST_AT_ONCE: Final = 64
SHARE: Final = r"^(?!0+(\.0+)?%)(100|[0-9]{1,2}(\.[0-9]{1,2})?)%$"


class Duration(int):
    """A span in seconds; its text is what the configuration would say."""

    def __str__(self) -> str:
        unit, per = next((unit, per) for unit, per in _SPOKEN if not self % per)
        count = self // per
        return f"{count} {unit}" if count == 1 else f"{count} {unit}s"

    @property
    def ns(self) -> int:
        """In nanoseconds."""
        return int(self) * 10**9

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """A whole number and a unit: `36 hours` with one space between, or `36h`. None for anything else, and for more
        than 100 years."""
        found = re.fullmatch(r"([0-9]+)( ?)([a-z]+)", text, re.ASCII)
        if found is None or re.search(WRITTEN, text, re.ASCII) is None:
            return None
        unit = found[3].removesuffix("s") if found[2] else _SHORT[found[3]]
        seconds = int(found[1]) * _SECONDS[unit]
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


class Every(Duration):
    """A span in seconds, or `NEVER`, which is longer than any span that can be written."""

    def __str__(self) -> str:
        return "never" if self >= NEVER else super().__str__()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """As of a duration; and `never`."""
        return cls(NEVER) if text == "never" else super().parse(text)

    @classmethod
    def nearest(cls, text: str) -> str:
        """What was probably meant by a text that is neither, or nothing."""
        close = difflib.get_close_matches(text.strip().lower(), ["never", "none", "off"], n=1, cutoff=0.7)
        return "never" if close else super().nearest(text)


NEVER: Final = Every(LONGEST + 1)


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


class Size(int):
    """So many bytes. The units are those of disks: 1 GB is 1,000,000,000 bytes."""

    def __str__(self) -> str:
        unit, per = next((unit, per) for unit, per in reversed(_BYTES.items()) if not self % per or unit == "MB")
        return f"{self // per} {unit}"

    @classmethod
    def parse(cls, text: str) -> Size | None:
        """A whole number of MB, GB or TB, with a space between or without; None for anything else, and for nothing."""
        if re.search(SIZE, text, re.ASCII) is None:
            return None
        return cls(int(text[:-2]) * _BYTES[text[-2:]])

    @classmethod
    def nearest(cls, text: str) -> str:
        """What was probably meant by a text that is no size, or nothing."""
        found = re.fullmatch(r"\s*([0-9]{1,6})\s*([MGT])i?B?\s*", text, re.IGNORECASE | re.ASCII)
        meant = f"{int(found[1])} {found[2].upper()}B" if found is not None else ""
        return meant if cls.parse(meant) is not None else ""


class Share(float):
    """A part of a whole: more than 0, at most 1. Written in per cent."""

    def __str__(self) -> str:
        return f"{self * 100:.2f}".rstrip("0").rstrip(".") + "%"

    @classmethod
    def parse(cls, text: str) -> Share | None:
        """`1%`, `0.5%`, `100%`; None for anything else, and for nothing."""
        if re.search(SHARE, text, re.ASCII) is None:
            return None
        return cls(float(text[:-1]) / 100)

    @classmethod
    def nearest(cls, text: str) -> str:
        """What was probably meant by a text that is no share, or nothing."""
        found = re.fullmatch(r"\s*([0-9.]{1,6})\s*%?\s*", text, re.ASCII)
        meant = f"{found[1]}%" if found is not None else ""
        return meant if cls.parse(meant) is not None else ""


class Rate(int):
    """Bytes in a second, or `UNLIMITED`. 1 KB/s is 1000 bytes in a second."""

    def __str__(self) -> str:
        if self >= UNLIMITED:
            return "unlimited"
        unit, per = next((unit, per) for unit, per in reversed(_PER_SECOND.items()) if not self % per or unit == "KB/s")
        return f"{self // per} {unit}"

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """A whole number of KB/s, MB/s or GB/s, with a space between or without, from 10 KB/s on; `unlimited`. None for
        anything else."""
        if text == "unlimited":
            return UNLIMITED
        if re.search(RATE, text, re.ASCII) is None:
            return None
        return cls(int(text[:-4]) * _PER_SECOND[text[-4:]])

    @classmethod
    def nearest(cls, text: str) -> str:
        """What was probably meant by a text that is no rate, or nothing."""
        if text.strip().lower() in {"none", "off", "no", "never", "all", "unlimted", "no limit", "0"}:
            return "unlimited"
        # Not Mbit/s and Mb/s, which are an eighth.
        found = re.fullmatch(r"\s*([0-9]{1,6})\s*([kKMG])(?:i?B)?(?:/s|ps|/sec)?\s*", text, re.ASCII)
        meant = f"{int(found[1])} {found[2].upper()}B/s" if found is not None else ""
        return meant if cls.parse(meant) is not None else ""


UNLIMITED: Final = Rate(2**62)


class TimeOfDay(int):
    """Minutes since midnight, by the clock on the wall."""

    def __str__(self) -> str:
        return f"{self // 60:02}:{self % 60:02}"

    @classmethod
    def parse(cls, text: str) -> TimeOfDay | None:
        """`00:00` to `23:59`; None for anything else."""
        return cls(int(text[:2]) * 60 + int(text[3:])) if re.search(TIME, text, re.ASCII) else None

    @classmethod
    def nearest(cls, text: str) -> str:
        """What was probably meant by a text that is no time of day, or nothing."""
        found = re.fullmatch(
            r"\s*([0-9]{1,2})(?:[:.h]([0-9]{2}))?(?::00)?\s*(am|pm)?\s*", text, re.ASCII | re.IGNORECASE
        )
        if found is None:
            return ""
        hour = int(found[1]) % 12 + 12 * (found[3].lower() == "pm") if found[3] else int(found[1]) % 24
        meant = f"{hour:02}:{found[2] or '00'}"
        return meant if cls.parse(meant) is not None else ""


class AtOnce(int):
    """How many calls may be on their way at the same time."""

    @classmethod
    def parse(cls, text: str) -> AtOnce | None:
        """A number from 1 to 64; None for anything else."""
        found = int(text) if re.fullmatch("[1-9][0-9]?", text, re.ASCII) else 0
        return cls(found) if 1 <= found <= MOST_AT_ONCE else None

    @classmethod
    def nearest(cls, text: str) -> str:  # noqa: ARG003  # as of its neighbours
        """Nothing: any number could have been meant."""
        return ""


def at_least(least: Duration) -> str:
    """The pattern of a duration that is not shorter. Raises KeyError for a least that no key has."""
    return {0: WRITTEN, 1: LASTING, 60: _MINUTE}[int(least)]
