"""The work of a daemon: this device's records, held open, and what is done with them from several threads."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.config.model import Config, Source
from chatkeep.daemon.backup.run import SourceResult
from chatkeep.daemon.backup.writer import BUDGET, Writer
from chatkeep.daemon.service import device, moment, storage
from chatkeep.daemon.service.engine import figures, letting_go, retaining, sweeping
from chatkeep.daemon.service.engine.capturing import capture
from chatkeep.daemon.service.engine.looking import Looks, Place
from chatkeep.daemon.service.engine.repair import recover
from chatkeep.daemon.service.engine.report import Report, SourceReport
from chatkeep.daemon.service.engine.sharing import Sharing
from chatkeep.daemon.service.engine.steps import Step, Stopped, unwatched
from chatkeep.daemon.service.engine.waiting import held
from chatkeep.daemon.service.errors import NotReady, OutboxFull
from chatkeep.daemon.state import State, StateDamaged, StateError, StateLost, StateMovedAside, StateRolledBack
from chatkeep.daemon.sync import catching_up
from chatkeep.daemon.sync import upload as sync
from chatkeep.daemon.sync.sweep import SweepResult
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.providers.base import Provider

LOOK_EVERY: Final = 600.0  # seconds; so long a change of keys may go unseen while there is work


def _boot() -> float:
    return moment.now().boot


@dataclass(frozen=True, slots=True)
class Terms:
    """How the engine works.

    Attributes:
        budget: bytes of new packs in one snapshot.
        pace: of uploads. One object at a time to each provider: killed, that is all that is sent again.
        look_every: seconds between two looks at storage, while there is work.
        now: a clock of seconds that goes on while the machine sleeps.
    """

    budget: int = BUDGET
    pace: sync.Pace = field(default_factory=lambda: sync.Pace(threads=1))
    look_every: float = LOOK_EVERY
    now: Callable[[], float] = _boot


class Engine:
    """Snapshots, uploads and deletions of one device, each in a thread of the caller's, side by side.

    One snapshot of a source at a time, and one upload to a provider; who asks for a second waits. What concerns all of
    them (chains that end, new keys) is done when the others are at a safe point, which they are brought to. An engine
    that is not asked for work asks no storage.

    A method that finds the records damaged for good raises StateDamaged, and so do those after it: the engine is to be
    closed, which moves the records aside, and opened again.
    """

    def __init__(
        self, config: Config, credential: WriterCredential, state: State, providers: Sequence[Provider], terms: Terms
    ) -> None:
        self._config = config
        self._state = state
        self._terms = terms
        self._ending = contextlib.ExitStack()
        self._places = {provider.name: Place(provider) for provider in providers}
        self._sources = {source.name: (source, threading.Lock()) for source in config.sources}
        self._sharing = Sharing()
        self._sweeping = threading.Lock()
        self._looks = Looks(
            config, state, credential, list(self._places.values()), self._sharing, terms.now, terms.look_every
        )
        self._looks.news.renewed += recover(state, config)
        letting_go.notice_gaps(config, state)
        # Killed before it: those who have everything are not sent to again, and for the others nothing would leave.
        self._let_go()
        if state.moved_aside is not None:
            self._looks.news.notices.append(StateMovedAside(path=str(state.moved_aside)))
        self._damaged: StateDamaged | None = None
        self._closed = False

    @classmethod
    def open(cls, config: Config, terms: Terms | None = None) -> Self:
        """The engine of the device that is set up, its records taken for this process. Asks no storage.

        Damaged records are moved aside, which `take_news` tells, and empty ones begun.

        Raises:
            CredentialRefused, UnsupportedVersion, Malformed: the key for writing.
            StateBusy: another process has the records.
            StateForeign, StateFull, StateUnusable, StateDamaged.
        """
        credential = device.load_credential(config)
        try:
            state = device.open_state(config, credential, anew=True)
        except BaseException:
            credential.wipe()
            raise
        try:
            with contextlib.ExitStack() as stack:
                providers = stack.enter_context(storage.opened(config.providers, patient=False))
                made = cls(config, credential, state, providers, terms or Terms())
                made._ending = stack.pop_all()
                return made
        except BaseException as exc:
            if isinstance(exc, StateDamaged) and exc.params.get("for_good"):
                state.give_up()
            state.close()
            credential.wipe()
            raise

    def close(self) -> StateMovedAside | None:
        """Ends it, once all that runs has: the caller cancels it. The records are free for another process then.

        Returns what is to be told when they were found damaged for good: they were moved aside.
        """
        with self._sharing.alone():
            if self._closed:
                return None
            self._closed = True
            moved = None
            try:
                if self._damaged is not None:
                    moved = StateMovedAside(path=str(self._state.give_up()))
            finally:
                self._ending.close()
                self._state.close()
                self._looks.wipe()
            return moved

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def vault_id(self) -> bytes:
        """The vault that this device writes."""
        return self._looks.credential.vault_id

    @property
    def device_id(self) -> bytes:
        """This device."""
        return self._looks.credential.device_id

    # -- work -------------------------------------------------------------------------------------------------------

    def look(self, cancelled: Stopped = bool, *, now: bool = False, anew: bool = False) -> None:
        """Asks storage about this device if that is due, or `now`, and does what follows. Snapshots and uploads do it
        themselves. `anew`: everything may be sent again, if the records do not say what is in the vault.

        Raises:
            DeviceRemoved, StateLost, StateRolledBack: nothing can be written as things are.
            Cancelled, StateError, CredentialRefused.
        """
        with self._working():
            self._looks.prepare(cancelled, anew=anew, now=now)

    def snapshot(
        self, source: str, step: Step = unwatched, cancelled: Stopped = bool, *, anew: bool = False
    ) -> SourceReport:
        """Snapshots of a source, one bounded one after the other, until the vault has all of it. Each stands when it is
        committed, and can be uploaded from then on.

        How it ended is in the report, and on record: `error` is OutboxFull when it stopped, or did not begin, because
        too much waits to be uploaded. `made` counts what was committed in any case. Without `error` and `captured` it
        was cancelled.

        Raises:
            StateError: it could not even be noted how it ended.
        """
        known, lock = self._sources[source]
        with self._working():
            begun = time.monotonic()
            try:
                with held(lock, cancelled):
                    report = self._snapshot(known, step, cancelled, anew=anew)
            except Cancelled:
                report = SourceReport(source, None, None, 0, 0)
            self._forget_known(cancelled)
            return dataclasses.replace(report, seconds=time.monotonic() - begun)

    def upload(self, provider: str, step: Step = unwatched, cancelled: Stopped = bool) -> sync.UploadResult:
        """Sends what the provider lacks as the call begins, and lets go of what all providers have. What was in the way
        is in the result and on record; a provider that lacks nothing is not asked anything.

        Raises:
            StateError: receipts cannot be read or recorded.
        """
        place = self._places[provider]
        with self._working():
            try:
                with held(place.lock, cancelled):  # after the one that runs
                    if not self._is_wanted(provider):
                        return sync.UploadResult(provider, 0, 0, {}, (), cancelled=False)
            except Cancelled:
                return sync.UploadResult(provider, 0, 0, {}, (), cancelled=True)
            result = self._upload(place, step, cancelled)
            with contextlib.suppress(Cancelled):  # the next upload finds the same
                self._looks.mend(result.problems, cancelled)
            return result

    def sweep(self, cancelled: Stopped = bool) -> list[SweepResult]:
        """Deletes at each provider what was pruned and whose time has come. Providers that are being sent to, and those
        that may not be written to, are left out. What went wrong is in the results. Raises StateError."""
        with (
            self._working(),
            contextlib.suppress(Cancelled),
            held(self._sweeping, cancelled),
            self._sharing.together(cancelled),
        ):
            return list(self._sweeps(lambda: cancelled() or self._sharing.wanted))
        return []

    # -- values -----------------------------------------------------------------------------------------------------

    def take_news(self) -> Report:
        """What became of this device and its records since the last time this was asked: `renewed`, `findings`,
        `notices` and `epoch` are filled, the rest is empty."""
        return self._looks.take_news()

    def backlog(self) -> dict[str, int]:
        """By provider, the bytes that it lacks."""
        with self._working():
            return {name: self._state.figures.waiting(name)[1] for name in self._places}

    def waiting(self) -> tuple[int, int]:
        """Objects and bytes that wait on this device."""
        with self._working():
            return self._state.outbox.waiting()

    def standing(self) -> figures.EngineStanding:
        """How far everything is, as values. Asks no storage."""
        with self._working():
            return figures.read(self._config, self._state, self._looks.credential.epoch)

    # -- how --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        if self._closed:
            raise NotReady(reason="stopping")
        if self._damaged is not None:
            raise self._damaged
        try:
            yield
        except StateDamaged as exc:
            if exc.params.get("for_good"):
                self._damaged = exc
            raise

    def _snapshot(self, source: Source, step: Step, cancelled: Stopped, *, anew: bool) -> SourceReport:
        result = SourceResult(source.name)
        made = 0
        while True:
            rounds = _Rounds(functools.partial(self._must_let_go, cancelled), self._require_room)
            try:
                self._looks.prepare(cancelled, anew=anew)
                self._require_room()
                with self._sharing.together(cancelled):
                    step(source.name, 0, None)
                    report = capture(self._writer(step, cancelled, rounds.between), source, result)
            except Cancelled:
                return SourceReport(source.name, None, None, made, 0)
            except ChatkeepError as exc:
                if isinstance(exc, StateError) and not isinstance(exc, StateLost | StateRolledBack):
                    raise
                self._state.note_backup(source.name, time.time_ns(), 0, exc.code)
                return SourceReport(source.name, None, exc, made, 0)
            made += report.made
            if not rounds.again or cancelled():
                return dataclasses.replace(report, made=made)

    def _writer(self, step: Step, cancelled: Stopped, between: Callable[[], None]) -> Writer:
        return Writer(
            self._looks.credential,
            self._state,
            report=lambda at: step(at.source, at.done, at.expected),
            cancelled=cancelled,
            between=between,
            budget=self._terms.budget,
        )

    def _must_let_go(self, cancelled: Stopped) -> bool:
        """Between two bounded snapshots: whether something is to be done that no snapshot may run beside."""
        return self._looks.glance(cancelled) or self._sharing.wanted

    def _require_room(self) -> None:
        limit, waiting = int(self._config.outbox.limit), self._state.outbox.waiting()[1]
        if waiting > limit:
            raise OutboxFull(limit=limit, waiting=waiting)

    def _forget_known(self, cancelled: Stopped) -> None:
        with contextlib.suppress(Cancelled):
            self._looks.forget_known(cancelled)

    def _is_wanted(self, provider: str) -> bool:
        """Whether something waits for it; or a trouble is on record that only asking it can end."""
        known = self._state.outbox.uploads().get(provider)
        lacks = self._state.figures.waiting(provider)[0] > 0 or provider in self._state.mirrors.behind()
        return lacks or (known is not None and known[1] is not None)

    def _upload(self, place: Place, step: Step, cancelled: Stopped) -> sync.UploadResult:
        name = place.provider.name
        total = sync.UploadResult(name, 0, 0, {}, (), cancelled=False)
        while True:
            try:
                self._looks.prepare(cancelled)
                # Its lock first: who waits to be alone waits for nobody who waits for a lock.
                with held(place.lock, cancelled), self._sharing.together(cancelled):
                    result = self._send(place, step, cancelled)
            except Cancelled:
                return dataclasses.replace(total, cancelled=True)
            except ChatkeepError as exc:
                if isinstance(exc, StateError) and not isinstance(exc, StateLost | StateRolledBack):
                    raise
                self._state.outbox.note_upload(name, time.time_ns(), exc.code)
                return dataclasses.replace(total, problems=(exc,))
            total = _added(total, result)
            if not result.cancelled or cancelled():
                return total

    def _send(self, place: Place, step: Step, cancelled: Stopped) -> sync.UploadResult:
        name, outbox = place.provider.name, self._state.outbox
        problem = self._looks.wrong_place(place, cancelled)
        if problem is not None:
            outbox.note_upload(name, time.time_ns(), problem.code)
            return sync.UploadResult(name, 0, 0, {}, (problem,), cancelled=False)
        others = [one for one in self._places.values() if one is not place]
        watch = catching_up.Watch(
            lambda at: step(f"to {name}", at.bytes, at.bytes_total),
            lambda: cancelled() or self._sharing.wanted or place.leave,
            lambda: any(one.sending for one in others),
        )
        try:
            with self._state.mirrors.turns:
                place.sending, place.leave = True, False
            result = catching_up.send(
                self._state, place.provider, [one.provider for one in others], watch, self._terms.pace
            )
        finally:
            place.sending = False
        if result.problems:
            # Another disk may be in its place when it is tried again.
            self._looks.doubt(place)
        if not result.problems and not result.cancelled:
            # If nothing waited nobody else says that the trouble there has passed.
            outbox.note_upload(name, time.time_ns(), None)
        self._let_go()
        return result

    def _let_go(self) -> None:
        """Every configured provider counts, also one that is away."""
        with self._state.mirrors.turns:
            at_work = [name for name, place in self._places.items() if place.sending]
            for name in letting_go.let_go(self._config, self._state, at_work):
                self._places[name].leave = True

    def _sweeps(self, cancelled: Stopped) -> Iterator[SweepResult]:
        for place in self._places.values():
            if place.refused is None and not cancelled() and place.lock.acquire(blocking=False):
                try:
                    yield from sweeping.sweep_all(
                        self._config, self._state, self._looks.credential, [place.provider], cancelled=cancelled
                    )
                    self._looks.news.notices += retaining.after_backup(
                        self._config, self._state, self._looks.credential, [place.provider], cancelled
                    )
                finally:
                    place.lock.release()


class _Rounds:
    """Between two bounded snapshots of one source: whether the next one may begin.

    Attributes:
        again: something is to be done first that no snapshot may run beside.
    """

    def __init__(self, must_let_go: Stopped, require_room: Callable[[], None]) -> None:
        self._must_let_go = must_let_go
        self._require_room = require_room
        self.again = False

    def between(self) -> None:
        """Raises Cancelled when the snapshot is to end here, OutboxFull when too much waits."""
        if self._must_let_go():
            self.again = True
            raise Cancelled
        self._require_room()


def _added(before: sync.UploadResult, last: sync.UploadResult) -> sync.UploadResult:
    """What was sent adds up; how it went is the last word."""
    return dataclasses.replace(
        last,
        objects=before.objects + last.objects,
        bytes=before.bytes + last.bytes,
        frontiers={**before.frontiers, **last.frontiers},
    )
