"""The daemon: one for a state directory, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
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
from chatkeep.daemon.service.conducting.conductor import Conductor
from chatkeep.daemon.service.conducting.inputs import Input
from chatkeep.daemon.service.engine.engine import Engine
from chatkeep.daemon.service.engine.figures import EngineStanding
from chatkeep.daemon.service.engine.report import Report
from chatkeep.daemon.service.engine.steps import Step
from chatkeep.daemon.service.errors import NoSuchJob, NotReady, ReloadRefused
from chatkeep.daemon.service.events import Bus, Event, Kind, Plain
from chatkeep.daemon.service.job_notes import JobNotes, JobResult
from chatkeep.daemon.service.logind import Login, LoginSignal, Note
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.notify import Supervisor
from chatkeep.daemon.service.progress import Progress
from chatkeep.daemon.service.running import describing, settings
from chatkeep.daemon.service.running.asked import Asked
from chatkeep.daemon.service.running.errands import Errands
from chatkeep.daemon.service.running.gatekeeping import Gatekeeper
from chatkeep.daemon.service.running.pulse import Pulse
from chatkeep.daemon.service.running.recorded import recorded
from chatkeep.daemon.service.running.tenancy import Tenancy
from chatkeep.daemon.service.running.work import Work
from chatkeep.daemon.service.running.workers import Workers
from chatkeep.daemon.service.schedule import Schedule, intervals
from chatkeep.daemon.service.standing import Fault, Mode, Standing
from chatkeep.daemon.service.telling.notice import Notice, Said
from chatkeep.daemon.service.telling.teller import Teller
from chatkeep.daemon.service.uploads_open import UploadsOpen
from chatkeep.daemon.service.watching.watcher import Watcher

_LOG: Final = logging.getLogger(__name__)

WORK_SECONDS: Final = 2.5
"""That work gets to come to a safe point when the daemon ends; the service manager gives it five in all."""

FIGURES_SECONDS: Final = 0.5
"""For the records to say how far everything is; after that, what they said last counts."""

SETTLING: Final = 5.0
"""Seconds that the start waits for sources to be watched."""

STATUS_PACE: Final = 0.5
"""Seconds between two words to the service manager."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the daemon is given by whoever starts it.

    Attributes:
        load: reads the configuration. Raises ConfigError.
        job: the command line that does a job, in a process of its own.
        status: one line for people, for the service manager.
        phrase: puts what is worth telling into words.
        version: of the program.
        file: of the configuration, to be shown.
    """

    load: Callable[[], Config]
    job: Callable[[str], Sequence[str]]
    status: Callable[[Standing], str]
    phrase: Callable[[Notice], Said]
    version: str
    file: Path | None = None


class Daemon:
    """Serves what `control.served.Served` asks for. All of it in one event loop, that of `run`."""

    def __init__(self, terms: Terms, config: Config, bus: Bus, supervisor: Supervisor) -> None:
        self.bus: Final = bus
        self._terms = terms
        self._config = config
        self._supervisor = supervisor
        self._since = self._config_at = now()
        self._config_fault: Fault | None = None
        self._mode = Mode.STARTING
        self._failure: BaseException | None = None
        self._ends = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._progress = Progress()
        self._status: asyncio.TimerHandle | None = None
        self._schedule: Schedule | None = None

    # -- its life ---------------------------------------------------------------------------------------------------

    async def run(self, serving: Callable[[Daemon], AbstractAsyncContextManager[None]]) -> bool:
        """Runs until it is told to `stop`, or cannot go on; whether everything that ran came to its end.

        `serving`: lets it be asked, for the block. The service manager is told that it is ready when it can be.

        Raises ChatkeepError: why it cannot begin, or go on.
        """
        self._workers = Workers(self._progress)
        vault_id = await self._workers.call("device", lambda: settings.vault_of(self._config))
        self._vault_id = vault_id
        self._pulse = Pulse(self._supervisor, self._progress, self._tick, self._slept)
        self._login = Login(self._heard, self._noted, idle_after=settings.idle_after(self._config))
        self._keeper = Gatekeeper(
            self._config.session,
            vault_id,
            UploadsOpen(vault_id),
            self._workers,
            self.bus,
            self._gate,
            self._rearm,
            self._login.hold,
        )
        self._conductor = Conductor(settings.of(self._config), now())
        self._work = Work(self._workers, self.bus, self._tell, lambda: self._spawn(self._renew()))
        known = await self._workers.call("known", lambda: recorded(self._config))
        self._notes = JobNotes(self._config.state_dir)
        self._teller = Teller(self._config, self.bus, self._terms.phrase, known)
        self._tenancy = Tenancy(lambda: self._config, self._workers, self.bus, self._tell, self._opened, self._fail)
        self._errands = Errands(self._terms.job, self.bus, self._tell, self._job_ended)
        self._watcher = Watcher(self._config.sources, self._hinted, self.bus.publish, settings.rhythm(self._config))
        clean = False
        unsubscribe = self.bus.subscribe(lambda _: self._workers.say(self._changed), "status")
        try:
            async with serving(self):
                clean = await self._live()
        finally:
            unsubscribe()
            self._pulse.close()
        if self._failure is not None:
            raise self._failure
        return clean

    def stop(self, reason: str) -> None:
        """Ends it, soon."""
        if not self._ends.is_set():
            self._ends.set()
            self._publish(Kind.STOPPING, reason=reason)

    async def _live(self) -> bool:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, "signal")
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload()))
        self._tell(inputs.Lend())  # nothing begins before the state directory is ours
        self._spawn(self._begin())
        try:
            await self._ends.wait()
        finally:
            clean = await self._end()
        return clean

    async def _begin(self) -> None:
        self._pulse.start()
        # Watched first: what is compared at the start is then not compared again for what happened before it was.
        await self._workers.call("watch", self._watch)
        opened = await self._tenancy.try_open()
        self._supervisor.ready()
        self._publish(Kind.STARTED, version=self._terms.version)
        self._spawn(self._login.run())
        self._spawn(self._teller.run())
        await self._keeper.begin()
        self._gate()
        if not opened:
            await self._tenancy.open()
        self._mode = Mode.RUNNING
        self._schedule = Schedule(intervals(self._config), self._notes, lambda name: self._tell(inputs.JobDue(name)))
        self._schedule.start()
        self._changed()

    def _watch(self) -> None:
        self._watcher.start()
        self._watcher.settled(SETTLING)

    async def _end(self) -> bool:
        self._mode = Mode.STOPPING
        self._supervisor.stopping()
        self._pulse.stop()
        if self._schedule is not None:
            self._schedule.close()
        self._tell(inputs.Stop())
        self._tenancy.end()
        self._workers.stop()
        self._nobody_comes()
        for task in self._tasks:
            task.cancel()
        watched = asyncio.ensure_future(self._workers.call("unwatch", self._watcher.stop))
        clean = await self._workers.all_ended(WORK_SECONDS)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        watched.cancel()
        self._keeper.close()
        if clean:
            await self._tenancy.close()
        return clean

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something beside everything else. What goes wrong with it ends the daemon: its service manager starts
        it again, and nobody believes that it still does what it does not."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(error)

        task.add_done_callback(ended)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, asyncio.CancelledError):
            self._failure = self._failure or error
            self.stop("failed")

    @contextlib.asynccontextmanager
    async def lend(self, command: str) -> AsyncIterator[None]:
        """The state directory, for a command that needs it for itself."""
        if self._mode is not Mode.RUNNING:
            raise NotReady(reason=str(self._mode))
        async with self._tenancy.lent_to(command):
            yield

    async def _renew(self) -> None:
        """Closes and opens the records: damaged ones are moved aside, and others begun."""
        if self._mode is Mode.RUNNING:
            async with self._tenancy.lent_to(None):
                pass

    def _opened(self, engine: Engine) -> None:
        self._work.waiting(engine)
        self._tell(inputs.Returned())
        self._changed()

    # -- what it does -------------------------------------------------------------------------------------------------

    def _tell(self, said: Input) -> None:
        """Tells the conductor, and does what it decides."""
        self._apply(self._conductor.take(said, now()))

    def _apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case TakeSnapshot(source):
                    assert self._tenancy.engine is not None, "lent"
                    self._work.snapshot(self._tenancy.engine, source)
                case Upload(provider):
                    assert self._tenancy.engine is not None, "lent"
                    self._work.upload(self._tenancy.engine, provider)
                case StopUpload(provider):
                    self._workers.stop(f"upload {provider}")
                case RunJob(name):
                    self._spawn(self._errands.run(name))
                case StopWork():
                    self._workers.stop()
                    self._nobody_comes()
                case HandOver():
                    self._nobody_comes()
                    self._tenancy.handed()
                case Publish(kind, values):
                    self._publish(kind, **self._amounts(kind), **values)
        self._rearm()

    def _amounts(self, kind: Kind) -> dict[str, Plain]:
        figures = self._work.figures
        if figures is None or kind not in {Kind.HELD, Kind.OUTBOX_FULL, Kind.OUTBOX_FREED}:
            return {}
        return {"waiting": figures.waiting, **({} if kind is Kind.HELD else {"limit": figures.limit})}

    def _nobody_comes(self) -> None:
        """Whoever waits for a turn that has not begun is told that it will not."""
        self._work.snapshots.none_comes()
        self._work.uploads.none_comes()

    def _rearm(self) -> None:
        if self._mode is not Mode.STOPPING:
            times = [at for at in (self._conductor.wake_at, self._keeper.rules.wake_at) if at is not None]
            self._pulse.wake_at(min(times, default=None))

    def _tick(self) -> None:
        self._keeper.tick()
        self._tell(inputs.Tick())

    def _hinted(self, source: str, whole: bool) -> None:
        """In a thread of the watcher."""
        self._workers.say(lambda: self._hint(source, whole))

    def _hint(self, source: str, whole: bool) -> None:
        if whole and source in self._work.snapshot_faults:
            self._tell(inputs.Back(source))  # what was in the way may be gone
        self._tell(inputs.Hint(source))

    def _job_ended(self, name: str, result: JobResult, seconds: float) -> None:
        if self._schedule is not None:
            self._schedule.ended(name, result, seconds)

    def _gate(self) -> None:
        self._tell(inputs.Gate(self._keeper.rules.uploads, self._keeper.rules.session))
        if not self._keeper.rules.uploads:
            # No turn begins before somebody unlocks: whoever waits for one is told so, and not kept for hours.
            self._work.uploads.none_comes()

    def _heard(self, signal: LoginSignal) -> None:
        if signal is LoginSignal.SUSPEND:
            self._publish(Kind.SUSPENDED)
        elif signal is LoginSignal.RESUME:
            self._pulse.noticed_sleep()
            self._woke()
        self._keeper.login(signal)
        self._rearm()

    def _slept(self) -> None:
        """The clocks say so, and nobody else did."""
        self._keeper.login(LoginSignal.RESUME)
        self._woke()

    def _woke(self) -> None:
        self._publish(Kind.RESUMED)
        if self._schedule is not None:
            self._schedule.resumed()
        self._tell(inputs.Resumed())

    # -- what is asked of it ------------------------------------------------------------------------------------------

    async def standing(self) -> Standing:
        """How things stand now."""
        at, config = now(), self._config
        figures = await self._fresh_figures()
        of_sources = {one.name: one for one in figures.sources} if figures is not None else {}
        of_providers = {one.name: one for one in figures.providers} if figures is not None else {}
        required = {one.name: one.required for one in config.providers}
        sources = describing.sources(
            [one.name for one in config.sources],
            of_sources,
            self._work.snapshot_faults,
            self._watched(),
            self._conductor,
            at,
        )
        jobs = [describing.comparing(sources, float(config.watch.compare_every), at)]
        if self._schedule is not None:
            jobs += self._schedule.standing(self._conductor.waiting_jobs())
        return Standing(
            version=self._terms.version,
            pid=os.getpid(),
            since_ns=self._since.wall_ns,
            mode=Mode.LENT if self._mode is Mode.RUNNING and self._tenancy.engine is None else self._mode,
            vault=self._vault_id.hex(),
            session=describing.session(self._keeper, at),
            outbox=describing.outbox(figures, int(config.outbox.limit)),
            config=str(self._terms.file) if self._terms.file is not None else None,
            config_ns=self._config_at.wall_ns,
            config_fault=self._config_fault,
            lent=self._tenancy.tenant,
            doing=describing.doing(self._workers.pieces) + self._errands.doing,
            sources=sources,
            providers=describing.providers(required, of_providers, self._work.upload_faults, self._conductor, at),
            problems=describing.problems(self._teller.standing()),
            jobs=tuple(jobs),
        )

    def metrics(self) -> str:
        """Figures, in the text format of Prometheus."""
        return self._teller.metrics()

    async def backup(self, names: Sequence[str], step: Step) -> Report:
        """Takes a snapshot of these sources now, all if none is named, and sends what waits; see `control.served`."""
        if self._tenancy.engine is None or self._mode is not Mode.RUNNING:
            raise NotReady(reason="lent" if self._mode is Mode.RUNNING else str(self._mode))
        asked = Asked(self._config, self._work, self._conductor, self._tell, self._may_send)
        report = await asked.run(names, step)
        if (engine := self._tenancy.engine) is not None:
            report.waiting = await self._workers.call("waiting", engine.waiting)
        return report

    def _may_send(self) -> bool:
        return self._keeper.rules.uploads

    async def session(self) -> bool:
        """A session may have begun: adopts it; whether there is one."""
        return await self._keeper.look()

    async def lock(self) -> bool:
        """Ends the session; whether there was one."""
        return await self._keeper.lock()

    async def run_job(self, name: str) -> None:
        """Has a job run as soon as it can."""
        known = list(settings.of(self._config).jobs)
        if name not in known:
            raise NoSuchJob(name=name, known=known)
        self._tell(inputs.JobDue(name, asked=True))

    async def reload(self) -> None:
        """Reads the configuration again, and goes by it. Raises ConfigError: the one before goes on.

        It goes on when whoever asked goes away: cut off between, the parts of the daemon would go by different ones.
        """
        work = asyncio.ensure_future(self._read_again())
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        work.add_done_callback(lambda work: work.cancelled() or work.exception())  # told, or nobody is there any more
        await asyncio.shield(work)

    # -- how --------------------------------------------------------------------------------------------------------

    async def _read_again(self) -> None:
        async with self._reloading:  # what was read last is to hold in the end
            self._supervisor.reloading()
            try:
                config = await self._workers.call("load", self._terms.load)
                if config.state_dir != self._config.state_dir:
                    raise ReloadRefused(reason="state-dir")
            except ChatkeepError as exc:
                self._config_fault = Fault.of(exc, now().wall_ns)
                self.bus.publish(Event.failed(Kind.RELOAD_REFUSED, now(), exc))
                raise
            finally:
                self._supervisor.ready()
            await self._adopt(config)
            self._config_at, self._config_fault = now(), None
            self._publish(Kind.RELOADED)

    async def _adopt(self, config: Config) -> None:
        before = self._config
        if self._mode is Mode.RUNNING and any(getattr(before, key) != getattr(config, key) for key in settings.REOPENS):
            async with self._tenancy.lent_to(None):
                self._config = config
        self._config = config
        self._apply(self._conductor.reload(settings.of(config), now()))
        self._keeper.reload(config.session)
        self._teller.reload(config)
        self._login.idle_after = settings.idle_after(config)
        if self._schedule is not None:
            self._schedule.change(intervals(config))
        await self._workers.call("watch", lambda: self._watcher.change(config.sources, float(config.watch.poll_every)))
        if self._tenancy.engine is not None:
            self._work.waiting(self._tenancy.engine)

    async def _reload(self) -> None:
        with contextlib.suppress(ChatkeepError):  # told
            await self.reload()

    async def _fresh_figures(self) -> EngineStanding | None:
        engine = self._tenancy.engine
        if engine is not None:
            # What commits has the records for an instant; whoever asks how things stand waits for no more than that.
            with contextlib.suppress(ChatkeepError, TimeoutError):
                async with asyncio.timeout(FIGURES_SECONDS):
                    self._work.figures = await self._workers.call("figures", engine.standing)
        return self._work.figures

    def _watched(self) -> dict[str, str]:
        polled = dict.fromkeys(self._watcher.degraded, "polling")
        missing = {name for name, fault in self._work.snapshot_faults.items() if fault.code == "source-missing"}
        return {**polled, **dict.fromkeys(missing, "missing")}

    def _noted(self, note: Note) -> None:
        _LOG.log(logging.DEBUG if note is Note.WORKS else logging.INFO, "logind: %s", note.value)

    def _changed(self) -> None:
        """Something happened: soon the service manager is told how things stand."""
        if self._status is None and self._mode is not Mode.STOPPING:
            loop = asyncio.get_running_loop()
            self._status = loop.call_later(STATUS_PACE, lambda: self._spawn(self._say_how()))

    async def _say_how(self) -> None:
        self._status = None
        if self._supervisor.listens:
            self._supervisor.status(self._terms.status(await self.standing()))

    def _publish(self, kind: Kind, **values: Plain) -> None:
        self.bus.publish(Event(kind, now(), values))
