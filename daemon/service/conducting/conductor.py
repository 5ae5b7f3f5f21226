"""Decides what the daemon does next.

Every input is answered with what is to begin now, and `wake_at` says when there is something to decide next. What is
kept here can be lost at any time: a new conductor compares every source, and asks what waits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

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
from chatkeep.daemon.service.conducting.captures import Capture
from chatkeep.daemon.service.conducting.inputs import How, Input
from chatkeep.daemon.service.conducting.uploads import Sending
from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.pace import PaceSettings

ROOM_AGAIN: Final = 60.0  # seconds: so often a full outbox is tried, should nobody say that there is room


@dataclass(frozen=True, slots=True)
class JobTerms:
    """What a job needs.

    Attributes:
        session: the vault is to be unlocked; until then the job waits.
        inside: it uses the open state directory, which is not lent while it runs. Others may ask for it themselves.
        compares: it is no work of its own: every source is compared.
    """

    session: bool = False
    inside: bool = False
    compares: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says. `at_once`: snapshots of so many sources may run side by side."""

    sources: Mapping[str, PaceSettings]
    providers: tuple[str, ...]
    jobs: Mapping[str, JobTerms] = field(default_factory=dict)
    at_once: int = 2


class Conductor:
    """What runs, what is due, and what is in the way."""

    def __init__(self, settings: Settings, now: Moment, chance: random.Random | None = None) -> None:
        self._chance: Final = chance or random.Random()
        self._settings = settings
        self._captures: dict[str, Capture] = {}
        self._sendings: dict[str, Sending] = {}
        self._gone_captures: dict[str, Capture] = {}  # not configured any more, and still running
        self._gone_sendings: dict[str, Sending] = {}
        self._jobs: dict[str, bool] = {}  # waiting, in the order they came: whether a person asked for it
        self._job: str | None = None
        self._gate = inputs.Gate(uploads=False, session=False)
        self._lending = self._lent = self._stopping = False
        self._full_until: float | None = None
        self._told_held = False
        self._knows_gate = False  # until it is told of it, nothing is called held: it may be open
        self._wake: float | None = None
        self._adopt(settings, now.boot)

    @property
    def wake_at(self) -> float | None:
        """When to `take` a `Tick` (seconds of `Moment.boot`); later than the last `now`. None: nothing is foreseen."""
        return self._wake

    @property
    def is_held(self) -> bool:
        """Whether something waits that may only be uploaded once the vault was unlocked."""
        return not self._gate.uploads and any(one.wanted for one in self._sendings.values())

    @property
    def is_lent(self) -> bool:
        """Whether a command has the state directory, or waits for it."""
        return self._lending or self._lent

    @property
    def busy(self) -> frozenset[str]:
        """Sources of which a snapshot runs."""
        running = {name for name, one in self._captures.items() if one.running}
        return frozenset(running | self._gone_captures.keys())

    def due(self, now: Moment) -> Mapping[str, float | None]:
        """When each source is next (seconds of `Moment.boot`, may have passed when it waits for others)."""
        return {name: one.due_at(now.boot) for name, one in self._captures.items()}

    def changed(self, source: str) -> bool:
        """Whether something of a source is supposed to have changed since its last snapshot began."""
        return source in self._captures and self._captures[source].pace.open_since is not None

    def wants(self, provider: str) -> bool:
        """Whether something waits for a provider, as far as is known."""
        return provider in self._sendings and self._sendings[provider].wanted

    def covers(self, provider: str) -> bool:
        """Whether an upload to a provider runs that began after everything there is to send."""
        return provider in self._sendings and self._sendings[provider].covers

    def next_try(self, provider: str) -> float | None:
        """When a provider is tried next (seconds of `Moment.boot`); None: nothing waits for it, or it is tried now."""
        return self._sendings[provider].due_at() if provider in self._sendings else None

    def waiting_jobs(self) -> tuple[str, ...]:
        """Jobs whose time has come, and that wait: for another one, or for a session."""
        return tuple(self._jobs)

    def reload(self, settings: Settings, now: Moment) -> list[Action]:
        """Goes by other settings from now on. Jobs that only their time made due are to be told again, if it still
        has come by the new ones."""
        self._settings = settings
        self._adopt(settings, now.boot)
        return self._decide(now.boot)

    def take(self, said: Input, now: Moment) -> list[Action]:
        """What follows from an input."""
        return [*self._learn(said, now.boot), *self._decide(now.boot)]

    # -- learning -----------------------------------------------------------------------------------------------------

    def _adopt(self, settings: Settings, now: float) -> None:
        captures = {**self._captures, **self._gone_captures}
        sendings = {**self._sendings, **self._gone_sendings}
        for name, pace in settings.sources.items():
            if name in captures:
                captures[name].pace.change(pace, now)
            else:
                captures[name] = Capture(pace, self._chance, now)
        self._captures = {name: captures.pop(name) for name in settings.sources}
        self._gone_captures = {name: one for name, one in captures.items() if one.running}
        for name in settings.providers:
            sendings.setdefault(name, Sending(self._chance, now))
        self._sendings = {name: sendings.pop(name) for name in settings.providers}
        self._gone_sendings = {name: one for name, one in sendings.items() if one.running}
        self._jobs = {name: True for name, asked in self._jobs.items() if asked and name in settings.jobs}

    def _learn(self, said: Input, now: float) -> Iterator[Action]:
        match said:
            case inputs.Hint(source):
                if source in self._captures:
                    self._captures[source].pace.hint(now)
            case inputs.Back(source):
                if source in self._captures:
                    self._captures[source].back(now)
            case inputs.Asked(source):
                if source in self._captures:
                    self._captures[source].ask()
                self._hurry(now)
            case inputs.SnapshotEnded():
                yield from self._snapshot_ended(said, now)
            case inputs.UploadEnded():
                yield from self._upload_ended(said, now)
            case inputs.Waiting(provider, size):
                if provider in self._sendings and size:
                    self._sendings[provider].want()
            case inputs.Room(free):
                yield from self._room(now, free=free)
            case inputs.JobDue() | inputs.JobEnded():
                self._of_jobs(said, now)
            case inputs.Gate():
                yield from self._opened_or_closed(said, now)
            case inputs.Resumed():
                for one in self._captures.values():
                    one.back(now)
                self._hurry(now)
            case inputs.Lend() | inputs.Returned() | inputs.Stop():
                yield from self._of_lending(said)
            case inputs.Tick():
                pass

    def _snapshot_ended(self, said: inputs.SnapshotEnded, now: float) -> Iterator[Action]:
        self._gone_captures.pop(said.source, None)
        if said.source in self._captures:
            self._captures[said.source].end(said.how, now)
        if said.made:
            for one in self._sendings.values():
                one.want()
            self._hurry(now)
        if said.how is How.FULL:
            if self._full_until is None:
                yield Publish(Kind.OUTBOX_FULL)
            self._full_until = now + ROOM_AGAIN

    def _upload_ended(self, said: inputs.UploadEnded, now: float) -> Iterator[Action]:
        self._gone_sendings.pop(said.provider, None)
        one = self._sendings.get(said.provider)
        if one is not None and one.end(now, done=said.done, stopped=said.stopped, moved=said.moved):
            yield Publish(Kind.PROVIDER_BACK, {"provider": said.provider})

    def _room(self, now: float, *, free: bool) -> Iterator[Action]:
        if free and self._full_until is not None:
            self._full_until = None
            yield Publish(Kind.OUTBOX_FREED)
        elif not free and self._full_until is not None:
            self._full_until = now + ROOM_AGAIN

    def _of_jobs(self, said: inputs.JobDue | inputs.JobEnded, now: float) -> None:
        if isinstance(said, inputs.JobEnded):
            if self._job == said.name:
                self._job = None
            return
        terms = self._settings.jobs.get(said.name)
        if terms is None:
            return
        if terms.compares:
            for one in self._captures.values():
                one.pace.hint(now)
        elif said.asked or said.name != self._job:  # one that runs is what its time asks for
            self._jobs[said.name] = said.asked or self._jobs.get(said.name, False)

    def _opened_or_closed(self, said: inputs.Gate, now: float) -> Iterator[Action]:
        before, self._gate = self._gate, said
        self._knows_gate = True
        if said.uploads and not before.uploads:
            self._told_held = False
            self._hurry(now)
        elif before.uploads and not said.uploads:
            running = [name for name, one in self._sendings.items() if one.running]
            yield from (StopUpload(name) for name in [*running, *sorted(self._gone_sendings)])

    def _of_lending(self, said: inputs.Lend | inputs.Returned | inputs.Stop) -> Iterator[Action]:
        if isinstance(said, inputs.Returned):
            self._lending = self._lent = False
            return
        if isinstance(said, inputs.Stop):
            self._stopping = True
        elif self._lent or self._lending:
            return
        else:
            self._lending = True
        if self._uses_state():
            yield StopWork()

    def _hurry(self, now: float) -> None:
        for one in self._sendings.values():
            one.hurry(now)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _decide(self, now: float) -> list[Action]:
        if self._stopping or self._lending or self._lent:
            self._wake = None
            if self._lending and not self._stopping and not self._uses_state():
                self._lending, self._lent = False, True
                return [HandOver()]
            return []
        actions = [*self._begin_snapshots(now), *self._begin_uploads(now), *self._begin_jobs()]
        self._wake = self._next(now)
        return actions

    def _uses_state(self) -> bool:
        job = self._job is not None and self._settings.jobs.get(self._job, JobTerms(inside=True)).inside
        sending = bool(self._gone_sendings) or any(one.running for one in self._sendings.values())
        return bool(self.busy) or sending or job

    def _begin_snapshots(self, now: float) -> Iterator[Action]:
        if self._full_until is not None and now < self._full_until:
            return
        due = [(at, name) for name, one in self._captures.items() if (at := one.due_at(now)) is not None and at <= now]
        # Who waits longest comes first: a source that always has something new keeps no other from its turn.
        for _, name in sorted(due):
            if len(self.busy) >= self._settings.at_once:
                return
            self._captures[name].begin(now)
            yield TakeSnapshot(name)

    def _begin_uploads(self, now: float) -> Iterator[Action]:
        if not self._gate.uploads:
            if self.is_held and self._knows_gate and not self._told_held:
                self._told_held = True
                yield Publish(Kind.HELD)
            return
        for name, one in self._sendings.items():
            at = one.due_at()
            if at is not None and at <= now:
                one.begin()
                yield Upload(name)

    def _begin_jobs(self) -> Iterator[Action]:
        if self._job is not None:
            return
        ready = [name for name in self._jobs if self._gate.session or not self._settings.jobs[name].session]
        if ready:
            self._job = ready[0]
            del self._jobs[self._job]
            yield RunJob(self._job)

    def _next(self, now: float) -> float | None:
        """When the next thing is due that only time keeps from beginning: what waits for a worker, for room, or for an
        unlock begins when that is told."""
        times = (
            [at for one in self._sendings.values() if (at := one.due_at()) is not None] if self._gate.uploads else []
        )
        if self._full_until is not None and now < self._full_until:
            times.append(self._full_until)
        elif len(self.busy) < self._settings.at_once:
            times += [at for one in self._captures.values() if (at := one.due_at(now)) is not None]
        return min(times, default=None)
