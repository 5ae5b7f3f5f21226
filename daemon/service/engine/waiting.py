"""Waits that can be cancelled, and that show that whoever waits is alive: who is asked whether to stop counts that as a
sign of life, and a daemon that gives none is ended by its service manager."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.service.engine.steps import Stopped
from chatkeep.providers import base

NAP: Final = 0.2  # seconds between two questions whether to stop, at most


@contextlib.contextmanager
def held(lock: threading.Lock, stopped: Stopped) -> Iterator[None]:
    """The lock, in the block. Raises Cancelled while it waits."""
    while not lock.acquire(timeout=NAP):
        if stopped():
            raise Cancelled
    try:
        yield
    finally:
        lock.release()


class Asked:
    """A provider that asks whether to stop before each call, and at each name of a listing. Raises Cancelled then."""

    def __init__(self, inner: base.Provider, stopped: Stopped) -> None:
        self.name = inner.name
        self._inner = inner
        self._stopped = stopped

    def put(self, name: str, body: bytes) -> None:
        self._go_on()
        self._inner.put(name, body)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._go_on()
        return self._inner.get(name, offset, length)

    def stat(self, name: str) -> base.ObjectStat:
        self._go_on()
        return self._inner.stat(name)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        self._go_on()
        for found in self._inner.list(prefix):
            self._go_on()
            yield found

    def delete(self, name: str) -> None:
        self._go_on()
        self._inner.delete(name)

    def probe(self) -> base.Capabilities:
        self._go_on()
        return self._inner.probe()

    def close(self) -> None:
        self._inner.close()

    def _go_on(self) -> None:
        if self._stopped():
            raise Cancelled
