"""The daemon's decisions in a simulated world: the real conductor, session rules and timetable, and what carries out
their orders done in no time by the world. What they say of themselves is compared with the world after every step."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable

from chatkeep.config.amounts import Every
from chatkeep.config.running import SessionConfig
from chatkeep.daemon.cli.daemon_line import status_line
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
from chatkeep.daemon.service.conducting.conductor import Conductor, Settings
from chatkeep.daemon.service.conducting.inputs import How
from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.service.job_notes import JobNote, JobResult, Outcome
from chatkeep.daemon.service.pace import PaceSettings
from chatkeep.daemon.service.running import describing
from chatkeep.daemon.service.running.pulse import wall_of
from chatkeep.daemon.service.schedule import TERMS
from chatkeep.daemon.service.session_rules import Input as Said
from chatkeep.daemon.service.session_rules import Opened, Order, SessionRules, Signal
from chatkeep.daemon.service.standing import Fault, JobStanding, Mode, SessionStanding, Standing
from chatkeep.daemon.service.timetable import Timetable
from chatkeep.daemon.sync.upload import UploadResult
from tests.support import simulated_week_engine
from tests.support.simulated_week_strands import Strand
from tests.support.simulated_world import HOUR, LIMIT, World

BEAT, LOOK_EVERY = 60.0, 15.0
LEAST = 0.001
"""Seconds of a timer: no number of the clock is so small that it would not move it."""

PACE = PaceSettings(quiet=2.0, max_delay=30.0, min_interval=60.0, compare_every=6 * HOUR)
JOBS = {"verify": Every(6 * HOUR), "drill": Every(12 * HOUR), "prune": Every(24 * HOUR)}
LATEST_TRY = 900.0 + BEAT
"""Seconds within which whatever failed is tried again."""


class Daemon:
    """One life of it, from its start until it is killed."""

    def __init__(self, world: World, session: SessionConfig, notes: dict[str, JobNote]) -> None:
        self.world, self.config, self.notes = world, session, notes
        self.life = world.life
        chance = random.Random(world.chance.random())
        self.conductor = Conductor(
            Settings(dict.fromkeys(world.sources, PACE), tuple(world.storages), TERMS), world.now, chance
        )
        self.rules = SessionRules(session, remembered=world.remembered)
        self.table = Timetable(JOBS, notes, world.now)
        self.running: dict[str, tuple[float, int]] = {}  # snapshots: when begun, and the newest write then
        self.engine: simulated_week_engine.Working | None = None
        self.uploading: dict[str, Strand] = {}
        self.told_to_stop: set[str] = set()  # uploads and snapshots
        self.job: str | None = None
        self.ready = False
        self.lent = self.lending = False
        self.faults: dict[str, str] = {}
        self.unanswered: dict[str, float] = {}  # by source: since when a hint was given that no snapshot began after
        self.last_try: dict[str, float] = {}
        self.ended_at: dict[str, float] = {}
        self.unfinished: set[str] = set()  # sources whose last snapshot did not come to its end
        self.orders = 0
        self.looked = -1e9
        self.unseen: float | None = None  # since when there is a session that was not noticed
        self.wakes = self.ticks = 0
        self.log: list[tuple[float, str]] = []
        self.tell(inputs.Lend())
        self._beat()
        self._begin()

    # -- as the real one does it --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """It has the state directory."""
        self.after(1.0, self._opened)
        self._order(Order.LOOK)
        self._gate()

    def _opened(self) -> None:
        world = self.world
        self.ready, self.lent, self.lending = True, False, False
        self.engine = simulated_week_engine.opened(world.records, lambda: world.now.boot, world.wait)
        world.records.read()
        assert world.records.held_up() <= LIMIT // 2, "one that need not have it holds the outbox up"
        for one in world.records.standing.providers:
            self.tell(inputs.Waiting(one.name, one.waiting))
        self.tell(inputs.Returned())
        self._beat_jobs()

    def after(self, seconds: float, act: object) -> None:
        assert callable(act)
        self.world.plan(seconds, act, life=self.life)

    def tell(self, said: inputs.Input) -> None:
        now = self.world.now
        self._obey(self.conductor.take(said, now))
        self._rearm()

    def hear(self, said: Said) -> None:
        world = self.world
        for order in self.rules.take(said, world.now.boot):
            if order is Order.REMEMBER:
                world.remembered = True
            elif order is Order.FORGET:
                world.remembered = False
            else:
                self._order(order)
        self._gate()
        self._rearm()

    def _gate(self) -> None:
        self.tell(inputs.Gate(self.rules.uploads, self.rules.session))

    def _order(self, order: Order) -> None:
        self.orders += 1
        self.after(0.05 if order is Order.LOOK else 0.2, lambda: self._carry_out(order))

    def _carry_out(self, order: Order) -> None:
        self.orders -= 1
        world = self.world
        if order is Order.LOOK:
            self.looked = world.now.boot
            if world.session is not None:
                self.hear(Opened(world.session, world.session_until - world.booted))
        elif world.session is not None and not world.calm and world.chance.random() < 0.25:
            world.happened("a session that cannot be ended")
            self.hear(Signal.END_FAILED)
        else:
            world.session = None
            self.hear(Signal.GONE)

    def _rearm(self) -> None:
        boot = self.world.now.boot
        times = [self.conductor.wake_at, self.rules.wake_at, self.table.wake_at if self.ready else None]
        wait = min((max(LEAST, at - boot) for at in times if at is not None), default=BEAT)
        self.wakes += 1
        mine = self.wakes
        if wait < BEAT:
            self.after(wait, lambda: self._tick() if mine == self.wakes else None)

    def _beat(self) -> None:
        """The next tick at the latest; whoever wants another one does not put it off."""
        self.ticks += 1
        mine = self.ticks
        self.after(BEAT, lambda: self._tick() if mine == self.ticks else None)

    def _tick(self) -> None:
        self._beat()
        self.hear(Signal.TICK)
        if not self.rules.session and self.world.now.boot - self.looked >= LOOK_EVERY:
            self._order(Order.LOOK)
        self._beat_jobs()
        self.tell(inputs.Tick())

    def _beat_jobs(self) -> None:
        if not self.ready:
            return
        if self.table.settle(self.world.now):
            self.notes.update(self.table.notes)
        for name in self.table.due(self.world.now):
            self.tell(inputs.JobDue(name))
        self.notes.update(self.table.notes)

    # -- orders of the conductor --------------------------------------------------------------------------------------

    def _obey(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self.log.append((round(self.world.t, 6), repr(action)))
            match action:
                case TakeSnapshot(source):
                    self.snapshot(source)
                case Upload(provider):
                    self.upload(provider)
                case StopUpload(provider):
                    self.told_to_stop.add(provider)
                case StopWork():
                    self.told_to_stop |= {*self.running, *self.uploading}
                case HandOver():
                    assert not self.running
                    assert not self.uploading
                    if self.ready:
                        self.lent, self.engine = True, None
                        self.after(self.world.chance.uniform(1, 600), self._opened)
                case RunJob(name):
                    self._run_job(name)
                case Publish(kind):
                    self.world.happened(str(kind))
                    assert kind is not Kind.HELD or not self.rules.uploads

    def _again(self, what: str, least: float) -> None:
        """Nothing is tried without end."""
        before = self.last_try.get(what)
        if before is not None and what in self.faults:
            assert self.world.now.boot - before >= least, f"{what} is tried in a tight loop"
        self.last_try[what] = self.world.now.boot

    def snapshot(self, source: str) -> None:
        world = self.world
        assert source not in self.running, "two snapshots of a source"
        assert self.ready
        assert not self.lent
        self._again(source, 4.9)
        self.unanswered.pop(source, None)
        self.running[source] = (world.now.boot, len(world.writes[source]))
        begun = world.t
        lasts = world.chance.uniform(0.3, world.chance.choice([20.0, 120.0]))
        assert self.engine is not None
        full = self.engine.is_full
        if full or world.disk_full:
            lasts = 0.2
        self.after(lasts, lambda: self._snapshot_ended(source, begun, full=full))

    def _snapshot_ended(self, source: str, begun: float, *, full: bool) -> None:
        world = self.world
        _, upto = self.running.pop(source)
        self.ended_at[source] = world.now.boot
        how, made = How.NOTHING, 0
        if source in self.told_to_stop:
            self.told_to_stop.discard(source)
            how = How.STOPPED
        elif full:
            how = How.FULL
        elif world.disk_full or (not world.calm and world.chance.random() < 0.05):
            how = How.FAILED
            world.happened("a snapshot that failed")
        elif world.commit(source, begun, upto):
            how, made = How.MADE, 1
        world.records.read()
        self.faults.pop(source, None)
        if how in {How.FAILED, How.FULL}:
            self.faults[source] = "state-full" if how is How.FAILED else "outbox-full"
        self.unfinished.discard(source)
        if how in {How.MADE, How.NOTHING}:
            world.looked[source] = world.now.wall_ns
        else:
            self.unfinished.add(source)
        self.tell(inputs.SnapshotEnded(source, how, made))
        self._room()

    def upload(self, provider: str) -> None:
        assert provider not in self.uploading, "two uploads to a provider"
        assert self.rules.uploads, "an upload begins before the first unlock"
        assert self.engine is not None
        self._again(provider, 4.9)
        engine = self.engine
        strand = Strand(lambda: engine.upload(provider, cancelled=lambda: provider in self.told_to_stop))
        self.uploading[provider] = strand
        self.after(LEAST, lambda: self._upload_goes_on(provider, strand))

    def _upload_goes_on(self, provider: str, strand: Strand) -> None:
        seconds = self.world.run(strand)
        if seconds is not None:
            self.after(seconds, lambda: self._upload_goes_on(provider, strand))
        else:
            self._upload_ended(strand.result)

    def _upload_ended(self, result: UploadResult) -> None:
        provider, problems, records = result.provider, result.problems, self.world.records
        del self.uploading[provider]
        if result.objects or not problems:  # else only the trouble is news
            records.read()
        if not self.uploading:
            assert records.held_up() <= LIMIT // 2, "one that need not have it holds the outbox up"
        self.told_to_stop.discard(provider)
        if problems:
            self.world.happened("an upload that failed")
            self.faults[provider] = problems[0].code
        elif not result.cancelled:
            self.faults.pop(provider, None)
        done, stopped = not problems and not result.cancelled, result.cancelled and not problems
        self.tell(inputs.UploadEnded(provider, done, stopped, result.objects > 0))
        self._room()

    def _room(self) -> None:
        self.tell(inputs.Room(not self.world.records.standing.full))

    def _run_job(self, name: str) -> None:
        assert self.job is None, "two jobs at a time"
        assert self.rules.session or not TERMS[name].session, f"{name} is begun while locked"
        self.job = name
        began = self.world.t
        self.after(self.world.chance.uniform(60, 5400), lambda: self._job_ended(name, began))

    def _job_ended(self, name: str, began: float) -> None:
        world = self.world
        self.job = None
        outcome = Outcome.GOOD
        if TERMS[name].session and not self.rules.session:
            outcome = Outcome.PUT_OFF
            world.happened("a job that was put off")
        elif not all(storage.up for storage in world.storages.values() if storage.required) or (
            not world.calm and world.chance.random() < 0.2
        ):
            outcome = Outcome.FAILED
            world.happened("a job that failed")
        self.table.ended(name, JobResult(outcome), world.t - began, world.now)
        self.notes.update(self.table.notes)
        self.tell(inputs.JobEnded(name, outcome is not Outcome.GOOD))
        self._beat_jobs()

    # -- what happens to it -------------------------------------------------------------------------------------------

    def killed(self) -> None:
        """Nothing that it did goes on."""
        for strand in self.uploading.values():
            strand.kill()

    def hint(self, source: str) -> None:
        self.unanswered.setdefault(source, self.world.now.boot)
        self.tell(inputs.Hint(source))

    def session_gone(self) -> None:
        """The process that it watched has ended; it hears of it in one of the next turns of its loop."""

        def heard() -> None:
            self.orders -= 1
            self.hear(Signal.GONE)

        self.orders += 1
        self.after(LEAST, heard)

    def resumed(self) -> None:
        self.hear(Signal.RESUME)
        self._beat_jobs()
        self.tell(inputs.Resumed())

    def lend(self) -> None:
        """A command wants the state directory."""
        if self.ready and not self.conductor.is_lent:
            self.world.happened("lent")
            self.lending = True
            self.tell(inputs.Lend())

    # -- what it says of itself ---------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        world, at = self.world, self.world.now
        said = world.records.standing
        faults = {name: Fault(code) for name, code in self.faults.items()}
        sources = describing.sources(world.sources, {}, faults, {}, self.conductor, at)
        sources = tuple(dataclasses.replace(one, looked_ns=world.looked.get(one.name)) for one in sources)
        rules, required = self.rules, {one.name: one.required for one in said.providers}
        figures = {one.name: one for one in said.providers}
        return Standing(
            version="",
            pid=1,
            since_ns=0,
            mode=Mode.STARTING if not self.ready else Mode.LENT if self.lent else Mode.RUNNING,
            vault="",
            session=SessionStanding(
                unlocked=rules.session,
                uploads=rules.uploads,
                until_ns=wall_of(rules.until, at) if rules.session else None,
                locked=rules.reason,
            ),
            outbox=describing.outbox(said, LIMIT),
            sources=sources,
            jobs=(describing.comparing(sources, PACE.compare_every, at),),
            providers=describing.providers(required, figures, faults, self.conductor, at),
        )

    def tells_the_truth(self) -> None:
        """What it says now is so."""
        standing, world = self.standing(), self.world
        line = status_line(standing)
        self._session_is_true(standing)
        for one in standing.providers:
            world.records.true[one.name].compare(one)
            if one.waiting and self.ready and not self.conductor.is_lent:
                assert self.conductor.wants(one.name), "what waits is forgotten"
            if one.fault is not None and self.ready:
                assert one.name in line, "a provider fails and nobody says so"
                self._is_tried_again(one.name, one.next_ns)
        if self.ready:
            waits = any(storage.lacks for storage in world.storages.values())
            assert ("run chatkeep unlock" in line) is not self.rules.uploads
            if waits and not self.rules.uploads and not self.conductor.is_lent:
                assert self.conductor.is_held, "uploads are held and it is not said"
            assert self.lent or self.lending or not self.conductor.is_lent, "lent to nobody"
            for failed in self.unfinished - self.running.keys():
                due = self.conductor.due(world.now)[failed]
                assert due is not None, "a snapshot that failed is given up"
                assert due <= world.now.boot + LATEST_TRY, "a snapshot that failed is hardly tried again"
        for changed, since in self.unanswered.items():
            assert self.conductor.changed(changed), "a change is forgotten"
            self._is_answered(changed, since)
        for source in standing.sources:
            assert (source.fault is not None) is (source.name in self.faults)
        self._comparing_is_true(standing.jobs[0])

    def _comparing_is_true(self, said: JobStanding) -> None:
        world = self.world
        last = min(world.looked.values()) if len(world.looked) == len(world.sources) else None
        assert said.last_ns == last, "compared at another time"
        assert (said.fault is not None) is any(name in self.faults for name in world.sources), "compared well, or not"
        assert (said.next_ns is None) is (len(self.running) == len(world.sources)), "compared next, or now"
        left = (said.next_ns - world.now.wall_ns) / 1e9 if said.next_ns is not None else 0.0
        assert left <= PACE.compare_every + 1e-3, "a comparison is not foreseen"

    def _session_is_true(self, standing: Standing) -> None:
        world = self.world
        if world.session is None:
            assert not standing.session.unlocked or self.orders, "called unlocked, and locked"
            self.unseen = None
        elif standing.session.unlocked:
            self.unseen = None
            until = standing.session.until_ns
            assert until is not None
            wall = (world.session_until - world.t) * 1e9 + world.now.wall_ns
            assert self.orders or abs(until - wall) < 1e9, "unlocked until another time"
            assert world.session_until >= world.t - BEAT, "a session outlived its time"
        elif not self.orders and not self.rules.ending:
            self.unseen = world.now.boot if self.unseen is None else self.unseen
            since = max(self.unseen, world.awake_since - world.booted)
            assert world.now.boot - since <= BEAT + LOOK_EVERY + 1, "called locked, and unlocked"

    def _is_tried_again(self, provider: str, next_ns: int | None) -> None:
        if provider in self.uploading or self.conductor.is_lent or not self.rules.uploads:
            return
        assert next_ns is not None, "a failing provider is given up"
        assert next_ns - self.world.now.wall_ns <= LATEST_TRY * 1e9, "a failing provider is hardly tried"

    def _is_answered(self, source: str, since: float) -> None:
        """A change is answered in time, unless something is in the way that is known."""
        now = self.world.now
        if source in self.running or self.conductor.is_lent or not self.ready:
            return
        due = self.conductor.due(now)[source]
        assert due is not None, "a change waits for nothing"
        latest = max(since + PACE.max_delay, self.last_try.get(source, -1e9) + PACE.min_interval)
        latest = max(latest, self.ended_at.get(source, -1e9))
        if source in self.faults:
            latest = max(latest, now.boot + LATEST_TRY)
        assert due <= latest + 1e-3, f"a change of {source} is answered late: {due:.1f}, not {latest:.1f}"
        in_the_way = (
            len(self.running) >= 2 or self.world.records.waiting > LIMIT or "outbox-full" in self.faults.values()
        )
        if not in_the_way and not self.world.asleep:
            noticed = self.world.awake_since - self.world.booted + BEAT  # that it was asleep
            assert now.boot <= max(due, noticed) + 2 * LEAST, "what is due is not begun"
