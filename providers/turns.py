"""Turns among the threads of this process, one name at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Turns:
    """For storage that cannot itself keep writers of one name apart: at least those of one process are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, tuple[threading.Lock, int]] = {}  # with how many have it or wait for it

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """While no other thread is in such a block with that name."""
        with self._lock:
            turn, count = self._taken.get(name, (threading.Lock(), 0))
            self._taken[name] = (turn, count + 1)
        try:
            with turn:
                yield
        finally:
            with self._lock:
                turn, count = self._taken[name]
                if count == 1:
                    del self._taken[name]
                else:
                    self._taken[name] = (turn, count - 1)
