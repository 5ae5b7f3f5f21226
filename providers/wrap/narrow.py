"""So many calls at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from chatkeep.providers import base
from chatkeep.providers.wrap.around import Around, Pace

T = TypeVar("T")


class Narrow(Around):
    """Lets at most `most` calls through at the same time; the others wait for their turn.

    A put that is paced keeps its turn for as long as the rate makes it last. So puts of that kind leave one turn to all
    others, where there is more than one.
    """

    def __init__(self, inner: base.Provider, most: int) -> None:
        super().__init__(inner)
        self._turns = threading.BoundedSemaphore(most)
        self._slow = threading.BoundedSemaphore(max(1, most - 1))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        with self._turns:
            drawn = self.inner.list(prefix)
        return self._listing(drawn)

    def _listing(self, drawn: Iterator[base.ObjectStat]) -> Iterator[base.ObjectStat]:
        # A turn for each step: whoever asks for objects while a listing is drawn would wait for themselves.
        while True:
            with self._turns:
                found = next(drawn, None)
            if found is None:
                return
            yield found

    def _put_paced(self, name: str, body: bytes, pace: Pace) -> None:
        with self._slow:  # before the turn: who waits here holds none
            super()._put_paced(name, body, pace)

    def _call(self, verb: str, call: Callable[[], T]) -> T:  # noqa: ARG002  # each takes a turn
        with self._turns:
            return call()
