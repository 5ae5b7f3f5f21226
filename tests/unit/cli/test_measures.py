"""Figures as people read them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.cli import measures

NOW = 1_700_000_000_123_456_789
SECOND = 10**9


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1234, "1.23 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (16 * 2**20, "16.8 MB"),
        (10**12, "1.00 TB"),
        (10**19, "10000 PB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert measures.size(count) == shown


@given(st.integers(0, 10**17))
def test_a_size_is_short_and_close(count: int) -> None:
    number, unit = measures.size(count).split()
    factor = 1000 ** ["B", "kB", "MB", "GB", "TB", "PB"].index(unit)
    assert len(number) <= 4
    assert abs(float(number) * factor - count) <= count * 0.0051


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (86400 * 4 + 3 * 3600 + 59, "4 d 3 h"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert measures.duration(seconds) == shown


@pytest.mark.parametrize(
    ("ago", "shown"),
    [
        (0, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7199, "1 hour ago"),
        (86400 * 2, "2 days ago"),
        (86400 * 65, "2 months ago"),
        (86400 * 800, "2 years ago"),
        (-59, "just now"),
        (-3600, "in the future"),
    ],
)
def test_age(ago: int, shown: str) -> None:
    assert measures.age(NOW - ago * SECOND, NOW) == shown


def test_moments() -> None:
    assert measures.stamp(NOW) == "2023-11-14T22:13:20.123456Z"
    assert measures.local_time(NOW, dt.timezone(dt.timedelta(hours=2))) == "2023-11-15 00:13:20"


@given(st.binary(max_size=30))
def test_a_printable_name_is_one_line_and_can_be_written(name: bytes) -> None:
    shown = measures.printable(name.replace(b"\0", b""))
    assert shown.isprintable() or not shown
    shown.encode()
