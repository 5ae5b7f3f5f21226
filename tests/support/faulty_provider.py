"""Wrappers that make storage fail on demand, and record what was asked of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from chatkeep.providers import base

T = TypeVar("T")
Verb = Literal["put", "get", "stat", "list", "delete", "probe"]


@dataclass
class Fault:
    """One way to fail, used up after `times` calls it applies to.

    Attributes:
        verb: the verb it hits.
        error: what is raised.
        after: the call takes effect first, and then its reply is lost.
        about: a part of the object names it hits; "" hits all.
        skip: so many calls pass before it begins.
        times: so many calls are hit; None: all from then on.
        fired: calls hit so far. A test asserts that it is what it should be.
    """

    verb: Verb
    error: base.ProviderError
    after: bool = False
    about: str = ""
    skip: int = 0
    times: int | None = 1
    fired: int = 0

    def hits(self, verb: Verb, name: str) -> bool:
        """Whether this call is hit. Counts it."""
        if verb != self.verb or self.about not in name or self.times == self.fired:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.fired += 1
        return True


class FaultyProvider:
    """Applies faults to the calls that reach a provider."""

    def __init__(self, inner: base.Provider, *faults: Fault) -> None:
        self.name = inner.name
        self.faults = list(faults)
        self._inner = inner
        self._lock = threading.Lock()

    def put(self, name: str, body: bytes) -> None:
        self._faulty("put", name, lambda: self._inner.put(name, body))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._faulty("get", name, lambda: self._inner.get(name, offset, length))

    def stat(self, name: str) -> base.ObjectStat:
        return self._faulty("stat", name, lambda: self._inner.stat(name))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        """A fault of `list` counts entries: it breaks off the listing at the entry it hits."""
        for found in self._inner.list(prefix):
            self._faulty("list", found.name, lambda: None)
            yield found

    def delete(self, name: str) -> None:
        self._faulty("delete", name, lambda: self._inner.delete(name))

    def probe(self) -> base.Capabilities:
        return self._faulty("probe", "", self._inner.probe)

    def close(self) -> None:
        self._inner.close()

    def _faulty(self, verb: Verb, name: str, call: Callable[[], T]) -> T:
        with self._lock:
            fault = next((each for each in self.faults if each.hits(verb, name)), None)
        if fault is None:
            return call()
        if fault.after:
            call()
        raise fault.error


@dataclass
class Call:
    """One call of a verb, with the order in which it began and ended among all events of its recorder."""

    verb: Verb
    name: str
    began: int
    ended: int | None = None
    error: str | None = None


@dataclass
class RecordingProvider:
    """Records puts, gets and deletes.

    `pause(name)` runs inside each put, before it takes effect: a test can hold it there.
    """

    inner: base.Provider
    pause: Callable[[str], None] = field(default=lambda _name: None)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.inner.name
        self.most_at_once = 0
        self._clock = 0
        self._running = 0
        self._lock = threading.Lock()

    def put(self, name: str, body: bytes) -> None:
        def paused() -> None:
            self.pause(name)
            self.inner.put(name, body)

        self._recorded("put", name, paused)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._recorded("get", name, lambda: self.inner.get(name, offset, length))

    def stat(self, name: str) -> base.ObjectStat:
        return self._recorded("stat", name, lambda: self.inner.stat(name))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        self._recorded("delete", name, lambda: self.inner.delete(name))

    def probe(self) -> base.Capabilities:
        return self.inner.probe()

    def close(self) -> None:
        self.inner.close()

    def _recorded(self, verb: Verb, name: str, call: Callable[[], T]) -> T:
        with self._lock:
            self._clock += 1
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            entry = Call(verb, name, self._clock)
            self.calls.append(entry)
        try:
            return call()
        except base.ProviderError as error:
            entry.error = error.code
            raise
        finally:
            with self._lock:
                self._clock += 1
                self._running -= 1
                entry.ended = self._clock
