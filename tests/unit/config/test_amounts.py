"""Durations and amounts: what is taken, what is refused and where, and what was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.config.amounts import ALL, LONGEST, NEVER, Amount, Duration, Every, at_least
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
    [
        *(("1 day", 86_400), ("36 hours", 129_600), ("90 minutes", 5_400), ("2 weeks", 1_209_600), ("0 days", 0)),
        *(("30 seconds", 30), ("1 second", 1), ("5s", 5), ("5min", 300), ("36h", 129_600), ("7d", 604_800)),
        *(("2w", 1_209_600), ("0s", 0)),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert retention(f"grace: {text}").grace == seconds
    assert Duration(seconds).ns == seconds * 10**9


def test_how_long_a_session_lasts() -> None:
    assert parse(HEAD, Path("c.yaml")).session.lock_after == 12 * 3600
    assert parse(f"{HEAD}session: {{lock_after: 1 minute}}\n", Path("c.yaml")).session.lock_after == 60


@given(st.integers(0, LONGEST // 60), st.sampled_from([1, 60]))
def test_what_a_duration_says_it_is(count: int, unit: int) -> None:
    assert Duration.parse(str(Duration(count * unit))) == count * unit
    assert Every.parse(str(Every(count * unit))) == count * unit


@given(st.integers(0, 200), st.sampled_from([" second", " seconds", " minute", " minutes", "s", "min", "h", " weeks"]))
def test_a_pattern_for_the_shortest_says_what_the_number_says(count: int, unit: str) -> None:
    """The schema can only be given a pattern: it must draw the line where the loader does."""
    value = Duration.parse(f"{count}{unit}")
    assert value is not None
    for least in (0, 1, 60):
        drawn = re.search(at_least(Duration(least)), f"{count}{unit}") is not None
        # "1 minutes" and "99 second" are understood, but only where no least is near is that worth a pattern.
        assert drawn is (value >= least) or (unit == " second" and least == 60)


def test_never_is_longer_than_anything() -> None:
    assert Every.parse("never") == NEVER > LONGEST
    assert (str(NEVER), type(NEVER)) == ("never", Every)
    assert Duration.parse("never") is None


@pytest.mark.parametrize(
    ("text", "size", "said"),
    [
        *(("20GB", 20 * 10**9, "20 GB"), ("20 GB", 20 * 10**9, "20 GB"), ("500MB", 500 * 10**6, "500 MB")),
        *(("1 TB", 10**12, "1 TB"), ("1500 MB", 1500 * 10**6, "1500 MB"), ("999999TB", 999_999 * 10**12, "999999 TB")),
    ],
)
def test_sizes(text: str, size: int, said: str) -> None:
    found = parse(f"{HEAD}outbox: {{limit: {text}}}\n", Path("c.yaml")).outbox.limit
    assert (found, str(found)) == (size, said)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *(("0 GB", ""), ("20", ""), ("20 gb", "20 GB"), ("20 GiB", "20 GB"), ("20G", "20 GB"), ("20  GB", "20 GB")),
        *(("1.5 TB", ""), ("-1 GB", ""), ("5 KB", ""), ("'٣ GB'", ""), ("1000000 TB", ""), ("all", "")),
    ],
)
def test_no_size(text: str, meant: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(f"{HEAD}outbox:\n  limit: {text}\n", Path("c.yaml"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.key, problem.reason) == (4, "outbox.limit", Reason.BAD_SIZE)
    assert problem.nearest == meant


@pytest.mark.parametrize(
    ("text", "share", "said"),
    [("1%", 0.01, "1%"), ("0.5%", 0.005, "0.5%"), ("100%", 1.0, "100%"), ("12.25%", 0.1225, "12.25%")],
)
def test_shares(text: str, share: float, said: str) -> None:
    found = parse(f"{HEAD}jobs: {{verify: {{sample: {text}}}}}\n", Path("c.yaml")).jobs.verify.sample
    assert float(found) == pytest.approx(share)
    assert str(found) == said


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *(("0%", ""), ("0.00%", ""), ("101%", ""), ("100.1%", ""), ("1", "1%"), ("0.5", "0.5%"), ("1 %", "1%")),
        *(("-1%", ""), ("one", ""), ("0.001%", "")),
    ],
)
def test_no_share(text: str, meant: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(f"{HEAD}jobs: {{verify: {{sample: {text}}}}}\n", Path("c.yaml"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.key, problem.reason) == (3, "jobs.verify.sample", Reason.BAD_SHARE)
    assert problem.nearest == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7", ""),
        ("1day", "1 day"),
        ("36 h", "36 hours"),
        ("36H", "36 hours"),
        ("6m", "6 minutes"),  # or months, to others: it is not guessed
        ("1min2s", ""),
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
