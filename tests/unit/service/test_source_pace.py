"""When a source is due: examples, and a simulated conductor that does what the pace says, at random."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.service.pace import Pace, PaceSettings

SETTINGS = PaceSettings(quiet=2, max_delay=30, min_interval=60, compare_every=3600)


def started(settings: PaceSettings = SETTINGS, now: float = 0.0) -> Pace:
    """A pace whose first comparison began at `now` and took no time."""
    pace = Pace(settings, now)
    pace.began(now)
    pace.ended(now)
    return pace


def test_a_comparison_is_due_at_the_start() -> None:
    pace = Pace(SETTINGS, 100.0)
    assert pace.due_at == 100.0


def test_then_one_is_due_when_its_time_has_come() -> None:
    pace = started(now=100.0)
    assert pace.due_at == 3700.0


def test_a_hint_waits_for_quiet() -> None:
    pace = started()
    pace.hint(1000.0)
    assert pace.due_at == 1002.0
    pace.hint(1001.5)
    assert pace.due_at == 1003.5


def test_hints_without_end_do_not_wait_longer_than_the_maximum() -> None:
    pace = started()
    for second in range(1000, 1040):
        pace.hint(float(second))
    assert pace.due_at == 1030.0


def test_two_snapshots_do_not_begin_closer_than_the_interval() -> None:
    pace = started(now=100.0)
    pace.hint(101.0)
    assert pace.due_at == 160.0
    pace.began(160.0)
    pace.hint(161.0)
    pace.ended(165.0)
    assert pace.due_at == 220.0


def test_while_one_runs_none_is_due() -> None:
    pace = started()
    pace.began(1000.0)
    pace.hint(1001.0)
    assert pace.due_at is None
    assert pace.running
    pace.ended(5000.0)
    assert pace.due_at == 1060.0  # long ago: at once


def test_a_hint_during_a_snapshot_stays_open_and_one_before_it_does_not() -> None:
    pace = started()
    pace.hint(1000.0)
    pace.began(1002.0)
    assert pace.open_since is None
    pace.hint(1003.0)
    pace.ended(1004.0)
    assert pace.open_since == 1003.0


def test_after_sleep_a_comparison_is_due_at_once() -> None:
    pace = started()
    pace.resumed(1000.0)
    assert pace.due_at == 1000.0


def test_after_sleep_the_interval_still_holds() -> None:
    pace = started(now=990.0)
    pace.resumed(1000.0)
    assert pace.due_at == 1050.0


def test_a_snapshot_that_a_hint_brought_about_is_a_comparison_and_puts_the_next_off() -> None:
    pace = started()
    pace.hint(1000.0)
    pace.began(1002.0)
    pace.ended(1003.0)
    assert pace.due_at == 4602.0


def test_other_numbers_hold_for_what_is_open() -> None:
    pace = started()
    pace.hint(1000.0)
    pace.change(PaceSettings(quiet=10, max_delay=20, min_interval=0, compare_every=60), 1001.0)
    assert pace.due_at == 1010.0
    pace.began(1010.0)
    pace.ended(1010.0)
    assert pace.due_at == 1070.0


def test_a_clock_that_comes_late_moves_nothing_back() -> None:
    pace = started(now=100.0)
    pace.hint(50.0)
    assert pace.open_since == 100.0
    pace.began(90.0)
    pace.ended(91.0)
    pace.hint(92.0)
    assert pace.due_at == 160.0


# A conductor that obeys.

seconds = st.integers(0, 400).map(lambda tenths: tenths / 10)
settings_of_all_kinds = st.builds(
    PaceSettings,
    quiet=seconds,
    max_delay=seconds,
    min_interval=seconds,
    compare_every=st.integers(10, 4000).map(lambda tenths: tenths / 10),
)
acts = st.lists(
    st.tuples(
        st.sampled_from(["hint", "hint", "hint", "resumed", "asked"]),
        st.integers(0, 600).map(lambda tenths: tenths / 10),  # after the act before it
    ),
    max_size=40,
)
durations = st.lists(st.integers(0, 900).map(lambda tenths: tenths / 10), min_size=1, max_size=6)


@dataclass
class Simulation:
    """Begins a snapshot exactly when it is due; each takes the next duration. Notes what happened when."""

    pace: Pace
    durations: list[float]
    now: float = 0.0
    ends_at: float | None = None
    begun: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    asked: set[float] = field(default_factory=set)

    def until(self, then: float) -> None:
        while True:
            due = self.pace.due_at if self.ends_at is None else self.ends_at
            assert due is not None
            if due > then:
                break
            self.now = max(self.now, due)
            if self.ends_at is None:
                self.begin()
            else:
                self.pace.ended(self.now)
                self.ended.append(self.now)
                self.ends_at = None
        self.now = then

    def begin(self) -> None:
        self.pace.began(self.now)
        self.begun.append(self.now)
        # never nothing: with min_interval 0 and compare_every > 0 time must pass all the same
        self.ends_at = self.now + self.durations[len(self.begun) % len(self.durations)]

    def free_from(self, moment: float) -> float:
        """When the snapshot that runs at `moment` has ended; `moment` when none does."""
        for begin, end in zip(self.begun, self.ended, strict=False):
            if begin <= moment < end:
                return end
        return moment


@given(settings_of_all_kinds, acts, durations)
def test_every_promise_holds_whatever_happens(
    settings: PaceSettings, wanted: list[tuple[str, float]], lasting: list[float]
) -> None:
    run = Simulation(Pace(settings, 0.0), lasting)
    hints: list[float] = []
    run.until(0.0)
    for act, after in wanted:
        run.until(run.now + after)
        if act == "hint":
            run.pace.hint(run.now)
            hints.append(run.now)
        elif act == "resumed":
            run.pace.resumed(run.now)
            hints.append(run.now)
        elif run.ends_at is None:  # a person asks for one
            run.begin()
            run.asked.add(run.now)
    run.until(run.now + 2 * (settings.max_delay + settings.min_interval + max(lasting)) + 1)

    assert run.begun[0] == 0.0  # a comparison at the start
    for before, after in zip(run.begun, run.begun[1:], strict=False):
        assert after in run.asked or after >= before + settings.min_interval
    for moment in hints:
        answered = min(begin for begin in run.begun if begin >= moment)
        last = max((begin for begin in run.begun if begin < answered), default=0.0)
        latest = max(moment + settings.max_delay, last + settings.min_interval, run.free_from(moment))
        # one that runs when the answer is due is waited for, and min_interval counts from its beginning
        latest = max(latest, run.free_from(latest), run.free_from(last))
        assert answered <= latest + 1e-6, (moment, answered, run.begun)
    for before, after in zip(run.begun, run.begun[1:], strict=False):
        slack = max(settings.min_interval, max(lasting))
        assert after - before <= settings.compare_every + slack + 1e-6


@given(settings_of_all_kinds, st.lists(seconds, min_size=1, max_size=20))
def test_quiet_is_respected_until_the_maximum(settings: PaceSettings, gaps: list[float]) -> None:
    pace = Pace(PaceSettings(settings.quiet, settings.max_delay, 0.0, 1e9), 0.0)
    pace.began(0.0)
    pace.ended(0.0)
    now, first = 0.0, None
    for gap in gaps:
        now += gap
        first = now if first is None else first
        pace.hint(now)
        assert pace.due_at == min(now + settings.quiet, first + settings.max_delay)
