"""The engine of the simulated week: the real one over real records. Only what it asks storage about this device and its
keys is left out: storage is the right one whenever it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.service.engine.engine import LOOK_EVERY, Engine, Terms
from chatkeep.daemon.service.engine.looking import Looks, Place
from chatkeep.daemon.service.engine.steps import Stopped
from chatkeep.daemon.service.errors import OutboxFull
from chatkeep.daemon.state import OutboxLost
from chatkeep.daemon.sync.errors import NowhereWhole, OutboxDamaged
from chatkeep.daemon.sync.upload import Pace
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.providers import base
from chatkeep.providers.wrap import Patience
from tests.support.simulated_week_records import Records
from tests.support.simulated_week_storage import Storage

_NAP = 2.0


def opened(records: Records, now: Callable[[], float], wait: Callable[[float], None]) -> Working:
    """An engine as a daemon opens it. `now`, `wait`: of the world."""
    # A mirror that gives way looks again after a nap: there would be more of those than of anything else.
    pace = Pace(threads=1, patience=Patience(attempts=1), sleep=lambda seconds: wait(max(seconds, _NAP)))
    return Working(records, Terms(pace=pace, now=now))


class Working(Engine):
    """It captures nothing: that is done by the world."""

    def __init__(self, records: Records, terms: Terms) -> None:
        nobody = cast("WriterCredential", None)
        super().__init__(records.config, nobody, records.state, list(records.storages.values()), terms)
        places = list(self._places.values())
        self._looks = _Looks(self._config, self._state, nobody, places, self._sharing, terms.now, LOOK_EVERY)
        self._looks.places = places

    @property
    def is_full(self) -> bool:
        """Whether a snapshot would stop before it begins."""
        try:
            self._require_room()
        except OutboxFull:
            return True
        return False


class _Looks(Looks):
    """Storage that answers is the right one, and there are no other keys than these."""

    places: Sequence[Place]

    def prepare(self, cancelled: Stopped, *, anew: bool = False, now: bool = False) -> None:
        """Every now and then each that is not being sent to is asked."""
        if not self.is_due():
            return
        self._overdue, self._looked_at = False, self._now()
        for place in self.places:
            if place.lock.acquire(blocking=False):
                try:
                    up = _storage(place).up
                    place.refused = None if up else base.Unavailable(provider=place.provider.name)
                finally:
                    place.lock.release()

    def wrong_place(self, place: Place, cancelled: Stopped) -> ChatkeepError | None:
        """Why nothing may be sent there now."""
        if place.refused is not None:
            try:
                _storage(place).ask()
                place.refused = None
            except base.Unavailable as exc:
                place.refused = exc
        return place.refused

    def mend(self, problems: Sequence[ChatkeepError], cancelled: Stopped) -> None:
        """Nothing is lost that a chain would have to end for."""
        for one in problems:
            assert not isinstance(one, OutboxDamaged | OutboxLost | NowhereWhole), f"{one.code}: {one.params}"


def _storage(place: Place) -> Storage:
    assert isinstance(place.provider, Storage)
    return place.provider
