"""Snapshots and uploads: begun when the conductor says so, told of when they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.inputs import How, Input
from chatkeep.daemon.service.engine.engine import Engine
from chatkeep.daemon.service.engine.figures import EngineStanding, ProviderFigures
from chatkeep.daemon.service.engine.report import Report, SourceReport
from chatkeep.daemon.service.engine.steps import Step
from chatkeep.daemon.service.errors import OutboxFull
from chatkeep.daemon.service.events import Bus, Event, Kind, Plain
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.running.turns import Turns
from chatkeep.daemon.service.running.workers import Piece, Workers
from chatkeep.daemon.service.standing import Fault
from chatkeep.daemon.state import StateDamaged
from chatkeep.daemon.sync.upload import UploadResult

Result = TypeVar("Result", covariant=True)

PACE: Final = 0.5
"""Seconds between two words of how far something is."""

SWEEP_EVERY: Final = 3600.0
"""Seconds between two deletions of what was pruned, at least."""


class Work:
    """What uses the open engine. For the thread of the loop.

    Args:
        tell: the conductor.
        damaged: called when the records turned out to be damaged for good.

    Attributes:
        snapshots, uploads: who waits for which, by source and by provider.
        snapshot_faults, upload_faults: why the last one failed.
        figures: what the records said last.
        reports: to be filled with what becomes of this device meanwhile.
        steps: called in the loop with how far what is.
    """

    def __init__(self, workers: Workers, bus: Bus, tell: Callable[[Input], None], damaged: Callable[[], None]) -> None:
        self._workers, self._bus, self._tell, self._damaged = workers, bus, tell, damaged
        self.snapshots: Final = Turns[SourceReport]()
        self.uploads: Final = Turns[UploadResult]()
        self.snapshot_faults: Final = dict[str, Fault]()
        self.upload_faults: Final = dict[str, Fault]()
        self.figures: EngineStanding | None = None
        self.reports: Final = list[Report]()
        self.steps: Final = list[Step]()
        self._swept: float | None = None

    def snapshot(self, engine: Engine, source: str) -> None:
        """Takes a snapshot of a source."""
        self.snapshots.began(source)
        self._publish(Kind.SNAPSHOT_BEGUN, source=source)
        told = _Told(engine)

        def work(piece: Piece) -> _Done[SourceReport]:
            report = engine.snapshot(source, lambda *at: self._step(piece, told, *at), piece.stopped)
            return _Done(report, engine)

        def ended(done: _Done[SourceReport] | None, error: BaseException | None) -> None:
            self._learn(done)
            self._snapshot_ended(done.result if done else SourceReport(source, None, _known(error), 0, 0))
            self._judge(done, error)
            if done is None:
                # What was committed before the error waits: on a full disk nothing but sending it makes room again.
                self.waiting(engine)

        self._workers.begin(f"snapshot {source}", work, ended)

    def upload(self, engine: Engine, provider: str) -> None:
        """Sends what waits to a provider."""
        self.uploads.began(provider)
        told = _Told(engine)

        def work(piece: Piece) -> _Done[UploadResult]:
            waiting = engine.backlog()[provider]
            self._workers.say(lambda: self._publish(Kind.UPLOAD_BEGUN, provider=provider, waiting=waiting))
            result = engine.upload(provider, lambda *at: self._step(piece, told, *at), piece.stopped)
            if result.objects and not result.problems and not piece.stopped():
                self._sweep(engine, piece)
            return _Done(result, engine)

        def ended(done: _Done[UploadResult] | None, error: BaseException | None) -> None:
            self._learn(done)
            failed = UploadResult(provider, 0, 0, {}, (_known(error),), cancelled=False)
            self._upload_ended(done.result if done else failed)
            self._judge(done, error)

        self._workers.begin(f"upload {provider}", work, ended)

    def lacks(self, provider: str) -> ProviderFigures | None:
        """How far a provider was when the records were last read."""
        figures = self.figures.providers if self.figures is not None else ()
        return next((one for one in figures if one.name == provider), None)

    def waiting(self, engine: Engine) -> None:
        """Tells the conductor what waits, and whether there is room, as the records have it."""

        def ended(done: _Done[None] | None, error: BaseException | None) -> None:
            self._learn(done)
            if done is not None:
                self._waiting(done.figures)
            self._judge(done, error)

        self._workers.begin(f"figures {time.monotonic_ns()}", lambda _: _Done(None, engine), ended)

    # -- how --------------------------------------------------------------------------------------------------------

    def _snapshot_ended(self, report: SourceReport) -> None:
        source, error, captured = report.name, report.error, report.captured
        newest = captured.newest if captured else None
        if captured is not None and newest is not None:
            self._publish(
                Kind.SNAPSHOT_MADE,
                source=source,
                snapshot=newest.seq,
                taken_ns=newest.clock,
                bytes=captured.stored_bytes,
                pending=captured.pending > 0,
            )
        elif captured is not None:
            self._publish(Kind.SNAPSHOT_NOTHING, source=source)
        if captured is not None:
            self.snapshot_faults.pop(source, None)
        how = How.STOPPED if captured is None else How.MADE if report.made else How.NOTHING
        if error is not None:
            how = How.FULL if isinstance(error, OutboxFull) else How.FAILED
            self._note(self.snapshot_faults, source, error)
            if how is How.FAILED:
                self._bus.publish(Event.failed(Kind.SNAPSHOT_FAILED, now(), error, source=source))
        self.snapshots.ended(source, report)  # first: the next one may begin at once
        self._tell(inputs.SnapshotEnded(source, how, report.made))

    def _upload_ended(self, result: UploadResult) -> None:
        provider, problems = result.provider, result.problems
        if problems:
            self._note(self.upload_faults, provider, problems[0])
            self._bus.publish(Event.failed(Kind.UPLOAD_FAILED, now(), problems[0], provider=provider))
        elif not result.cancelled:
            self.upload_faults.pop(provider, None)
            figure = self.lacks(provider)
            if figure is not None:
                self._publish(
                    Kind.UPLOAD_DONE,
                    provider=provider,
                    bytes=result.bytes,
                    waiting=figure.waiting,
                    acknowledged_ns=figure.acknowledged_ns,
                )
        done = not problems and not result.cancelled
        self.uploads.ended(provider, result)
        self._tell(inputs.UploadEnded(provider, done, result.cancelled and not problems, result.objects > 0))

    def _step(self, piece: Piece, told: _Told, what: str, done: int, total: int | None) -> None:
        """In the thread that works."""
        piece.moved(done, total)
        again, told.done = done < told.done, done
        figures = None
        if again and not what.startswith("to "):
            # A bounded snapshot was committed, and the next one began: what it made is sent beside it.
            figures = told.engine.standing()
        moment = time.monotonic()
        if figures is None and moment - told.at < PACE:
            return
        told.at = moment
        self._workers.say(lambda: self._stepped(what, done, total, figures))

    def _sweep(self, engine: Engine, piece: Piece) -> None:
        """Deletes what was pruned and whose time has come. In the thread that works: something was sent, so storage is
        there, and is not asked for this alone."""
        moment = time.monotonic()
        if self._swept is None or moment - self._swept >= SWEEP_EVERY:
            self._swept = moment
            engine.sweep(piece.stopped)

    def _stepped(self, what: str, done: int, total: int | None, figures: EngineStanding | None) -> None:
        if figures is not None:
            self._waiting(figures)
        if what.startswith("to ") and total is not None:
            self._publish(Kind.UPLOAD_PROGRESS, provider=what.removeprefix("to "), done=done, total=total)
        for step in list(self.steps):
            step(what, done, total)

    def _waiting(self, figures: EngineStanding) -> None:
        for provider in figures.providers:
            self._tell(inputs.Waiting(provider.name, provider.waiting))

    def _note(self, faults: dict[str, Fault], subject: str, error: ChatkeepError) -> None:
        before = faults.get(subject)
        since = before.since_ns if before is not None and before.code == error.code else now().wall_ns
        faults[subject] = Fault.of(error, since)

    def _learn(self, done: _Done[object] | None) -> None:
        if done is None:
            return
        self._compare(done.figures)
        self.figures = done.figures
        for error in (*done.news.findings, *done.news.notices):
            self._bus.publish(Event.failed(Kind.PROBLEM, now(), error, problem=error.code, subject="device"))
        for report in self.reports:
            report.findings += done.news.findings
            report.notices += done.news.notices
            report.renewed += done.news.renewed
            report.epoch = done.news.epoch or report.epoch

    def _compare(self, figures: EngineStanding) -> None:
        """Tells who was left behind, and who has caught up, since the last time."""
        before = {one.name for one in self.figures.providers if one.left_behind_ns} if self.figures else set()
        after = {one.name for one in figures.providers if one.left_behind_ns}
        for name in sorted(after - before):
            self._publish(Kind.LEFT_BEHIND, provider=name)
        for name in sorted(before - after):
            self._publish(Kind.CAUGHT_UP, provider=name)

    def _judge(self, done: _Done[object] | None, error: BaseException | None) -> None:
        if done is not None:
            self._tell(inputs.Room(not done.figures.full))
        elif isinstance(error, StateDamaged) and error.params.get("for_good"):
            self._damaged()
        elif error is not None and not isinstance(error, ChatkeepError):
            self._workers.complain(error)

    def _publish(self, kind: Kind, **values: Plain) -> None:
        self._bus.publish(Event(kind, now(), values))


class _Done(Generic[Result]):
    """What a piece of work came to, and the records after it. Made in the thread that worked."""

    def __init__(self, result: Result, engine: Engine) -> None:
        self.result = result
        self.figures = engine.standing()
        self.news = engine.take_news()


class _Told:
    """How far a piece of work was when that was last told."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.at = 0.0
        self.done = 0


def _known(error: BaseException | None) -> ChatkeepError:
    """The error itself; a mistake of ours by its type, the rest of it is in the log."""
    return error if isinstance(error, ChatkeepError) else ChatkeepError(error=type(error).__name__)
