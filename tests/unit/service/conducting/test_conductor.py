"""What the daemon does next, decision by decision, with a clock that the test sets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest

from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.actions import (
    Action,
    HandOver,
    Publish,
    RunJob,
    StopUpload,
    StopWork,
    TakeSnapshot,
    Upload,
)
from chatkeep.daemon.service.conducting.conductor import ROOM_AGAIN, Conductor, JobTerms, Settings
from chatkeep.daemon.service.conducting.inputs import How, Input
from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.pace import PaceSettings

PACE = PaceSettings(quiet=2, max_delay=30, min_interval=60, compare_every=21600)
JOBS = {
    "verify": JobTerms(inside=True),
    "drill": JobTerms(session=True),
    "prune": JobTerms(session=True),
    "compare": JobTerms(compares=True),
}
OPEN, HELD = inputs.Gate(uploads=True, session=True), inputs.Gate(uploads=False, session=False)
LOCKED_OPEN = inputs.Gate(uploads=True, session=False)


class Play:
    """A conductor and a clock."""

    def __init__(self, sources: Iterable[str] = ("chat",), providers: Iterable[str] = ("disk",), **more: int) -> None:
        self.at = 1000.0
        settings = Settings(dict.fromkeys(sources, PACE), tuple(providers), JOBS, **more)
        self.conductor = Conductor(settings, self.now, random.Random(1))

    @property
    def now(self) -> Moment:
        return Moment(int(self.at * 1e9), self.at)

    def take(self, *said: Input) -> list[Action]:
        """Everything at this instant."""
        return [action for one in said for action in self.conductor.take(one, self.now)]

    def wait(self, seconds: float) -> list[tuple[float, Action]]:
        """Lets time pass, waking whenever the conductor wants it: when what was begun."""
        end, done = self.at + seconds, []
        while (wake := self.conductor.wake_at) is not None and wake <= end:
            assert wake > self.at, "woken for nothing"
            self.at = wake
            done += [(self.at, action) for action in self.take(inputs.Tick())]
        self.at = end
        return done

    def settled(self) -> Play:
        """The first comparison is over, and nothing waits."""
        for action in self.take(inputs.Tick()):
            assert isinstance(action, TakeSnapshot)
            self.take(inputs.SnapshotEnded(action.source, How.NOTHING))
        self.wait(3600)
        return self


def test_every_source_is_compared_at_the_start() -> None:
    play = Play(("a", "b"))
    assert play.take(inputs.Tick()) == [TakeSnapshot("a"), TakeSnapshot("b")]


def test_a_hint_leads_to_a_snapshot_after_the_quiet_period() -> None:
    play = Play().settled()
    begun = play.at
    assert play.take(inputs.Hint("chat")) == []
    assert play.wait(10) == [(begun + PACE.quiet, TakeSnapshot("chat"))]


def test_a_hint_during_a_snapshot_leads_to_another_one() -> None:
    play = Play()
    play.take(HELD, inputs.Tick())
    play.wait(100)
    assert play.take(inputs.Hint("chat")) == []
    assert play.wait(100) == []  # it runs
    assert play.take(inputs.SnapshotEnded("chat", How.MADE, 1)) == [TakeSnapshot("chat"), Publish(Kind.HELD)]


def test_what_is_not_known_is_ignored() -> None:
    play = Play().settled()
    told = (inputs.Hint("x"), inputs.Back("x"), inputs.Asked("x"), inputs.JobDue("x"))
    assert play.take(*told, inputs.Waiting("x", 5), inputs.UploadEnded("x", done=True)) == []
    assert [action for _, action in play.wait(6 * 3600)] == [TakeSnapshot("chat")]  # its time has come


def test_so_many_at_once_and_who_waits_longest_is_next() -> None:
    play = Play(("a", "b", "c"), at_once=1)
    assert play.take(inputs.Tick()) == [TakeSnapshot("a")]
    play.wait(200)
    play.take(inputs.Hint("a"))
    assert play.conductor.wake_at is None  # only an end can make room
    assert play.take(inputs.SnapshotEnded("a", How.NOTHING)) == [TakeSnapshot("b")]
    assert play.take(inputs.SnapshotEnded("b", How.NOTHING)) == [TakeSnapshot("c")]
    play.wait(10)
    assert play.take(inputs.SnapshotEnded("c", How.NOTHING)) == [TakeSnapshot("a")]


def test_asked_means_now() -> None:
    play = Play().settled()
    assert play.take(inputs.Asked("chat")) == [TakeSnapshot("chat")]
    assert play.take(inputs.Asked("chat")) == []  # one that runs began before
    assert play.take(inputs.SnapshotEnded("chat", How.NOTHING)) == [TakeSnapshot("chat")]


def test_a_failed_snapshot_is_tried_again_by_itself_ever_more_rarely() -> None:
    play = Play()
    play.take(inputs.Tick())
    attempts = []
    for _ in range(400):
        assert play.take(inputs.SnapshotEnded("chat", How.FAILED)) == []
        ((at, action),) = play.wait(play.conductor.wake_at - play.at)  # type: ignore[operator]
        assert action == TakeSnapshot("chat")
        attempts.append(at)
    gaps = [after - before for before, after in itertools.pairwise(attempts)]
    assert min(gaps) >= 5
    assert max(gaps) <= 900
    assert sum(gaps[20:]) / len(gaps[20:]) > 300, "a source that is away for a week must cost little"


def test_changes_do_not_hurry_a_source_that_fails_but_its_return_does() -> None:
    play = Play()
    play.take(inputs.Tick())
    for _ in range(12):
        play.wait(1)
        play.take(inputs.SnapshotEnded("chat", How.FAILED))
        while not play.take(inputs.Tick()):
            play.at = play.conductor.wake_at or 0
    play.wait(200)
    play.take(inputs.SnapshotEnded("chat", How.FAILED))
    later = play.conductor.wake_at
    assert later is not None
    play.take(inputs.Hint("chat"))
    assert play.conductor.wake_at == later
    play.take(inputs.Back("chat"))
    assert play.conductor.wake_at == min(later, play.at + 5)


def test_uploads_wait_for_the_gate_and_that_is_told_once() -> None:
    play = Play()
    play.take(HELD, inputs.Tick())
    assert play.take(inputs.SnapshotEnded("chat", How.MADE, 2)) == [Publish(Kind.HELD)]
    assert play.take(inputs.Waiting("disk", 5)) == []
    assert play.take(OPEN) == [Upload("disk")]
    play.take(inputs.UploadEnded("disk", done=True))
    play.take(HELD)
    assert play.take(inputs.Waiting("disk", 5)) == [Publish(Kind.HELD)]


@pytest.mark.parametrize(("gate", "then"), [(HELD, Publish(Kind.HELD)), (OPEN, Upload("disk"))])
def test_nothing_is_called_held_before_anybody_told_of_the_gate(gate: inputs.Gate, then: Action) -> None:
    play = Play()
    play.take(inputs.Tick())
    assert play.take(inputs.Waiting("disk", 5)) == []
    assert play.take(gate) == [then]


def test_held_is_what_waits_while_uploads_are_closed() -> None:
    def held(play: Play) -> bool:
        return play.conductor.is_held

    play = Play()
    assert not held(play)
    play.take(inputs.Waiting("disk", 5))
    assert held(play)
    play.take(OPEN)
    assert not held(play)


def test_a_gate_that_closes_ends_what_runs_and_it_goes_on_when_it_opens() -> None:
    play = Play(providers=("disk", "cloud"))
    play.take(OPEN, inputs.Tick(), inputs.Waiting("disk", 5))
    assert play.take(HELD) == [StopUpload("disk"), Publish(Kind.HELD)]
    assert play.take(inputs.UploadEnded("disk", done=False, stopped=True)) == []
    assert play.take(OPEN) == [Upload("disk")]


def test_a_session_that_ends_while_uploads_may_go_on_stops_nothing() -> None:
    play = Play()
    play.take(OPEN, inputs.Tick(), inputs.Waiting("disk", 5))
    assert play.take(LOCKED_OPEN) == []


def test_nothing_waits_so_no_provider_is_asked() -> None:
    play = Play(providers=("disk", "cloud")).settled()
    play.take(OPEN)
    for _, action in play.wait(48 * 3600):
        assert isinstance(action, TakeSnapshot), action
        play.take(inputs.SnapshotEnded(action.source, How.NOTHING))


def test_what_came_during_an_upload_is_sent_after_it() -> None:
    play = Play()
    play.take(OPEN, inputs.Tick())
    assert play.take(inputs.Waiting("disk", 9)) == [Upload("disk")]
    assert play.take(inputs.SnapshotEnded("chat", How.MADE, 1)) == []
    assert play.take(inputs.UploadEnded("disk", done=True, moved=True)) == [Upload("disk")]
    assert play.take(inputs.UploadEnded("disk", done=True, moved=True)) == []


def test_one_provider_that_is_away_keeps_no_other() -> None:
    play = Play(providers=("disk", "cloud"))
    play.take(OPEN, inputs.Tick())
    made = inputs.SnapshotEnded("chat", How.MADE, 1)
    assert play.take(made) == [Upload("disk"), Upload("cloud")]
    assert play.take(inputs.UploadEnded("cloud", done=False), inputs.UploadEnded("disk", done=True)) == []
    play.take(inputs.Asked("chat"))
    assert play.take(made) == [Upload("disk")]


def test_a_provider_that_comes_back_is_told_and_found_by_itself() -> None:
    play = Play()
    play.take(OPEN, inputs.Tick(), inputs.Waiting("disk", 9))
    tries = 0
    for _ in range(40):
        play.take(inputs.UploadEnded("disk", done=False))
        again = play.conductor.next_try("disk")
        assert again is not None
        assert 5 <= again - play.at <= 900
        assert (again, Upload("disk")) in play.wait(again - play.at)
        tries += 1
    assert tries == 40
    assert play.take(inputs.UploadEnded("disk", done=True)) == [Publish(Kind.PROVIDER_BACK, {"provider": "disk"})]


def test_reasons_to_hurry_shorten_a_wait_but_make_no_tight_loop() -> None:
    play = Play()
    play.take(OPEN, inputs.Tick(), inputs.Waiting("disk", 9))
    begun = 0
    end = play.at + 3600
    while play.at < end:
        play.take(inputs.UploadEnded("disk", done=False))
        while Upload("disk") not in play.take(inputs.Resumed(), HELD, OPEN, inputs.Asked("chat")):
            play.at += 1
        begun += 1
    assert 200 <= begun <= 3600 / 15 + 5  # every 15 s but for the first waits; they alone would soon be minutes


def test_a_full_outbox_stops_snapshots_until_there_is_room() -> None:
    play = Play(("a", "b"))
    play.take(OPEN, inputs.Tick(), inputs.SnapshotEnded("b", How.NOTHING))
    full = play.take(inputs.SnapshotEnded("a", How.FULL, 3))
    assert full == [Publish(Kind.OUTBOX_FULL), Upload("disk")]
    play.wait(ROOM_AGAIN - 1)
    assert play.take(inputs.Hint("b"), inputs.Asked("b"), inputs.Room(free=False)) == []
    play.wait(ROOM_AGAIN - 1)
    free = play.take(inputs.Room(free=True))
    assert free[0] == Publish(Kind.OUTBOX_FREED)
    assert set(free[1:]) == {TakeSnapshot("a"), TakeSnapshot("b")}


def test_a_full_outbox_is_tried_when_nobody_says_that_there_is_room() -> None:
    play = Play()
    play.take(inputs.Tick())
    play.take(inputs.SnapshotEnded("chat", How.FULL))
    since = play.at
    assert play.wait(3600) == [(since + ROOM_AGAIN, TakeSnapshot("chat"))]
    assert play.take(inputs.SnapshotEnded("chat", How.FULL)) == []  # told already
    assert play.take(inputs.Room(free=True)) == [Publish(Kind.OUTBOX_FREED), TakeSnapshot("chat")]
    assert play.take(inputs.Room(free=True)) == []


def test_jobs_run_one_after_the_other_and_those_that_need_a_session_wait_for_it() -> None:
    play = Play().settled()
    assert play.take(inputs.JobDue("drill"), inputs.JobDue("drill")) == []
    assert play.take(inputs.JobDue("verify")) == [RunJob("verify")]
    assert play.take(inputs.JobDue("prune")) == []
    assert play.conductor.waiting_jobs() == ("drill", "prune")
    assert play.take(inputs.JobEnded("verify", failed=True)) == []
    assert play.take(OPEN) == [RunJob("drill")]
    assert play.take(inputs.JobDue("drill"), inputs.JobEnded("drill")) == [RunJob("prune")], "its time was answered"
    assert play.take(inputs.JobDue("prune", asked=True), inputs.JobEnded("prune")) == [RunJob("prune")], "it was asked"


def test_after_a_reload_only_what_a_person_asked_for_waits_on() -> None:
    play = Play().settled()
    due = [inputs.JobDue(name) for name in ("drill", "prune")]
    play.take(*due, inputs.JobDue("prune", asked=True), due[1], inputs.JobDue("verify"))
    assert play.conductor.waiting_jobs() == ("drill", "prune"), "verify runs"
    settings = play.conductor._settings
    assert play.conductor.reload(settings, play.now) == []
    assert play.conductor.waiting_jobs() == ("prune",)
    assert play.take(inputs.JobDue("verify"), OPEN, inputs.JobEnded("verify")) == [RunJob("prune")]
    assert play.take(due[0]) == []
    assert play.conductor.waiting_jobs() == ("drill",), "due by the new ones, it was told again"


def test_comparing_is_a_job_of_all_sources() -> None:
    play = Play(("a", "b")).settled()
    assert play.take(inputs.JobDue("compare")) == []
    assert [action for _, action in play.wait(5)] == [TakeSnapshot("a"), TakeSnapshot("b")]


def test_after_sleep_everything_is_compared_and_tried() -> None:
    play = Play()
    play.take(OPEN, inputs.Tick(), inputs.SnapshotEnded("chat", How.MADE, 1))
    for _ in range(12):
        play.wait(900)
        play.take(inputs.UploadEnded("disk", done=False), inputs.SnapshotEnded("chat", How.NOTHING))
    play.wait(10)
    play.take(inputs.SnapshotEnded("chat", How.NOTHING))
    play.at += 8 * 3600
    assert set(play.take(inputs.Resumed())) == {TakeSnapshot("chat"), Upload("disk")}


def test_the_state_is_lent_when_nothing_uses_it_and_nothing_begins_until_it_is_back() -> None:
    play = Play()
    play.take(OPEN, inputs.Tick(), inputs.Waiting("disk", 1), inputs.JobDue("verify"))
    assert play.take(inputs.Lend()) == [StopWork()]
    assert play.take(inputs.SnapshotEnded("chat", How.STOPPED)) == []
    assert play.take(inputs.UploadEnded("disk", done=False, stopped=True)) == []
    assert play.take(inputs.Lend()) == []  # one that asks twice waits once
    assert play.take(inputs.JobEnded("verify")) == [HandOver()]
    assert play.conductor.is_lent
    told = (inputs.Hint("chat"), inputs.Asked("chat"), inputs.JobDue("drill"), inputs.Waiting("disk", 5))
    assert play.take(*told, inputs.Resumed(), HELD, OPEN, inputs.Room(free=True)) == []
    assert play.wait(7 * 3600) == []
    back = play.take(inputs.Returned())
    assert set(back) == {TakeSnapshot("chat"), Upload("disk"), RunJob("drill")}


def test_a_job_outside_may_borrow_the_state_itself() -> None:
    play = Play().settled()
    play.take(OPEN)
    assert play.take(inputs.JobDue("prune")) == [RunJob("prune")]
    assert play.take(inputs.Lend()) == [HandOver()]
    assert play.take(inputs.JobEnded("prune")) == []
    assert play.take(inputs.Returned()) == []


def test_a_daemon_that_ends_begins_nothing_and_lends_nothing() -> None:
    play = Play()
    play.take(OPEN, inputs.Tick())
    assert play.take(inputs.Stop()) == [StopWork()]
    ended = (inputs.SnapshotEnded("chat", How.STOPPED), inputs.Waiting("disk", 5), inputs.Lend(), inputs.Returned())
    assert play.take(*ended, inputs.JobDue("verify"), inputs.Asked("chat")) == []
    assert play.wait(1e6) == []


def test_reload_keeps_what_is_known_of_what_stays() -> None:
    play = Play(("a", "b"), ("disk", "cloud"))
    play.take(OPEN, inputs.Tick(), inputs.Waiting("disk", 1), inputs.Waiting("cloud", 1))
    play.take(inputs.SnapshotEnded("b", How.NOTHING))
    other = Settings({"b": PACE, "c": PACE}, ("cloud", "new"), JOBS)
    assert play.conductor.reload(other, play.now) == [TakeSnapshot("c")]  # b was compared, a still runs
    assert play.conductor.busy == {"a", "c"}
    play.take(inputs.Hint("a"))
    assert play.take(inputs.Lend()) == [StopWork()]
    ends = [inputs.SnapshotEnded(one, How.STOPPED) for one in ("a", "c")]
    gone = inputs.UploadEnded("disk", done=False, stopped=True)
    assert play.take(*ends, gone) == []
    assert play.take(inputs.UploadEnded("cloud", done=True)) == [HandOver()]


def test_a_source_that_is_put_back_while_it_runs_runs_once() -> None:
    play = Play(("a",), ("disk",))
    play.take(OPEN, inputs.Tick(), inputs.Waiting("disk", 1))
    play.conductor.reload(Settings({}, ()), play.now)
    play.wait(100)
    assert play.conductor.reload(Settings({"a": PACE}, ("disk",)), play.now) == []
    assert play.take(inputs.Asked("a"), inputs.Waiting("disk", 1)) == []
    assert play.take(inputs.SnapshotEnded("a", How.NOTHING)) == [TakeSnapshot("a")]
    assert play.take(inputs.UploadEnded("disk", done=True)) == [Upload("disk")]


def test_a_job_that_is_not_configured_any_more_does_not_run() -> None:
    play = Play().settled()
    play.take(inputs.JobDue("drill"))
    play.conductor.reload(Settings({"chat": PACE}, ("disk",)), play.now)
    assert play.take(OPEN) == []


@pytest.mark.parametrize("seed", range(5))
def test_waits_are_drawn_within_bounds(seed: int) -> None:
    from chatkeep.daemon.service.conducting.backoff import FIRST, LAST, Backoff

    backoff = Backoff(random.Random(seed))
    drawn = [backoff.failed() for _ in range(1000)]
    assert all(FIRST <= one <= LAST for one in drawn)
    assert drawn[0] <= 2 * FIRST
    assert max(drawn) > LAST / 2
    backoff.succeeded()
    assert backoff.failed() <= 2 * FIRST
