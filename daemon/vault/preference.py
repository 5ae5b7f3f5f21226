"""Which provider is asked first, when several have the same object: one that answers, before one that does not.

One that cannot be reached costs a time-out, with every attempt to try again. Asked first for each of a hundred thousand
objects, it would make a restore last for months while another provider has everything. So one that failed rests, and
one that is slow beside another comes behind it. Both are asked all the same when no other has the object.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from chatkeep.providers import base

T = TypeVar("T")

REST: Final = 30.0  # seconds, at least, that one rests that failed
SHARE: Final = 20  # and this times as long as its failure took: of a restore it then takes one part in twenty
SLOW: Final = 2.0  # seconds for a get: less is not worth another order
TIMES: Final = 4.0  # so many times slower than another one
_WEIGHT: Final = 0.3  # of the newest get in the mean
_ABOUT_ONE: Final = (base.ObjectNotFound, base.ObjectDamaged, base.ObjectConflict, base.InvalidName)
"""What a storage says of one object: it answers."""


class Watched:
    """A provider, and how it answered lately. Threads may share it."""

    def __init__(self, inner: base.Provider, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = inner.name
        self._inner = inner
        self._clock = clock
        self._lock = threading.Lock()
        self._until = 0.0
        self._mean: float | None = None
        self._problem: base.ProviderError | None = None

    @property
    def problem(self) -> base.ProviderError | None:
        """Why it failed when it did last."""
        return self._problem

    @property
    def rests(self) -> bool:
        """Whether it failed a short while ago."""
        return self._clock() < self._until

    @property
    def mean(self) -> float | None:
        """Seconds that a get takes, the latest ones counting most; None: none was made."""
        return self._mean

    def put(self, name: str, body: bytes) -> None:
        self._asked(lambda: self._inner.put(name, body))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        begun = self._clock()
        body = self._asked(lambda: self._inner.get(name, offset, length))
        taken = self._clock() - begun
        with self._lock:
            self._mean = taken if self._mean is None else self._mean + _WEIGHT * (taken - self._mean)
        return body

    def stat(self, name: str) -> base.ObjectStat:
        return self._asked(lambda: self._inner.stat(name))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        begun = self._clock()
        try:
            yield from self._inner.list(prefix)
        except base.ProviderError as problem:
            self._failed(begun, problem)
            raise

    def delete(self, name: str) -> None:
        self._asked(lambda: self._inner.delete(name))

    def probe(self) -> base.Capabilities:
        return self._asked(self._inner.probe)

    def close(self) -> None:
        self._inner.close()

    def _asked(self, call: Callable[[], T]) -> T:
        begun = self._clock()
        try:
            result = call()
        except _ABOUT_ONE:
            self._answered()
            raise
        except base.ProviderError as problem:
            self._failed(begun, problem)
            raise
        self._answered()
        return result

    def _answered(self) -> None:
        with self._lock:
            self._until = 0.0

    def _failed(self, begun: float, problem: base.ProviderError) -> None:
        now = self._clock()
        with self._lock:
            self._problem = problem
            self._until = now + max(REST, SHARE * (now - begun))


def watched(providers: Sequence[base.Provider]) -> Sequence[base.Provider]:
    """The providers, watched if there are several: with one there is no order."""
    return [Watched(one) for one in providers] if len(providers) > 1 else providers


def in_order(providers: Sequence[base.Provider]) -> list[int]:
    """The numbers of the providers, in the order in which they are to be asked now."""
    known = [one.mean for one in providers if isinstance(one, Watched) and not one.rests]
    best = min((0.0 if mean is None else mean for mean in known), default=0.0)

    def weight(number: int) -> tuple[bool, bool, int]:
        one = providers[number]
        if not isinstance(one, Watched):
            return False, False, number
        slow = one.mean is not None and one.mean > SLOW and one.mean > TIMES * best
        return one.rests, slow, number

    return sorted(range(len(providers)), key=weight)


def why_it_rests(provider: base.Provider) -> base.ProviderError | None:
    """How it failed a short while ago; None: it did not."""
    return provider.problem if isinstance(provider, Watched) and provider.rests else None
