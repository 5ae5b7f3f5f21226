"""Sizes, times and names as people read them. Pure."""

from __future__ import annotations

import datetime as dt
import os
from typing import Final

_UNITS: Final = ("kB", "MB", "GB", "TB", "PB")
_SPANS: Final = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def size(count: int) -> str:
    """Bytes in decimal units with three digits: `0 B`, `999 B`, `1.23 kB`, `45.6 MB`."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1000
        digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
        if value < 999.5 or unit == _UNITS[-1]:
            return f"{value:.{digits}f} {unit}"
    raise AssertionError


def duration(seconds: float) -> str:
    """A span with at most two units: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, small, per in (("d", "h", 86400), ("h", "min", 3600), ("min", "s", 60)):
        if whole >= per:
            rest = whole % per // {"h": 3600, "min": 60, "s": 1}[small]
            return f"{whole // per} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number and what is counted: `1 file`, `12,345 files`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def age(then_ns: int, now_ns: int) -> str:
    """How long ago: `just now`, `3 minutes ago`, `2 days ago`; `in the future` when a clock was set back."""
    seconds = (now_ns - then_ns) // 10**9
    if seconds < -60:
        return "in the future"
    for span, unit in _SPANS:
        count = seconds // span
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def local_time(when_ns: int, zone: dt.tzinfo | None = None) -> str:
    """Date and time to the second in the zone of the reader (None: the system's)."""
    return _moment(when_ns).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def utc_minute(when_ns: int) -> str:
    """Date and time to the minute, for a name that is read in whichever zone."""
    return _moment(when_ns).strftime("%Y-%m-%d %H:%M UTC")


def stamp(when_ns: int) -> str:
    """Date and time for programs: RFC 3339, UTC, to the microsecond."""
    return _moment(when_ns).isoformat(timespec="microseconds").replace("+00:00", "Z")


def printable(name: str | bytes) -> str:
    """A name on one line. Whoever sends a file chooses its name: escape sequences in it would drive the terminal."""
    return "".join(ch if ch.isprintable() else _escaped(ch) for ch in os.fsdecode(name))


def _escaped(ch: str) -> str:
    if "\udc80" <= ch <= "\udcff":  # a byte that is no UTF-8, as Python carries it
        return f"\\x{ord(ch) - 0xDC00:02x}"
    return ch.encode("unicode_escape").decode()


def _moment(when_ns: int) -> dt.datetime:
    # Not through a float: those lose microseconds of today.
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return epoch + dt.timedelta(microseconds=when_ns // 1000)
