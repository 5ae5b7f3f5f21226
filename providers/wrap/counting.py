"""Counting calls and bytes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from chatkeep.providers import base
from chatkeep.providers.wrap.around import Around, Pace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls made and bytes moved. `requests` counts calls of verbs; a provider may need several requests for one.

    Attributes:
        requests: calls, failed ones included. A listing is one, and its errors, which come later, are not counted.
        failed: those of them that raised.
        sent: bytes of objects that storage took.
        received: bytes of objects that `get` returned.
    """

    requests: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0


class Tallying(Around):
    """Tells what passes to `_note`, which says what becomes of it."""

    def put(self, name: str, body: bytes) -> None:
        super().put(name, body)
        self._note(sent=len(body))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        body = super().get(name, offset, length)
        self._note(received=len(body))
        return body

    def _put_paced(self, name: str, body: bytes, pace: Pace) -> None:
        super()._put_paced(name, body, pace)
        self._note(sent=len(body))

    def _adopt(self, name: str, path: Path) -> bool:
        size = os.stat(path).st_size  # before: its name may go as soon as storage has it
        taken = super()._adopt(name, path)
        if taken:
            self._note(sent=size)
        return taken

    def _call(self, verb: str, call: Callable[[], T]) -> T:
        self._note(verb)
        try:
            return call()
        except base.ProviderError:
            self._note(failed=1)
            raise

    def _note(self, verb: str = "", *, failed: int = 0, sent: int = 0, received: int = 0) -> None:
        raise NotImplementedError


class Counting(Tallying):
    """Counts what passes. Inside `Retrying` it sees every attempt, around it every call."""

    def __init__(self, inner: base.Provider) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._traffic = Traffic()

    @property
    def traffic(self) -> Traffic:
        """What passed until now."""
        return self._traffic

    def _note(self, verb: str = "", *, failed: int = 0, sent: int = 0, received: int = 0) -> None:
        with self._lock:  # several threads put at once, and adding is not one step
            old = self._traffic
            self._traffic = replace(
                old,
                requests=old.requests + bool(verb),
                failed=old.failed + failed,
                sent=old.sent + sent,
                received=old.received + received,
            )
