"""Keeping to a rate."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from chatkeep.config.amounts import UNLIMITED, Rate
from chatkeep.config.limits import Limit, in_force
from chatkeep.providers import base
from chatkeep.providers.wrap.around import Around, Pace
from chatkeep.providers.wrap.bucket import Bucket

_LONGEST: Final = 1.0  # seconds of one sleep: hours that begin or end are noticed after it
_NEXT: Final = 0.005  # seconds until who waits looks again whether the one before them went


class Lane:
    """One direction. Who came first goes first: were it left to chance, a connection would now and then be silent for
    so long that the other side gives it up, and all that it had carried would be sent again."""

    def __init__(self) -> None:
        self.bucket = Bucket()
        self.waiting: deque[object] = deque()


class Lanes:
    """What is on its way in both directions; asked by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent, self.received = Lane(), Lane()


class Limited(Around):
    """Sends and receives at most as fast as the limit of the hour says, all threads together.

    Sending is even where the provider is `Paced`; else an object goes at full speed, and the next one waits until it is
    paid for. So it is with receiving.

    Args:
        inner: what is called.
        limit: the rates, and their hours.
        sleep: waits that many seconds. It may raise to end the wait and the call.
        monotonic: seconds of a clock that never goes back. local: what time it is on the wall.
        lanes: what is shared with other wrappers of the same provider.
    """

    def __init__(
        self,
        inner: base.Provider,
        limit: Limit,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        local: Callable[[], time.struct_time] = time.localtime,
        lanes: Lanes | None = None,
    ) -> None:
        super().__init__(inner)
        self._limit, self._sleep, self._monotonic, self._local = limit, sleep, monotonic, local
        self._lanes = lanes or Lanes()
        self._paces = isinstance(inner, base.Paced) and limit.slows_uploads  # once: asking takes longer than a call

    def waiting(self, sleep: Callable[[float], None]) -> Limited:
        """The same provider, keeping to the same rates together with this one, that waits by `sleep`."""
        return Limited(self.inner, self._limit, sleep, self._monotonic, self._local, self._lanes)

    def put(self, name: str, body: bytes) -> None:
        if self._paces:
            self._put_paced(name, body, lambda _size: None)
        else:
            self._send(len(body))
            super().put(name, body)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._take_turn(self._lanes.received, lambda rates: rates[1], 0)
        body = super().get(name, offset, length)
        with self._lanes.lock:
            self._lanes.received.bucket.charge(len(body))
        return body

    def _put_paced(self, name: str, body: bytes, pace: Pace) -> None:
        raised: list[BaseException] = []

        def both(size: int) -> None:
            try:
                self._send(size)
            except BaseException as problem:
                raised.append(problem)
                raise
            pace(size)

        try:
            super()._put_paced(name, body, both)
        except base.ProviderError:
            # A client library may take what ends the wait for trouble with the line; the caller must not try again.
            if raised:
                raise raised[0] from None
            raise

    def _send(self, size: int) -> None:
        self._take_turn(self._lanes.sent, lambda rates: rates[0], size)

    def _take_turn(self, lane: Lane, which: Callable[[tuple[Rate, Rate]], Rate], size: int) -> None:
        ticket = object()
        with self._lanes.lock:
            lane.waiting.append(ticket)
        try:
            while True:
                with self._lanes.lock:
                    local = self._local()
                    rate = which(in_force(self._limit, local.tm_wday, local.tm_hour * 60 + local.tm_min))
                    wait = lane.bucket.wait(rate, self._monotonic())
                    if rate >= UNLIMITED:
                        return
                    if wait <= 0 and lane.waiting[0] is ticket:
                        lane.bucket.charge(size)
                        return
                self._sleep(min(wait, _LONGEST) if wait > 0 else _NEXT)
        finally:
            with self._lanes.lock:
                lane.waiting.remove(ticket)
