"""Durations and amounts: what is taken, what is refused and where, and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.config.amounts import ALL, LONGEST, Amount, Duration
from chatkeep.config.loader import parse
from chatkeep.config.model import Retention
from chatkeep.config.problems import ConfigInvalid, Reason

HEAD = "sources: [/a]\nproviders: [{name: d, type: folder, path: /m}]\n"


def retention(text: str) -> Retention:
    return parse(f"{HEAD}retention:\n  {text}\n", Path("c.yaml")).retention


def test_nothing_said() -> None:
    found = parse(HEAD, Path("c.yaml")).retention
    assert [str(getattr(found, name)) for name in Retention.__dataclass_fields__] == [
        *("1 day", "48", "30", "26", "24", "all", "24", "7 days")
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1 day", 86_400), ("36 hours", 129_600), ("90 minutes", 5_400), ("2 weeks", 1_209_600), ("0 days", 0)],
)
def test_durations(text: str, seconds: int) -> None:
    assert retention(f"grace: {text}").grace == seconds
    assert Duration(seconds).ns == seconds * 10**9


def test_how_long_a_session_lasts() -> None:
    assert parse(HEAD, Path("c.yaml")).session.lock_after == 12 * 3600
    assert parse(f"{HEAD}session: {{lock_after: 1 minute}}\n", Path("c.yaml")).session.lock_after == 60


@given(st.integers(0, LONGEST // 60))
def test_what_a_duration_says_it_is(minutes: int) -> None:
    assert Duration.parse(str(Duration(minutes * 60))) == minutes * 60


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7", ""),
        ("1day", "1 day"),
        ("36h", "36 hours"),
        ("36  hours", "36 hours"),
        ("2 weks", "2 weeks"),
        ("3 fortnights", ""),
        ("1 month", ""),
        ("1.5 days", ""),
        ("-1 days", ""),
        ("'٣ days'", ""),
        ("99999999 days", ""),
        ("9999999 weeks", ""),  # right, and too long: it is no help to suggest it once more
        ("9999999weeks", ""),
        ("a day", ""),
    ],
)
def test_no_duration(text: str, meant: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        retention(f"everything_for: {text}")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (4, 19, "retention.everything_for")
    assert problem.reason is Reason.BAD_DURATION
    assert problem.nearest == meant


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("48", 48), ("all", ALL), ("999999", 999_999)])
def test_amounts(text: str, number: int) -> None:
    found = retention(f"hourly: {text}").hourly
    assert (found, str(found)) == (number, text)


@pytest.mark.parametrize(("text", "meant"), [("-1", ""), ("1.5", ""), ("al", "all"), ("0x10", ""), ("1000000", "")])
def test_no_amount(text: str, meant: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        retention(f"hourly: {text}")
    (problem,) = caught.value.problems
    assert (problem.reason, problem.found, problem.nearest) == (Reason.BAD_AMOUNT, text, meant)


@pytest.mark.parametrize("text", ["true", "[1]", "{a: b}"])
def test_something_else(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        retention(f"hourly: {text}")
    assert caught.value.problems[0].reason is Reason.WRONG_TYPE


def test_a_wrong_key_gets_the_right_one() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        retention("houly: 3")
    assert caught.value.problems[0].nearest == "hourly"


def test_all_is_more_than_any_number() -> None:
    assert Amount(999_999) < ALL
