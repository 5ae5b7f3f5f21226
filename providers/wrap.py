"""Providers around a provider: trying again, counting. Each is a `base.Provider`; none changes what a verb promises."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from chatkeep.config.errors import Disposition
from chatkeep.providers import base

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to try.

    Attributes:
        attempts: calls in all, at least 1.
        first: seconds before the second attempt; each further wait doubles.
        longest: most seconds of one wait. A storage that asks for more is not waited for: the caller, who knows of
            other work, gets the error.
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 30.0

    def wait(self, attempt: int, error: base.ProviderError, chance: float) -> float | None:
        """Seconds to wait after the failed attempt of that number (from 1), or None to give up.

        Pure: `chance` in [0, 1) is the jitter, which spreads devices that lost the same server at the same instant.
        Half of the wait is kept, so that a server is never hit at once.
        """
        if error.disposition is not Disposition.RETRY or attempt >= self.attempts:
            return None
        wait = min(self.longest, self.first * 2.0 ** (attempt - 1)) * (0.5 + 0.5 * chance)
        asked = error.after if isinstance(error, base.Throttled) else None
        if asked is None:
            return wait
        return None if asked > self.longest else max(wait, asked)


class Retrying:
    """Repeats calls whose error says that the same call may succeed later; raises the last error when it gives up.

    Sound because every verb is idempotent. Only the disposition decides: what needs a person is not repeated at it.

    Args:
        inner: what is called.
        patience: bounds.
        sleep: waits that many seconds. It may raise (`Cancelled`, say) to end the wait and the call.
        chance: source of jitter, in [0, 1).
    """

    def __init__(
        self,
        inner: base.Provider,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = inner.name
        self._inner = inner
        self._patience = patience or Patience()
        self._sleep = sleep
        self._chance = chance

    def put(self, name: str, body: bytes) -> None:
        self._again(lambda: self._inner.put(name, body))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._again(lambda: self._inner.get(name, offset, length))

    def stat(self, name: str) -> base.ObjectStat:
        return self._again(lambda: self._inner.stat(name))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        return self._listing(prefix)

    def delete(self, name: str) -> None:
        self._again(lambda: self._inner.delete(name))

    def probe(self) -> base.Capabilities:
        return self._again(self._inner.probe)

    def close(self) -> None:
        self._inner.close()

    def _again(self, call: Callable[[], T]) -> T:
        attempt = 1
        while True:
            try:
                return call()
            except base.ProviderError as error:
                self._pause(attempt, error)
            attempt += 1

    def _listing(self, prefix: str) -> Iterator[base.ObjectStat]:
        """Begins anew after an error and leaves out what was already given: a position in a listing is not portable,
        and giving up what was listed would make a listing of many pages never end on a poor line."""
        given: set[str] = set()
        attempt = 1
        while True:
            try:
                for found in self._inner.list(prefix):
                    if found.name not in given:
                        given.add(found.name)
                        attempt = 1  # it moves: the bound is for a listing that does not
                        yield found
                return
            except base.ProviderError as error:
                self._pause(attempt, error)
            attempt += 1

    def _pause(self, attempt: int, error: base.ProviderError) -> None:
        wait = self._patience.wait(attempt, error, self._chance())
        if wait is None:
            raise error
        self._sleep(wait)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls made and bytes moved. `requests` counts calls of verbs; a provider may need several requests for one.

    Attributes:
        requests: calls, failed ones included. A listing is one, and its errors, which come later, are not counted.
        failed: those of them that raised.
        sent: bytes of objects given to `put` calls that returned.
        received: bytes of objects that `get` returned.
    """

    requests: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0


class CountingProvider:
    """Counts what passes. Inside `Retrying` it sees every attempt, around it every call."""

    def __init__(self, inner: base.Provider) -> None:
        self.name = inner.name
        self._inner = inner
        self._lock = threading.Lock()
        self._traffic = Traffic()

    @property
    def traffic(self) -> Traffic:
        """What passed until now."""
        return self._traffic

    def put(self, name: str, body: bytes) -> None:
        self._counted(lambda: self._inner.put(name, body))
        self._add(sent=len(body))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        body = self._counted(lambda: self._inner.get(name, offset, length))
        self._add(received=len(body))
        return body

    def stat(self, name: str) -> base.ObjectStat:
        return self._counted(lambda: self._inner.stat(name))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return self._counted(lambda: self._inner.list(prefix))

    def delete(self, name: str) -> None:
        self._counted(lambda: self._inner.delete(name))

    def probe(self) -> base.Capabilities:
        return self._counted(self._inner.probe)

    def close(self) -> None:
        self._inner.close()

    def _counted(self, call: Callable[[], T]) -> T:
        self._add(requests=1)
        try:
            return call()
        except base.ProviderError:
            self._add(failed=1)
            raise

    def _add(self, requests: int = 0, failed: int = 0, sent: int = 0, received: int = 0) -> None:
        with self._lock:  # several threads put at once, and adding is not one step
            old = self._traffic
            self._traffic = replace(
                old,
                requests=old.requests + requests,
                failed=old.failed + failed,
                sent=old.sent + sent,
                received=old.received + received,
            )
