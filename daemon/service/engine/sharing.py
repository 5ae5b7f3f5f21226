"""Who may work beside whom: snapshots, uploads and deletions together; what ends chains of snapshots, alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.service.engine.steps import Stopped
from chatkeep.daemon.service.engine.waiting import NAP


class Sharing:
    """A lock that many hold together, or one alone. Who wants it alone goes first, and `wanted` tells the others, who
    let go at their next safe point. No thread may ask for it while it has it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._waiting = 0
        self._alone = False

    @property
    def wanted(self) -> bool:
        """Whether somebody waits to be alone."""
        return self._waiting > 0

    @contextlib.contextmanager
    def together(self, cancelled: Stopped = bool) -> Iterator[None]:
        """Beside others. Raises Cancelled while it waits."""
        with self._changed:
            while self._alone or self._waiting:
                self._wait(cancelled)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self, cancelled: Stopped = bool) -> Iterator[None]:
        """Once everybody let go. Raises Cancelled while it waits."""
        with self._changed:
            self._waiting += 1
            try:
                while self._alone or self._together:
                    self._wait(cancelled)
                self._alone = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _wait(self, cancelled: Stopped) -> None:
        if cancelled():
            raise Cancelled
        self._changed.wait(NAP)
