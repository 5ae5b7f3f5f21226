"""Which snapshots stay: rules one by one, and what holds of every history and policy."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatkeep.config.amounts import ALL, Amount, Duration
from chatkeep.config.model import Retention
from chatkeep.daemon.retention import DAY, Alarm, Candidate, Reason, SnapshotKey, Verdict, alarms, decide

HOUR = DAY // 24
NOW = int(dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC).timestamp()) * 10**9
OLD = b"o" * 16
NEW = b"n" * 16
NONE = Amount(0)
NOTHING = Retention(Duration(0), NONE, NONE, NONE, NONE, NONE, NONE)


def history(*clocks: int, stream: bytes = NEW) -> list[Candidate]:
    """Complete snapshots of a chain, the last of them the head."""
    times = itertools.accumulate(clocks, max)
    made = [
        Candidate(SnapshotKey(stream, seq), time, clock, complete=True)
        for seq, (time, clock) in enumerate(zip(times, clocks, strict=True), 1)
    ]
    return [*made[:-1], dataclasses.replace(made[-1], newest=True)] if stream == NEW else made


def policy(**rules: int) -> Retention:
    return with_(NOTHING, **{name: Amount(value) for name, value in rules.items()})


def with_(rules: Retention, **changed: Duration | Amount) -> Retention:
    return dataclasses.replace(rules, **changed)  # type: ignore[arg-type]


def kept(verdicts: Sequence[Verdict]) -> list[int]:
    return [one.candidate.key.seq for one in verdicts if one.kept]


def reasons(verdicts: Sequence[Verdict]) -> dict[int, set[Reason]]:
    return {one.candidate.key.seq: set(one.reasons) for one in verdicts}


def test_without_a_rule_the_newest_stays() -> None:
    found = decide(history(NOW - 3 * DAY, NOW - 2 * DAY), NOTHING, NOW)
    assert reasons(found) == {1: {Reason.THINNED}, 2: {Reason.NEWEST}}


def test_everything_of_the_last_day() -> None:
    rules = dataclasses.replace(NOTHING, everything_for=Duration(86_400))
    clocks = [NOW - 2 * DAY, NOW - DAY, NOW - DAY + 1, NOW - 1, NOW]
    assert kept(decide(history(*clocks), rules, NOW)) == [3, 4, 5]


@pytest.mark.parametrize(
    ("rule", "dates", "expected"),
    [
        ("hourly", ["23T09:10", "23T09:59", "23T10:00", "23T11:30"], [3, 4]),
        ("daily", ["20T09:10", "21T00:00", "21T23:59", "23T11:30"], [3, 4]),
        # 2026-11-22 is a Sunday.
        ("weekly", ["15T12:00", "16T00:00", "22T23:59", "23T00:00"], [3, 4]),
        ("monthly", ["01T00:00", "23T00:00", "23T01:00"], [3]),
    ],
)
def test_the_newest_of_each_of_the_last_two(rule: str, dates: list[str], expected: list[int]) -> None:
    clocks = [int(dt.datetime.fromisoformat(f"2026-11-{date}+00:00").timestamp()) * 10**9 for date in dates]
    assert kept(decide(history(*clocks), policy(**{rule: 2}), NOW)) == expected


def test_years_without_an_end() -> None:
    clocks = [NOW - years * 366 * DAY for years in range(9, -1, -1)]
    found = decide(history(*clocks), dataclasses.replace(NOTHING, yearly=ALL), NOW)
    assert kept(found) == list(range(1, 11))


def test_units_without_a_snapshot_do_not_count() -> None:
    """A device that was off for a year has its days still."""
    clocks = [NOW - 400 * DAY, NOW - 399 * DAY, NOW]
    assert kept(decide(history(*clocks), policy(daily=3), NOW)) == [1, 2, 3]


def test_a_complete_one_stands_for_its_hour_before_a_newer_incomplete_one() -> None:
    made = history(NOW - 3 * HOUR, NOW - 3 * HOUR + 1, NOW)
    made[1] = dataclasses.replace(made[1], complete=False)
    found = decide(made, policy(hourly=9), NOW)
    assert kept(found) == [1, 3]
    assert reasons(found)[2] == {Reason.INCOMPLETE}


def test_where_nothing_ever_is_complete_history_stays() -> None:
    """A file that never rests: else all but the head would go."""
    made = [dataclasses.replace(one, complete=False) for one in history(*(NOW - n * HOUR for n in range(20, -1, -1)))]
    assert kept(decide(made, policy(hourly=5), NOW)) == [17, 18, 19, 20, 21]
    assert kept(decide(made, policy(minimum=3), NOW)) == [19, 20, 21]


def test_incomplete_ones_cost_no_complete_one_its_place() -> None:
    made = history(*(NOW - n * DAY for n in (8, 7, 6, 2, 1, 0)))
    made[3:5] = [dataclasses.replace(one, complete=False) for one in made[3:5]]
    found = reasons(decide(made, policy(daily=4), NOW))
    assert {seq for seq, why in found.items() if Reason.DAILY in why} == {1, 2, 3, 4, 5, 6}


def test_a_week_prefers_few_layers_on_its_last_day() -> None:
    sunday = NOW - DAY
    made = history(sunday - 2 * DAY, sunday - HOUR, sunday, NOW)
    made[0] = dataclasses.replace(made[0], layers=1)
    made[1] = dataclasses.replace(made[1], layers=4)
    made[2] = dataclasses.replace(made[2], layers=60)
    found = reasons(decide(made, policy(weekly=5, daily=2), NOW))
    assert found[1] == {Reason.THINNED}
    assert found[2] == {Reason.WEEKLY}
    assert found[3] == {Reason.DAILY}


def test_what_not_every_provider_has_stays_and_stands_for_nothing() -> None:
    made = history(*(NOW - n * HOUR for n in (5, 4, 3, 2, 1, 0)))
    made[3:] = [dataclasses.replace(one, waiting=True) for one in made[3:]]
    found = reasons(decide(made, policy(hourly=2), NOW))
    assert found == {
        1: {Reason.THINNED},
        2: {Reason.HOURLY},
        3: {Reason.HOURLY},
        4: {Reason.WAITING},
        5: {Reason.WAITING},
        6: {Reason.WAITING, Reason.NEWEST},
    }


def test_a_clock_in_the_future_is_kept_and_moves_nothing() -> None:
    later = NOW + 4 * 365 * DAY
    made = history(NOW - 3 * HOUR, later, NOW - 2 * HOUR, NOW - HOUR)
    found = decide(made, policy(hourly=2), NOW)
    assert reasons(found) == {
        1: {Reason.THINNED},
        2: {Reason.CLOCK},
        3: {Reason.HOURLY},
        4: {Reason.HOURLY, Reason.NEWEST},
    }
    assert [one.time for one in found][2:] == [NOW - 2 * HOUR, NOW - HOUR]


def test_a_clock_that_was_set_back_makes_nothing_old() -> None:
    made = history(NOW - 2 * HOUR, NOW - 4000 * DAY, NOW - 4000 * DAY + 1)
    assert kept(decide(made, dataclasses.replace(NOTHING, everything_for=Duration(86_400)), NOW)) == [1, 2, 3]


def test_a_stream_that_ended_is_thinned_with_the_one_that_goes_on() -> None:
    ended = history(*(NOW - n * DAY for n in (9, 8, 7)), stream=OLD)
    made = [*ended, *history(NOW - 7 * DAY + 1, NOW)]
    found = decide(made, policy(daily=3), NOW)
    assert [(one.candidate.key.stream, one.candidate.key.seq) for one in found if one.kept] == [
        (OLD, 2),
        (NEW, 1),
        (NEW, 2),
    ]


# -- what holds always ------------------------------------------------------------------------------------------------


def invented(seed: int, streams: tuple[bytes, ...], *, steady: bool = False) -> list[Candidate]:
    """Streams of up to 40 snapshots. Clocks mostly forward, and, unless `steady`, sometimes years off."""
    dice = random.Random(seed)
    made: list[Candidate] = []
    for stream in streams:
        clock = NOW - dice.randrange(900) * DAY
        frontier = dice.randrange(40)
        clocks = []
        for _ in range(dice.randint(1, 40)):
            clock = min(clock + dice.choice((60, 3600, 7000, 86_400, 86_400 * 9)) * 10**9, NOW)
            wrong = not steady and dice.random() < 0.1
            clocks.append(clock + (dice.choice((3650 * 24, -3650 * 24, 26, 23)) * HOUR if wrong else 0))
        made += [
            dataclasses.replace(
                one,
                complete=dice.random() < 0.8,
                layers=dice.randint(1, 120),
                waiting=stream == NEW and one.key.seq > frontier,
            )
            for one in history(*clocks, stream=stream)
        ]
    return made


seeds = st.integers(0, 1 << 40)
shapes = st.sampled_from(((NEW,), (OLD, NEW)))
histories = st.builds(invented, seeds, shapes)
steady_histories = st.builds(invented, seeds, shapes, steady=st.just(True))
amounts = st.one_of(st.integers(0, 12).map(Amount), st.just(ALL))
policies = st.builds(
    Retention,
    everything_for=st.integers(0, 72).map(lambda hours: Duration(hours * 3600)),
    hourly=amounts,
    daily=amounts,
    weekly=amounts,
    monthly=amounts,
    yearly=amounts,
    minimum=amounts,
)


def keys(verdicts: Sequence[Verdict]) -> set[SnapshotKey]:
    return {one.candidate.key for one in verdicts if one.kept}


@settings(max_examples=150)
@given(histories, policies)
def test_the_head_stays_the_minimum_holds_and_each_has_a_reason(made: list[Candidate], rules: Retention) -> None:
    found = decide(made, rules, NOW)
    assert [one.candidate for one in found] == made
    assert found[-1].kept
    assert len(keys(found)) >= min(rules.minimum, len(made))
    assert all(one.reasons for one in found)
    assert all(one.kept for one in found if one.candidate.waiting)


@settings(max_examples=150)
@given(histories, policies)
def test_again_at_the_same_time_changes_nothing(made: list[Candidate], rules: Retention) -> None:
    left = [one.candidate for one in decide(made, rules, NOW) if one.kept]
    assert [one.candidate for one in decide(left, rules, NOW) if one.kept] == left


@settings(max_examples=150)
@given(histories, policies, st.sampled_from(sorted(Retention.__dataclass_fields__)), st.integers(1, 40))
def test_a_wider_policy_keeps_what_a_narrower_kept(
    made: list[Candidate], rules: Retention, name: str, more: int
) -> None:
    value = getattr(rules, name)
    wider = Duration(value + more * 3600) if isinstance(value, Duration) else Amount(min(value + more, ALL))
    assert keys(decide(made, rules, NOW)) <= keys(decide(made, with_(rules, **{name: wider}), NOW))


@settings(max_examples=150)
@given(steady_histories, policies, st.integers(0, 80))
def test_a_flood_of_clocks_in_the_future_evicts_nothing(made: list[Candidate], rules: Retention, at: int) -> None:
    """Also of those after it, whose chain time it spoils."""
    late = [NOW + 2 * DAY + number * 31 * DAY for number in range(60)]
    flood = [
        Candidate(SnapshotKey(NEW, 1000 + number), clock, clock, complete=True) for number, clock in enumerate(late)
    ]
    spoiled = [
        dataclasses.replace(one, time=late[-1]) if place >= at and one.key.stream == NEW else one
        for place, one in enumerate(made)
    ]
    before = {one.candidate.key: one.kept for one in decide(made, rules, NOW)}
    after = {one.candidate.key: one.kept for one in decide([*spoiled[:at], *flood, *spoiled[at:]], rules, NOW)}
    assert {key: after[key] for key in before} == before


@settings(max_examples=100)
@given(policies, st.integers(1, 30), st.integers(1, 200))
def test_a_flood_of_clocks_set_back_evicts_no_older_unit(rules: Retention, days: int, flood: int) -> None:
    """Clocks set back say nothing older than what was there: the flood stands for one moment at most."""
    good = history(*(NOW - n * DAY for n in range(days, 0, -1)))
    wrong = [
        Candidate(
            SnapshotKey(NEW, 1000 + number), good[-1].time, number * HOUR, complete=True, newest=number == flood - 1
        )
        for number in range(flood)
    ]
    before = keys(decide(good, dataclasses.replace(rules, minimum=NONE), NOW))
    after = keys(decide([*good, *wrong], dataclasses.replace(rules, minimum=NONE), NOW))
    # The last good one may be stood for by the last of the flood, which has its time.
    assert before - {good[-1].key} <= after


# -- the brake --------------------------------------------------------------------------------------------------------


def test_the_brake() -> None:
    found = decide(history(*(NOW - n * DAY for n in (5, 4, 3, 2))), policy(minimum=2), NOW)
    assert kept(found) == [3, 4]
    assert alarms(found, 50, 100, NOW) == []
    assert alarms(found, 51, 100, NOW) == [Alarm.MOST_BYTES]
    assert alarms(decide(history(*(NOW - n * DAY for n in (5, 4, 3))), NOTHING, NOW), 0, 100, NOW) == [
        Alarm.MOST_SNAPSHOTS
    ]
    found = decide(history(NOW - 3, NOW - 2, NOW - 1, NOW), policy(minimum=3), NOW)
    assert alarms(found, 0, 100, NOW) == [Alarm.LAST_DAY]
