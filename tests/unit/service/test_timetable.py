"""When jobs are due: by intervals alone, whatever the wall clock does, whatever became of earlier runs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.config.amounts import NEVER, Every
from chatkeep.daemon.service.job_notes import JobNote, JobResult, Outcome
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.timetable import AGAIN, FIRST, RETRY_FIRST, Timetable

DAY = Every(86_400)
WALL = 1_800_000_000 * 10**9
YEAR = 365.25 * 86_400
GOOD = JobResult(Outcome.GOOD)


class Clock:
    """Both clocks, the wall one set by whom it pleases."""

    def __init__(self) -> None:
        self.wall, self.boot = float(WALL // 10**9), 1000.0

    def __call__(self) -> Moment:
        return Moment(int(self.wall) * 10**9, self.boot)

    def on(self, seconds: float) -> Moment:
        self.wall += seconds
        self.boot += seconds
        return self()


def wake(table: Timetable) -> float | None:
    return table.wake_at


def last_ran(ago: float, now: Moment) -> JobNote:
    return JobNote(counts_ns=now.wall_ns - int(ago * 1e9), last_ns=now.wall_ns - int(ago * 1e9))


def test_one_that_never_ran_does_so_soon_and_not_at_once() -> None:
    clock = Clock()
    table = Timetable({"verify": DAY, "quick": Every(60)}, {}, clock())
    assert table.due(clock()) == ()
    assert table.wake_at == clock.boot + 60
    assert table.due(clock.on(FIRST)) == ("quick", "verify")


def test_it_is_told_once_until_it_ended() -> None:
    clock = Clock()
    table = Timetable({"verify": DAY}, {"verify": last_ran(86_400, clock())}, clock())
    assert table.due(clock()) == ("verify",)
    assert table.due(clock.on(10 * 86_400)) == ()
    assert table.wake_at is None
    assert table.next_at("verify") == 1000.0
    note = table.ended("verify", GOOD, 12.5, clock())
    assert note is not None
    assert (note.last_ns, note.good_ns, note.seconds, note.failures) == (clock().wall_ns, clock().wall_ns, 12.5, 0)
    assert table.due(clock.on(86_399)) == ()
    assert table.due(clock.on(1)) == ("verify",)


def test_the_one_that_waited_longest_comes_first() -> None:
    clock = Clock()
    notes = {name: last_ran(ago, clock()) for name, ago in (("a", 90_000), ("b", 400_000), ("c", 86_401))}
    assert Timetable(dict.fromkeys(notes, DAY), notes, clock()).due(clock()) == ("b", "a", "c")


def test_never_is_never() -> None:
    clock = Clock()
    table = Timetable({"prune": NEVER}, {"prune": last_ran(1e9, clock())}, clock())
    assert (table.wake_at, table.next_at("prune")) == (None, None)
    assert table.due(clock.on(1e9)) == ()
    table.ended("prune", JobResult(Outcome.FAILED, "x"), 1.0, clock())  # that a person asked for
    assert table.due(clock.on(1e9)) == ()


@pytest.mark.parametrize("jump", [3600.0, -3600.0, YEAR, -YEAR, 30 * YEAR, -30 * YEAR])
def test_the_wall_clock_is_set_while_it_runs(jump: float) -> None:
    clock = Clock()
    table = Timetable({"verify": DAY}, {"verify": last_ran(0, clock())}, clock())
    clock.on(40_000)
    clock.wall += jump
    assert table.due(clock()) == ()
    assert table.due(clock.on(46_399)) == ()
    assert table.due(clock.on(1)) == ("verify",)


@pytest.mark.parametrize("jump", [-2 * YEAR, -3600.0, 3600.0, 2 * YEAR])
def test_the_next_daemon_counts_as_this_one_did(jump: float) -> None:
    clock = Clock()
    before = last_ran(40_000, clock())
    table = Timetable({"verify": DAY}, {"verify": before}, clock())
    assert not table.settle(clock.on(59))
    clock.wall += jump
    assert table.settle(clock())
    assert not table.settle(clock())
    after = Timetable({"verify": DAY}, table.notes, clock())
    assert after.wake_at == pytest.approx(table.wake_at)
    assert table.notes["verify"].last_ns == before.last_ns, "what is shown is what the clock was"


@pytest.mark.parametrize("ahead", [3600.0, YEAR, 30 * YEAR])
def test_a_last_run_in_the_future_is_not_waited_for(ahead: float) -> None:
    """Also not when the machine runs for an hour a day: what counts is noted anew at the first start."""
    clock = Clock()
    notes = {"verify": last_ran(-ahead, clock())}
    days = list[tuple[str, ...]]()
    for _ in range(3):
        table = Timetable({"verify": DAY}, notes, clock())
        notes = dict(table.notes)
        days.append(table.due(clock()))
        clock.on(3600)
        clock.on(12 * 3600)  # switched off
        clock.boot = 30.0
    assert days == [(), (), ("verify",)]


def test_a_clock_that_was_behind_makes_it_early_and_not_late() -> None:
    clock = Clock()
    assert Timetable({"verify": DAY}, {"verify": last_ran(50 * YEAR, clock())}, clock()).due(clock()) == ("verify",)


def test_a_daemon_that_never_runs_for_long_comes_to_it_all_the_same() -> None:
    clock, notes = Clock(), dict[str, JobNote]()
    starts = list[tuple[str, ...]]()
    for _ in range(4):
        table = Timetable({"verify": DAY}, notes, clock())
        starts.append(table.due(clock.on(150)))
        notes = dict(table.notes)
    assert starts == [(), (), (), ("verify",)]


def test_one_that_failed_is_tried_again_later_and_later() -> None:
    clock = Clock()
    table = Timetable({"verify": DAY}, {"verify": last_ran(86_400, clock())}, clock())
    waits = []
    for count in range(1, 12):
        assert table.due(clock()) == ("verify",)
        note = table.ended("verify", JobResult(Outcome.FAILED, "unavailable"), 1.0, clock())
        assert note is not None
        assert (note.failures, note.code, note.good_ns) == (count, "unavailable", None)
        # The note alone says the same to the next daemon.
        again = Timetable({"verify": DAY}, {"verify": note}, clock())
        assert table.wake_at is not None
        assert again.wake_at == pytest.approx(table.wake_at, abs=1e-3)
        waits.append(table.wake_at - clock.boot)
        clock.on(waits[-1])
    assert waits[:4] == [RETRY_FIRST * 2**n for n in range(4)]
    assert set(waits[7:]) == {DAY}
    table.due(clock())
    assert table.ended("verify", GOOD, 1.0, clock()) is not None
    assert table.wake_at == clock.boot + DAY


def test_one_that_was_put_off_is_due_again_and_did_not_run() -> None:
    clock = Clock()
    before = last_ran(86_400, clock())
    table = Timetable({"drill": DAY}, {"drill": before}, clock())
    for _ in range(20):
        assert table.due(clock()) == ("drill",)
        assert table.ended("drill", JobResult(Outcome.PUT_OFF, "vault-locked"), 1.0, clock()) == before
        assert table.due(clock.on(AGAIN - 1)) == ()
        clock.on(1)
    assert Timetable({"drill": DAY}, table.notes, clock()).due(clock()) == ("drill",)


def test_one_that_was_asked_for_and_put_off_keeps_its_time() -> None:
    clock = Clock()
    table = Timetable({"drill": DAY}, {"drill": last_ran(0, clock())}, clock())
    table.ended("drill", JobResult(Outcome.PUT_OFF), 1.0, clock())
    assert table.wake_at == clock.boot + DAY


def test_one_that_was_asked_for_counts() -> None:
    clock = Clock()
    table = Timetable({"verify": DAY}, {"verify": last_ran(0, clock())}, clock())
    clock.on(40_000)
    table.ended("verify", GOOD, 1.0, clock())
    assert table.wake_at == clock.boot + DAY
    assert table.ended("no-such-job", GOOD, 1.0, clock()) is None


def test_which_providers_were_looked_at() -> None:
    clock = Clock()
    table = Timetable({"verify": DAY}, {}, clock())
    first = clock().wall_ns
    table.ended("verify", JobResult(Outcome.GOOD, checked=("a", "b")), 1.0, clock())
    note = table.ended("verify", JobResult(Outcome.FAILED, "unavailable", checked=("b",)), 1.0, clock.on(500))
    assert note is not None
    assert note.checked_ns == {"a": first, "b": first + 500 * 10**9}
    assert note.good_ns == first


def test_other_intervals() -> None:
    clock = Clock()
    table = Timetable({"verify": DAY, "drill": DAY}, {}, clock())
    table.ended("verify", GOOD, 1.0, clock())
    clock.on(7200)
    table.change({"verify": Every(3600), "prune": Every(600)}, clock())
    assert table.due(clock()) == ("verify",)
    assert table.next_at("drill") is None
    table.change({"verify": NEVER}, clock())
    assert wake(table) is None
    table.change({"verify": DAY}, clock())
    assert wake(table) == clock.boot - 7200 + DAY
    assert set(table.notes) == {"verify"}


def test_what_was_told_is_told_again_if_it_is_due_by_other_intervals() -> None:
    clock = Clock()
    notes = {name: last_ran(2 * DAY, clock()) for name in ("same", "longer", "never")}
    table = Timetable(dict.fromkeys(notes, DAY), notes, clock())
    assert set(table.due(clock())) == set(notes)
    table.change({"same": DAY, "longer": Every(3 * DAY), "never": NEVER}, clock())
    assert table.due(clock()) == ("same",)
    assert table.due(clock.on(DAY)) == ("longer",)


@given(st.integers(0, 2**32))
def test_no_job_is_missed_for_good(seed: int) -> None:
    """Restarts, runs that fail, are put off or overrun, a wall clock that jumps: of every three intervals in which the
    daemon ran, one has a run that was begun."""
    chance = random.Random(seed)
    clock, notes = Clock(), dict[str, JobNote]()
    table, ran, up = Timetable({"job": DAY}, {}, clock()), 0.0, 0.0
    for _ in range(300):
        step = chance.choice([10.0, 600.0, 3600.0, 20_000.0])
        before = table.wake_at
        clock.on(step)
        up += step
        if chance.random() < 0.2:
            clock.wall += chance.choice([3600.0, -3600.0, 2 * YEAR, -2 * YEAR])
        if table.due(clock()):
            assert before is not None
            ran = up
            outcome = chance.choice(list(Outcome))
            table.ended("job", JobResult(outcome), 1.0, clock.on(chance.choice([1.0, 5000.0])))
        assert up - ran < 3 * DAY
        table.settle(clock())
        if chance.random() < 0.1:
            notes = dict(table.notes)
            table = Timetable({"job": DAY}, notes, clock())
