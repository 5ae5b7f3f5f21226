"""Whatever comes in whatever order, what the daemon promises of its work holds."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.actions import Action, HandOver, RunJob, StopWork, TakeSnapshot, Upload
from chatkeep.daemon.service.conducting.conductor import Conductor, JobTerms, Settings
from chatkeep.daemon.service.conducting.inputs import How
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.pace import PaceSettings

SOURCES, PROVIDERS, JOBS = ("a", "b", "c"), ("x", "y"), ("compare", "verify", "drill")
TERMS = {"compare": JobTerms(compares=True), "verify": JobTerms(inside=True), "drill": JobTerms(session=True)}
PACES = st.builds(
    PaceSettings,
    quiet=st.floats(0, 10),
    max_delay=st.floats(0, 60),
    min_interval=st.floats(0, 120),
    compare_every=st.floats(60, 86400),
)
some = st.sampled_from
subsets = st.lists(some(SOURCES), unique=True)


class Daemon(RuleBasedStateMachine):
    """A world that does what it is told, at once, and ends it when it likes."""

    @initialize(paces=st.tuples(PACES, PACES, PACES), seed=st.integers(0, 1000), at_once=st.integers(1, 3))
    def begin(self, paces: tuple[PaceSettings, ...], seed: int, at_once: int) -> None:
        self.at = 50.0
        self.paces = dict(zip(SOURCES, paces, strict=True))
        self.at_once = at_once
        self.configured: set[str] = set(SOURCES)
        self.snapshots: set[str] = set()
        self.uploads: set[str] = set()
        self.job: str | None = None
        self.gate = inputs.Gate(uploads=False, session=False)
        self.asked_to_lend = self.lent = False
        self.open_hints: dict[str, int] = dict.fromkeys(SOURCES, 0)  # since when no snapshot began, in inputs
        self.sendable: set[str] = set()
        self.due_jobs: dict[str, bool] = {}  # whether a person asked
        self.conductor = Conductor(self._settings(), self.now, random.Random(seed))

    @property
    def now(self) -> Moment:
        return Moment(0, self.at)

    def _settings(self) -> Settings:
        sources = {name: self.paces[name] for name in SOURCES if name in self.configured}
        return Settings(sources, PROVIDERS, TERMS, self.at_once)

    def tell(self, said: inputs.Input) -> list[Action]:
        return self.obey(self.conductor.take(said, self.now))

    def obey(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            match action:
                case TakeSnapshot(source):
                    assert source not in self.snapshots, "two snapshots of one source"
                    assert source in self.configured
                    self._may_begin()
                    self.snapshots.add(source)
                    self.open_hints[source] = 0
                    assert len(self.snapshots) <= self.at_once
                case Upload(provider):
                    assert provider not in self.uploads, "two uploads to one provider"
                    assert self.gate.uploads, "held"
                    assert provider in self.sendable, "nothing waits there"
                    self._may_begin()
                    self.uploads.add(provider)
                    self.sendable.discard(provider)
                case RunJob(name):
                    assert self.job is None
                    assert name in self.due_jobs
                    assert self.gate.session or not TERMS[name].session, "locked"
                    self._may_begin()
                    self.job = name
                    del self.due_jobs[name]
                case HandOver():
                    assert self.asked_to_lend
                    assert not self.lent
                    assert not self._inside(), "lent while it is used"
                    self.lent = True
                case _:
                    pass
        return actions

    def _may_begin(self) -> None:
        assert not self.lent
        assert not self.asked_to_lend, "begun while somebody waits for the state"

    def _inside(self) -> bool:
        return bool(self.snapshots or self.uploads or self.job == "verify")

    @invariant()
    def never_woken_for_nothing(self) -> None:
        wake = self.conductor.wake_at
        assert wake is None or wake > self.at

    @invariant()
    def a_hint_is_foreseen(self) -> None:
        """An open hint has a time, or something that will end is in its way."""
        for source in self.configured:
            waits = self.open_hints[source] and source not in self.snapshots
            if waits and not self.snapshots and not self.asked_to_lend and not self.lent:
                assert self.conductor.wake_at is not None, source

    @rule(seconds=st.floats(0.001, 100_000))
    def wait(self, seconds: float) -> None:
        end = self.at + seconds
        for _ in range(200):
            wake = self.conductor.wake_at
            if wake is None or wake > end:
                break
            assert wake > self.at
            self.at = wake
            self.tell(inputs.Tick())
        else:
            raise AssertionError("it spins")
        self.at = end
        self.tell(inputs.Tick())

    @rule(source=some(SOURCES), kind=some([inputs.Hint, inputs.Back, inputs.Asked]))
    def hint(self, source: str, kind: Any) -> None:
        if source in self.configured:
            self.open_hints[source] += 1
        self.tell(kind(source))

    @precondition(lambda self: self.snapshots)
    @rule(how=some(How), made=st.integers(0, 2), pick=st.integers(0, 5))
    def end_snapshot(self, how: How, made: int, pick: int) -> None:
        source = sorted(self.snapshots)[pick % len(self.snapshots)]
        self.snapshots.discard(source)
        if how in {How.FAILED, How.STOPPED, How.FULL} and source in self.configured:
            self.open_hints[source] += 1  # what it was to answer
        if made:
            self.sendable |= set(PROVIDERS)
        self.tell(inputs.SnapshotEnded(source, how, made))

    @precondition(lambda self: self.uploads)
    @rule(done=st.booleans(), stopped=st.booleans(), moved=st.booleans(), pick=st.integers(0, 5))
    def end_upload(self, done: bool, stopped: bool, moved: bool, pick: int) -> None:
        provider = sorted(self.uploads)[pick % len(self.uploads)]
        self.uploads.discard(provider)
        if not done:
            self.sendable.add(provider)
        self.tell(inputs.UploadEnded(provider, done=done, stopped=stopped and not done, moved=moved))

    @rule(provider=some(PROVIDERS), size=st.integers(0, 2))
    def waiting(self, provider: str, size: int) -> None:
        if size:
            self.sendable.add(provider)
        self.tell(inputs.Waiting(provider, size))

    @rule(free=st.booleans())
    def room(self, free: bool) -> None:
        self.tell(inputs.Room(free=free))

    @rule(uploads=st.booleans(), session=st.booleans())
    def gate_moves(self, uploads: bool, session: bool) -> None:
        self.gate = inputs.Gate(uploads=uploads, session=session)
        self.tell(self.gate)

    @rule(name=some(JOBS), asked=st.booleans())
    def job_due(self, name: str, asked: bool) -> None:
        if name != "compare" and (asked or name != self.job):
            self.due_jobs[name] = asked or self.due_jobs.get(name, False)
        if name == "compare":
            for source in self.configured:
                self.open_hints[source] += 1
        self.tell(inputs.JobDue(name, asked))

    @precondition(lambda self: self.job is not None)
    @rule(failed=st.booleans())
    def job_ends(self, failed: bool) -> None:
        name, self.job = self.job, None
        assert name is not None
        self.tell(inputs.JobEnded(name, failed))

    @rule(asleep=st.floats(0, 1e6))
    def sleep(self, asleep: float) -> None:
        self.at += asleep
        for source in self.configured:
            self.open_hints[source] += 1
        self.tell(inputs.Resumed())

    @precondition(lambda self: not self.asked_to_lend)
    @rule()
    def lend(self) -> None:
        self.asked_to_lend = True
        actions = self.tell(inputs.Lend())
        assert (StopWork() in actions) == self._inside()

    @precondition(lambda self: self.lent)
    @rule()
    def give_back(self) -> None:
        self.asked_to_lend = self.lent = False
        self.tell(inputs.Returned())

    @rule(which=subsets, pace=PACES)
    def reload(self, which: list[str], pace: PaceSettings) -> None:
        for source in SOURCES:
            if source not in which:
                self.open_hints[source] = 0
            elif source not in self.configured:
                self.open_hints[source] += 1
        self.configured = set(which)
        self.paces["a"] = pace
        self.due_jobs = {name: True for name, asked in self.due_jobs.items() if asked}
        self.obey(self.conductor.reload(self._settings(), self.now))

    def teardown(self) -> None:
        if not hasattr(self, "conductor"):
            return
        self._let_everything_end()
        assert not any(self.open_hints[source] for source in self.configured), "a hint was lost"
        assert not self.sendable, "something waits, and nobody sends it"
        assert not self.due_jobs, "a job was lost"

    def _let_everything_end(self) -> None:
        self.gate_moves(uploads=True, session=True)
        for _ in range(200):
            if self.lent:
                self.give_back()
            self.room(free=True)
            if self.job:
                self.job_ends(failed=False)
            for _ in range(len(self.snapshots)):
                self.end_snapshot(How.NOTHING, 0, 0)
            for _ in range(len(self.uploads)):
                self.end_upload(True, False, True, 0)
            waiting = any(self.open_hints[source] for source in self.configured) or self.sendable or self.due_jobs
            busy = self.snapshots or self.uploads or self.job or self.asked_to_lend
            if not waiting and not busy:
                return
            if not busy:
                self.wait(1000)


TestDaemon = Daemon.TestCase
TestDaemon.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
