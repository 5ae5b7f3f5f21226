"""A provider that could not be opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from chatkeep.providers import base


class Unopened:
    """Opens at the next call what could not be opened before; until then each call raises why.

    One provider whose key is missing must not keep the others from getting their backup, and whoever puts the key back
    need not start anything again.

    Args:
        name: of the provider.
        opening: opens it. Raises ProviderError while that cannot be done.
    """

    def __init__(self, name: str, opening: Callable[[], base.Provider]) -> None:
        self.name = name
        self._opening = opening
        self._inner: base.Provider | None = None
        self._lock = threading.Lock()

    def put(self, name: str, body: bytes) -> None:
        self._opened().put(name, body)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._opened().get(name, offset, length)

    def stat(self, name: str) -> base.ObjectStat:
        return self._opened().stat(name)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return self._opened().list(prefix)

    def delete(self, name: str) -> None:
        self._opened().delete(name)

    def retain(self, name: str, until: float) -> None:
        """See `base.Retains`. Always there: what cannot be opened yet may hold objects later, and is asked then."""
        inner = self._opened()
        if not isinstance(inner, base.Retains):
            raise base.PermissionRefused(provider=self.name, object=name, reason="no-lock")
        inner.retain(name, until)

    def probe(self) -> base.Capabilities:
        return self._opened().probe()

    def close(self) -> None:
        with self._lock:
            if self._inner is not None:
                self._inner.close()

    def _opened(self) -> base.Provider:
        with self._lock:
            if self._inner is None:
                self._inner = self._opening()
            return self._inner
