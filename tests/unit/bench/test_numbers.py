"""Medians, quantiles, sizes."""

from __future__ import annotations

import random

import pytest

from bench.numbers import median, parse_size, quantile, ratio, seconds, size


def test_quantile_is_a_value_that_was_measured() -> None:
    values = list(range(1, 101))
    random.shuffle(values)
    assert quantile(values, 0.99) == 99
    assert quantile(values, 0.5) == 50
    assert quantile(values, 1) == 100
    assert quantile(values, 0) == 1
    assert quantile([7], 0.99) == 7


def test_one_slow_commit_in_a_thousand_is_not_the_p99() -> None:
    assert quantile([1.0] * 999 + [500.0], 0.99) == 1.0
    assert quantile([1.0] * 985 + [500.0] * 15, 0.99) == 500.0


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1], -0.1), ([1], 1.1)])
def test_no_quantile(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r".+"):
        quantile(values, share)


def test_median() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    with pytest.raises(ValueError, match="no values"):
        median([])


@pytest.mark.parametrize(
    ("text", "count"),
    [("1GB", 10**9), ("1.5 gb", 1_500_000_000), ("100MB", 10**8), ("64KiB", 65536), ("7", 7), (" 2 MiB ", 2 << 20)],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "1 XB", "-1MB", "1..5MB", "1 0MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_900, "1.00 MB"),
        (540_000, "540 kB"),
        (1_063_964_672, "1.06 GB"),
        (2e12, "2.00 TB"),
    ],
)
def test_sizes_are_shown(count: float, shown: str) -> None:
    assert size(count) == shown


def test_seconds_and_ratios() -> None:
    assert [seconds(0.0154), seconds(3.14159), seconds(27.04)] == ["0.015", "3.14", "27.0"]
    assert ratio(1.3456) == "1.35 x"
