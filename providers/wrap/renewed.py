"""A provider whose key may be put right while it is open."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from chatkeep.providers import base
from chatkeep.providers.wrap.around import Around

T = TypeVar("T")
_LOG: Final = logging.getLogger(__name__)


class Renewed(Around):
    """Opens its provider anew after the storage refused the key, so that the next call goes by the key that is there
    then.

    Most providers read their key once. Without this a daemon would hold on to one that was revoked long after somebody
    put a new one in its place, and would be refused until it is started again.

    Args:
        inner: what is called: the provider itself, open.
        reopening: opens another of the same. Raises ProviderError while that cannot be done, which is what the calls
            raise then.
    """

    def __init__(self, inner: base.Provider, reopening: Callable[[], base.Provider]) -> None:
        super().__init__(inner)
        self._reopening = reopening
        self._lock = threading.Lock()
        self._calls = 0  # on their way
        self._refused = False
        self._before: Counter[str] = Counter()  # requests of those that were open before
        if isinstance(inner, base.Usage):
            self.requests = self._requests

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        return self._drawn(prefix)

    def _drawn(self, prefix: str) -> Iterator[base.ObjectStat]:
        with self._on_its_way():
            yield from self.inner.list(prefix)

    def _call(self, verb: str, call: Callable[[], T]) -> T:  # noqa: ARG002  # all the same
        with self._on_its_way():
            return call()

    @contextlib.contextmanager
    def _on_its_way(self) -> Iterator[None]:
        with self._lock:
            # Never below another call or a listing that is drawn: they would lose their connections.
            if self._refused and not self._calls:
                self._renew()
            self._calls += 1
        try:
            yield
        except base.LoginNeeded:
            raise  # a login is looked for by the provider itself, which asks nothing of the service until there is one
        except base.CredentialRefused:
            self._refused = True
            raise
        finally:
            with self._lock:
                self._calls -= 1

    def _renew(self) -> None:
        opened = self._reopening()
        old, self.inner, self._refused = self.inner, opened, False
        if isinstance(old, base.Usage):
            self._before.update(old.requests())
        old.close()
        _LOG.info("provider-reopened: %s", self.name)

    def _requests(self) -> Mapping[str, int]:
        with self._lock:
            inner, before = self.inner, self._before.copy()
        assert isinstance(inner, base.Usage)
        before.update(inner.requests())
        return dict(before)
