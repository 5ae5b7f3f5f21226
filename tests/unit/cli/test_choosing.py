"""What SNAP means, word by word."""

from __future__ import annotations

import datetime as dt

import pytest

from chatkeep.daemon.cli.choosing import Wanted, understand

ZONE = dt.timezone(dt.timedelta(hours=2))
NOW = int(dt.datetime(2026, 3, 10, 15, 30, tzinfo=ZONE).timestamp()) * 10**9


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """That moment in the zone, in ns."""
    return int(dt.datetime(year, month, day, hour, minute, second, tzinfo=ZONE).timestamp()) * 10**9


def meant(text: str) -> Wanted:
    found = understand(text, NOW, ZONE)
    assert found is not None
    assert found.text == text
    return found


@pytest.mark.parametrize("text", ["latest", "LATEST", " latest "])
def test_latest(text: str) -> None:
    assert meant(text) == Wanted(text)


def test_numbers_and_ids() -> None:
    assert meant("7") == Wanted("7", number=7)
    assert meant("1234") == Wanted("1234", number=1234, prefix="1234")  # it can be both
    assert meant("DEADBEEF") == Wanted("DEADBEEF", prefix="deadbeef")
    assert meant("a" * 64).prefix == "a" * 64
    assert understand("abc", NOW, ZONE) is None  # too short to be an id
    assert understand("a" * 65, NOW, ZONE) is None
    assert understand("\u0661\u0662", NOW, ZONE) is None  # digits of another script


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("now", NOW),
        ("today", NOW),
        ("yesterday", at(2026, 3, 10) - 1),
        ("2026-03-01", at(2026, 3, 2) - 1),
        ("2026-03-01T18:30", at(2026, 3, 1, 18, 31) - 1),
        ("2026-03-01 18:30:15", at(2026, 3, 1, 18, 30, 16) - 1),
        ("2026-03-01T16:30:15Z", at(2026, 3, 1, 18, 30, 16) - 1),
        ("2026-03-01T16:30:15.000001Z", at(2026, 3, 1, 18, 30, 15) + 1999),
        ("3 days ago", NOW - 3 * 86400 * 10**9),
        ("90 min", NOW - 90 * 60 * 10**9),
        ("2w", NOW - 14 * 86400 * 10**9),
        ("1 hour ago", NOW - 3600 * 10**9),
    ],
)
def test_times(text: str, last: int) -> None:
    assert meant(text).before_ns == last


def test_the_source_before_a_colon() -> None:
    assert meant("chat:latest") == Wanted("chat:latest", source="chat")
    assert meant("chat:2026-03-01T18:30").source == "chat"
    assert meant("a:b:7") == Wanted("a:b:7", source="a:b", number=7)
    assert meant("chat@host:12").source == "chat@host"


@pytest.mark.parametrize(
    "text", ["", ":", ":7", "chat:", "lates", "2026-13-01", "2026-02-30", "-1", "chat:x", "9999999 d"]
)
def test_what_means_nothing(text: str) -> None:
    assert understand(text, NOW, ZONE) is None


def test_a_day_of_23_hours_ends_where_the_next_begins() -> None:
    from zoneinfo import ZoneInfo

    berlin = ZoneInfo("Europe/Berlin")
    found = understand("2026-03-29", NOW, berlin)  # clocks go forward in that night
    assert found is not None
    assert found.before_ns == int(dt.datetime(2026, 3, 30, tzinfo=berlin).timestamp()) * 10**9 - 1
