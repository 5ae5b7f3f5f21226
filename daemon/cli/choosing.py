"""What a person means by SNAP: `latest`, a number, an id, a time; before it the source, if there are several. Pure."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, replace
from typing import Final

LEAST_PREFIX: Final = 4  # hex digits of an id
_AGO: Final = re.compile(r"(\d{1,6})\s*(m|min|minutes?|h|hours?|d|days?|w|weeks?)(?:\s+ago)?", re.ASCII)
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was typed, understood.

    Attributes:
        text: as it was typed.
        source: the source named before the colon; None when none is.
        number: a sequence number. prefix: the beginning of an id, in hex; digits alone can be both.
        before_ns: the newest snapshot at or before this time.
        With none of these three the newest of all is meant.
    """

    text: str
    source: str | None = None
    number: int | None = None
    prefix: str | None = None
    before_ns: int | None = None


def understand(text: str, now_ns: int, zone: dt.tzinfo | None = None) -> Wanted | None:
    """Reads SNAP; None when it is nothing that names a snapshot. A time without a zone is in `zone` (None: this one's).

    A date alone means the end of that day: what one still had then.
    """
    whole = _meaning(text.strip(), now_ns, zone)
    if whole is not None:
        return replace(whole, text=text)
    # Times have colons too, and so may names: the first colon after which something is understood.
    for colon in (at for at, letter in enumerate(text) if letter == ":" and at):
        rest = _meaning(text[colon + 1 :].strip(), now_ns, zone)
        if rest is not None:
            return replace(rest, text=text, source=text[:colon])
    return None


def _meaning(word: str, now_ns: int, zone: dt.tzinfo | None) -> Wanted | None:
    lower = word.lower()
    if lower == "latest":
        return Wanted(word)
    number = int(lower) if re.fullmatch(r"[0-9]{1,12}", lower) else None
    prefix = lower if re.fullmatch(rf"[0-9a-f]{{{LEAST_PREFIX},64}}", lower) else None
    if number is not None or prefix is not None:
        return Wanted(word, number=number, prefix=prefix)
    when = _time(lower, now_ns, zone)
    return None if when is None else Wanted(word, before_ns=when)


def _time(word: str, now_ns: int, zone: dt.tzinfo | None) -> int | None:
    now = dt.datetime.fromtimestamp(now_ns / 1e9, dt.UTC).astimezone(zone)
    if word in {"now", "today"}:
        return now_ns
    if word == "yesterday":
        return _end_of(now.date() - dt.timedelta(days=1), zone)
    if match := _AGO.fullmatch(word):
        return now_ns - int(match[1]) * _UNITS[match[2][0]] * 10**9
    try:
        if _DATE.fullmatch(word):
            return _end_of(dt.date.fromisoformat(word), zone)
        when = dt.datetime.fromisoformat(word.upper())
    except ValueError:
        return None
    try:
        # To the end of what was typed, be it a minute or a microsecond: the list shows whole seconds.
        least = 10**3 if "." in word else 10**9 if word.count(":") > 1 else 60 * 10**9
        return _ns(when if when.tzinfo else _local(when, zone)) + least - 1
    except (OverflowError, OSError):
        return None


def _end_of(day: dt.date, zone: dt.tzinfo | None) -> int:
    return _ns(_local(dt.datetime.combine(day + dt.timedelta(days=1), dt.time()), zone)) - 1


def _local(naive: dt.datetime, zone: dt.tzinfo | None) -> dt.datetime:
    return naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()


def _ns(when: dt.datetime) -> int:
    since = when - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
