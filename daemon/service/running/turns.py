"""Who waits for which piece of work."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Turns(Generic[Result]):
    """Work of which one piece runs at a time for each subject. Whoever asks for one waits for the next that begins: one
    that runs has begun too early. For the thread of the loop.

    A turn that ends with None did not take place: whoever waited for it is told so.
    """

    def __init__(self) -> None:
        self._next: dict[str, list[asyncio.Future[Result | None]]] = {}
        self._running: dict[str, list[asyncio.Future[Result | None]]] = {}

    def next(self, subject: str) -> asyncio.Future[Result | None]:
        """How the next turn ends that begins."""
        future: asyncio.Future[Result | None] = asyncio.get_running_loop().create_future()
        self._next.setdefault(subject, []).append(future)
        return future

    def current(self, subject: str) -> asyncio.Future[Result | None]:
        """How the turn ends that runs; without one, the next."""
        if subject not in self._running:
            return self.next(subject)
        future: asyncio.Future[Result | None] = asyncio.get_running_loop().create_future()
        self._running[subject].append(future)
        return future

    def began(self, subject: str) -> None:
        """A turn begins."""
        self._running[subject] = self._next.pop(subject, [])

    def ended(self, subject: str, result: Result | None) -> None:
        """It is over."""
        _tell(self._running.pop(subject, []), result)

    def none_comes(self) -> None:
        """No turn will begin for whoever waits for one."""
        waiting, self._next = self._next, {}
        for futures in waiting.values():
            _tell(futures, None)


def _tell(futures: list[asyncio.Future[Result | None]], result: Result | None) -> None:
    for future in futures:
        if not future.done():
            future.set_result(result)
