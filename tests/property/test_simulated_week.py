"""A week with everything that can happen to a daemon: suspends, clocks that jump, outages, full disks, logouts, kills.

The decisions are the real ones; the world that carries them out is a model (tests/support/simulated_*). What the daemon
says of itself is compared with that world after every step. And what would be wrong is shown to be noticed: each broken
variant of a decision fails such a week.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from chatkeep.daemon.service import session_rules
from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.backoff import Backoff
from chatkeep.daemon.service.conducting.captures import Capture
from chatkeep.daemon.service.conducting.conductor import Conductor
from chatkeep.daemon.service.conducting.inputs import How
from chatkeep.daemon.service.conducting.uploads import Sending
from chatkeep.daemon.service.engine import letting_go
from chatkeep.daemon.service.engine.engine import Engine
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.pace import Pace
from chatkeep.daemon.service.running import describing
from chatkeep.daemon.service.session_rules import Cause, Order, SessionRules, Signal, State
from chatkeep.daemon.service.timetable import Timetable
from chatkeep.daemon.state import Mirrors
from chatkeep.daemon.state import State as Records
from chatkeep.daemon.state import figures as state_figures
from chatkeep.daemon.sync import catching_up, upload
from tests.support.simulated_week import Week

MUST_HAPPEN = {
    *("unlock", "lock", "logout", "suspend", "suspend that nobody tells of", "killed", "reboot", "lent", "screen-lock"),
    *("disk is gone", "disk is back", "cloud is gone", "the disk is full", "the clock is put right", "idle"),
    *("the clock is set by 26352 hours", "the clock is set by -26352 hours"),
    *("a hint that was lost", "a snapshot that failed", "an upload that failed", "a session that cannot be ended"),
    *("held", "outbox-full", "outbox-freed", "provider-back", "a job that was put off", "a job that failed"),
    *("drawer is gone", "drawer is back", "drawer is left behind", "drawer is brought up", "an answer that was lost"),
    *("left behind while it was sent to", "gone while it was brought up", "killed while it was brought up"),
    "killed before room was made",
}


def weeks(seeds: Iterable[int]) -> Counter[str]:
    happened: Counter[str] = Counter()
    for seed in seeds:
        week = Week(seed)
        try:
            week.run()
        except AssertionError as exc:
            exc.add_note(f"seed {seed}")
            raise
        assert sum(map(len, week.world.writes.values())) > 1000
        assert len(week.lives) > 3
        happened.update(week.world.counts)
    return happened


def test_weeks() -> None:
    happened = weeks((27, 14))
    assert set(happened) >= MUST_HAPPEN, MUST_HAPPEN - set(happened)


@pytest.mark.long
def test_many_weeks(seed: int) -> None:
    weeks(range(seed, seed + 40))


# -- what would be wrong ----------------------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]
BROKEN: dict[str, Patch] = {}


def broken(change: Patch) -> Patch:
    BROKEN[change.__name__.strip("_")] = change
    return change


@broken
def _a_snapshot_that_fails_loses_its_hint(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pace, "resumed", lambda *_: None)


@broken
def _nothing_is_compared_without_a_hint(patch: pytest.MonkeyPatch) -> None:
    began = Pace.began

    def forgets(self: Pace, now: float) -> None:
        began(self, now)
        self._compare_at = float(1 << 40)

    patch.setattr(Pace, "began", forgets)


@broken
def _a_hint_during_a_snapshot_is_lost(patch: pytest.MonkeyPatch) -> None:
    ended = Pace.ended

    def forgets(self: Pace, now: float) -> None:
        ended(self, now)
        self._first = None

    patch.setattr(Pace, "ended", forgets)


@broken
def _retries_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "failed", lambda *_: 0.0)


@broken
def _gives_up(patch: pytest.MonkeyPatch) -> None:
    failed = Backoff.failed
    patch.setattr(Backoff, "failed", lambda self: failed(self) * (1 if self.failures < 12 else 1e6))


@broken
def _delays_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    take = Conductor.take

    def by_wall(self: Conductor, said: inputs.Input, now: Moment) -> Any:
        return take(self, said, Moment(now.wall_ns, now.wall_ns / 1e9 - 1_899_999_500))

    patch.setattr(Conductor, "take", by_wall)


@broken
def _uploads_before_the_unlock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SessionRules, "uploads", property(lambda self: self.state is not State.ENDING_CLOSED))


@broken
def _what_was_made_is_not_sent(patch: pytest.MonkeyPatch) -> None:
    ended = Conductor._snapshot_ended
    patch.setattr(
        Conductor, "_snapshot_ended", lambda self, said, now: ended(self, dataclasses.replace(said, made=0), now)
    )


@broken
def _what_was_made_during_an_upload_is_not_sent(patch: pytest.MonkeyPatch) -> None:
    def want(self: Sending) -> None:
        self.wanted = True

    patch.setattr(Sending, "want", want)


@broken
def _what_waits_is_not_asked_at_the_start(patch: pytest.MonkeyPatch) -> None:
    learn = Conductor._learn

    def deaf(self: Conductor, said: inputs.Input, now: float) -> Any:
        return learn(self, inputs.Tick() if isinstance(said, inputs.Waiting) else said, now)

    patch.setattr(Conductor, "_learn", deaf)


@broken
def _a_full_outbox_stays_full(patch: pytest.MonkeyPatch) -> None:
    ended = Conductor._snapshot_ended

    def for_ever(self: Conductor, said: inputs.SnapshotEnded, now: float) -> Any:
        yield from ended(self, said, now)
        if said.how is How.FULL:
            self._full_until = float("inf")

    patch.setattr(Conductor, "_snapshot_ended", for_ever)
    patch.setattr(Conductor, "_room", lambda *_, **__: iter(()))


@broken
def _a_job_that_has_to_wait_is_dropped(patch: pytest.MonkeyPatch) -> None:
    begin = Conductor._begin_jobs

    def drops(self: Conductor) -> Any:
        yield from begin(self)
        self._jobs.clear()

    patch.setattr(Conductor, "_begin_jobs", drops)


@broken
def _a_job_that_ended_is_in_the_way_of_the_next(patch: pytest.MonkeyPatch) -> None:
    of_jobs = Conductor._of_jobs

    def busy(self: Conductor, said: inputs.JobDue | inputs.JobEnded, now: float) -> None:
        if isinstance(said, inputs.JobDue) or not said.failed:
            of_jobs(self, said, now)

    patch.setattr(Conductor, "_of_jobs", busy)


@broken
def _a_failed_job_waits_for_its_next_time_told_once(patch: pytest.MonkeyPatch) -> None:
    ended = Timetable.ended

    def forgets(self: Timetable, name: str, *rest: Any) -> Any:
        note = ended(self, name, *rest)
        self._jobs[name].told = True
        return note

    patch.setattr(Timetable, "ended", forgets)


@broken
def _jobs_go_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    due = Timetable.due
    patch.setattr(Timetable, "due", lambda self, now: due(self, Moment(now.wall_ns, now.wall_ns / 1e9 - 1_899_999_500)))
    patch.setattr(Timetable, "settle", lambda *_: False)


@broken
def _wakes_for_uploads_alone(patch: pytest.MonkeyPatch) -> None:
    def wake(self: Conductor) -> float | None:
        return min((at for one in self._sendings.values() if (at := one.due_at()) is not None), default=None)

    patch.setattr(Conductor, "wake_at", property(wake))


@broken
def _stays_unlocked_in_a_suspend(patch: pytest.MonkeyPatch) -> None:
    take = SessionRules.take
    patch.setattr(SessionRules, "take", lambda self, said, now: () if said is Signal.SUSPEND else take(self, said, now))


@broken
def _locked_before_the_session_is_gone(patch: pytest.MonkeyPatch) -> None:
    table = dict(session_rules.TABLE)
    table[State.UNLOCKED, Cause.LOCK] = (State.LOCKED_UPLOADING, ())
    patch.setattr(session_rules, "TABLE", table)


@broken
def _uploads_stay_open_after_the_logout(patch: pytest.MonkeyPatch) -> None:
    table = dict(session_rules.TABLE)
    for state in (State.UNLOCKED, State.LOCKED_UPLOADING, State.ENDING):
        table[state, Cause.LOGOUT] = (State.ENDING, (Order.END,))
    patch.setattr(session_rules, "TABLE", table)


@broken
def _a_session_that_could_not_be_ended_is_let_be(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SessionRules, "wake_at", property(lambda self: self.until if self.session else None))
    take = SessionRules.take
    patch.setattr(
        SessionRules, "take", lambda self, said, now: () if said is Signal.END_FAILED else take(self, said, now)
    )


@broken
def _the_lent_directory_is_never_ours_again(patch: pytest.MonkeyPatch) -> None:
    of_lending = Conductor._of_lending
    once: set[int] = set()

    def gone(self: Conductor, said: Any) -> Any:
        if isinstance(said, inputs.Returned) and id(self) in once:
            return
        if isinstance(said, inputs.Returned):
            once.add(id(self))
        yield from of_lending(self, said)

    patch.setattr(Conductor, "_of_lending", gone)


@broken
def _does_not_hurry_and_does_not_begin(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Capture, "due_at", lambda *_: None)


@broken
def _what_one_has_leaves_the_outbox(patch: pytest.MonkeyPatch) -> None:
    waited_for = letting_go._waited_for
    patch.setattr(letting_go, "_waited_for", lambda *about: waited_for(*about)[:1])


@broken
def _one_that_may_be_away_is_waited_for_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Mirrors, "held_up", lambda *_: 0)


@broken
def _left_behind_and_not_on_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(letting_go, "_waited_for", lambda _every, required, _behind: sorted(required))
    patch.setattr(Mirrors, "leave", lambda *_: None)


@broken
def _room_that_nobody_made_before_the_end_is_not_made_at_the_start(patch: pytest.MonkeyPatch) -> None:
    let_go, open_it = Engine._let_go, Engine.__init__

    def opens(self: Engine, *about: Any) -> None:
        patch.setattr(Engine, "_let_go", lambda _self: None)
        open_it(self, *about)
        patch.setattr(Engine, "_let_go", let_go)

    patch.setattr(Engine, "__init__", opens)


@broken
def _one_that_was_left_behind_is_not_tried(patch: pytest.MonkeyPatch) -> None:
    wanted = Engine._is_wanted

    def lost(self: Engine, provider: str) -> bool:
        return wanted(self, provider) and provider not in self._state.mirrors.behind()

    patch.setattr(Engine, "_is_wanted", lost)


@broken
def _sent_to_before_it_is_brought_up(patch: pytest.MonkeyPatch) -> None:
    def at_once(state: Records, provider: Any, _every: Any, watch: catching_up.Watch, pace: upload.Pace) -> Any:
        return upload.upload(state.outbox, provider, watch.on_progress, watch.cancelled, pace)

    patch.setattr(catching_up, "send", at_once)


@broken
def _brought_up_from_the_newest_to_the_oldest(patch: pytest.MonkeyPatch) -> None:
    lacking = Mirrors.lacking
    patch.setattr(Mirrors, "lacking", lambda self, provider: lacking(self, provider)[::-1])


@broken
def _called_up_to_date_too_early(patch: pytest.MonkeyPatch) -> None:
    def early(self: Mirrors, provider: str) -> bool:
        with self._connection.transaction() as db:
            db.execute("DELETE FROM meta WHERE key=?", (f"mirror:{provider}",))
        return True

    patch.setattr(Mirrors, "caught_up", early)


@broken
def _what_it_was_brought_is_not_on_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Mirrors, "arrived", lambda *_: None)


@broken
def _brought_up_only_as_far_as_the_first_look(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(catching_up, "ROUNDS", 1)


@broken
def _what_left_the_outbox_is_not_said_to_be_lacking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(state_figures, "amount", lambda *_: (0, 0))


@broken
def _nobody_says_that_it_is_left_behind(patch: pytest.MonkeyPatch) -> None:
    providers = describing.providers

    def silent(*about: Any) -> Any:
        return tuple(dataclasses.replace(one, left_behind_ns=None) for one in providers(*about))

    patch.setattr(describing, "providers", silent)


@broken
def _behind_since_what_waits_here(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(state_figures, "behind", lambda _: {})


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_is_broken_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[name](monkeypatch)
    noticed = []
    for seed in range(16):  # some of it shows in few weeks; most ends with the first
        try:
            Week(seed, days=3).run()
        except AssertionError as exc:
            noticed.append(str(exc))
            break
    assert noticed, f"nobody noticed: {name}"
