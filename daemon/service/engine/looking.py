"""What storage says of this device, asked from time to time: may it go on from what it remembers, and in which epoch?

A command asks once. A daemon holds its records for weeks, while keys are changed and copies of it are made elsewhere:
it asks again before it works, when the last time is long ago. It never asks without work to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.service import device
from chatkeep.daemon.service.engine.repair import forget_known, give_up_damaged, give_up_lost, recover
from chatkeep.daemon.service.engine.report import Report
from chatkeep.daemon.service.engine.sharing import Sharing
from chatkeep.daemon.service.engine.start import Start
from chatkeep.daemon.service.engine.steps import Stopped
from chatkeep.daemon.service.engine.waiting import Asked, held
from chatkeep.daemon.state import OutboxLost, State
from chatkeep.daemon.sync.errors import NowhereWhole, OutboxDamaged
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.errors import DeviceRemoved
from chatkeep.providers.base import Provider
from chatkeep.providers.wrap import Patience

_UNASKED: Final = ChatkeepError()
# Whoever waits here wants to work; what one cannot be asked now is asked before anything is sent to it.
_BRIEFLY: Final = Patience(attempts=1)
_SHARE: Final = 100  # of the time that a look takes, until the next one


@dataclass
class Place:
    """One provider. `lock`: held while it is asked or sent to, since what arrives meanwhile is not in the records that
    were read before, and would pass for another copy's. `sending`: an upload to it runs. `leave`: that is to end, since
    it is not to be waited for any more."""

    provider: Provider
    lock: threading.Lock = field(default_factory=threading.Lock)
    refused: ChatkeepError | None = _UNASKED
    sending: bool = False
    leave: bool = False


class Looks:
    """What was found, and whether something follows that is not done yet. Thread-safe."""

    def __init__(
        self,
        config: Config,
        state: State,
        credential: WriterCredential,
        places: Sequence[Place],
        sharing: Sharing,
        now: Callable[[], float],
        every: float,
    ) -> None:
        self.credential = credential
        self.news = Report()
        self._config = config
        self._state = state
        self._places = places
        self._sharing = sharing
        self._now = now
        self._every = self._wait = every
        self._mutex = threading.Lock()
        self._start: Start | None = None
        self._looked_at = 0.0
        self._overdue = True
        self._moved: WriterCredential | None = None
        self._settled = False
        self._removed: DeviceRemoved | None = None

    def is_due(self) -> bool:
        """Whether storage is to be asked before anything else is done."""
        return self._overdue or self._now() - self._looked_at >= self._wait

    def prepare(self, cancelled: Stopped, *, anew: bool = False, now: bool = False) -> None:
        """Asks, if it is due or `now`, and does what follows. Nothing may be held of `sharing` by the caller.

        Raises:
            DeviceRemoved: this device was removed from the vault.
            StateLost, StateRolledBack: a person is to decide, or time; `anew` decides.
            Cancelled, StateError, CredentialRefused.
        """
        with held(self._mutex, cancelled):
            if now or self.is_due():
                self._ask(cancelled)
            if self._removed is not None:
                raise self._removed
            self._follow_up(cancelled, anew=anew)

    def glance(self, cancelled: Stopped) -> bool:
        """Asks, if it is due and nobody else does, while work goes on; whether something follows, so that the work is
        to let go and `prepare` to be called. Raises Cancelled."""
        if not self._mutex.acquire(blocking=False):
            return False
        try:
            if self.is_due():
                self._ask(cancelled)
            return self._removed is not None or not self._settled or self._moved is not None
        finally:
            self._mutex.release()

    def wrong_place(self, place: Place, cancelled: Stopped) -> ChatkeepError | None:
        """Why nothing may be sent there now: it cannot be asked, or holds another vault, or knows more of this device
        than its records. Asked until it is right. The caller has the place's lock, and has called `prepare`. Raises
        Cancelled."""
        if place.refused is None or self._start is None:
            return place.refused
        place.refused = self._start.late(Asked(place.provider, cancelled))
        if place.refused is not None and place.refused.code == "state-copied":
            self._overdue = True  # what follows is done before the next snapshot, or upload
        return place.refused

    def doubt(self, place: Place) -> None:
        """It is asked again before anything more is sent there. The caller has the place's lock."""
        place.refused = _UNASKED

    def take_news(self) -> Report:
        """What was found since the last time: `findings`, `notices`, `renewed` and `epoch` are filled. Nothing while
        somebody looks: whoever wants to know never waits for storage."""
        if not self._mutex.acquire(blocking=False):
            return Report()
        try:
            news, self.news = self.news, Report()
            if self._start is not None:
                self._start.report = self.news
            return news
        finally:
            self._mutex.release()

    def mend(self, problems: Sequence[ChatkeepError], cancelled: Stopped) -> None:
        """What is damaged in the outbox, or nowhere, is given up, and its source begins anew. As `prepare`."""
        if any(isinstance(problem, OutboxDamaged | OutboxLost | NowhereWhole) for problem in problems):
            with held(self._mutex, cancelled), self._sharing.alone(cancelled):
                self.news.renewed += give_up_damaged(self._state, self._config, problems)
                self.news.renewed += give_up_lost(self._state, self._config, problems)
                self.news.renewed += recover(self._state, self._config)  # the files of what was given up

    def forget_known(self, cancelled: Stopped) -> None:
        """What was known of streams that ended has served its end once every source stands without them. As
        `prepare`."""
        if not self._state.known.count() and not self._state.capsules.failures():
            return
        if not self._state.lineage.incomplete(source.name for source in self._config.sources):
            with held(self._mutex, cancelled), self._sharing.alone(cancelled):
                forget_known(self._state, self._config)

    def wipe(self) -> None:
        """Forgets the keys."""
        for credential in (self.credential, self._moved):
            if credential is not None:
                credential.wipe()

    def _ask(self, cancelled: Stopped) -> None:
        begun = self._now()
        start = Start(self._config, self.credential, self._state, self.news, patience=_BRIEFLY)
        free = [place for place in self._places if place.lock.acquire(blocking=False)]
        try:
            start.look([Asked(place.provider, cancelled) for place in free])
            for place in free:
                place.refused = start.refused[place.provider.name]
        finally:
            for place in free:
                place.lock.release()
        self._follow(cancelled)
        self._start, self._settled, self._looked_at, self._overdue = start, False, self._now(), False
        # A chain of a hundred thousand snapshots takes long to list: that is not done all day.
        self._wait = max(self._every, _SHARE * (self._looked_at - begun))

    def _follow(self, cancelled: Stopped) -> None:
        # A copy: it is wiped when there is a new one, and a snapshot may be in the middle of using the other.
        ours = device.load_credential(self._config)
        try:
            providers = [Asked(place.provider, cancelled) for place in self._places]
            followed = device.follow(self._config, providers, ours)
        except DeviceRemoved as exc:
            ours.wipe()
            self._removed = exc
            for source in self._config.sources:
                self._state.note_backup(source.name, time.time_ns(), 0, exc.code)  # for `status`, which asks no storage
            return
        except BaseException:
            ours.wipe()
            raise
        self._removed = None
        known = {finding.code for finding in self.news.findings}
        self.news.findings += [finding for finding in followed.findings if finding.code not in known]
        found = followed.credential
        if found.epoch > max(self.credential.epoch, self._moved.epoch if self._moved else 0):
            if self._moved is not None:
                self._moved.wipe()
            self._moved = found
            self.news.epoch = found.epoch
        else:
            found.wipe()

    def _follow_up(self, cancelled: Stopped, *, anew: bool) -> None:
        start = self._start
        assert start is not None, "asked above"
        if self._moved is not None:
            with self._sharing.alone(cancelled):
                self.credential.wipe()
                self.credential, self._moved = self._moved, None
                start.credential = self.credential
        if self._settled and self._state.lineage.lost() is None:
            return
        if start.ends_chains:
            with self._sharing.alone(cancelled):
                start.settle(anew=anew)
                # The files of what was given up, which nobody will ever send.
                self.news.renewed += recover(self._state, self._config)
        else:
            start.settle(anew=anew)
        self._settled = True
