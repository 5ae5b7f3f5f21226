"""Real code in the simulated week: it stands still wherever it waits for the world, and goes on when the world says so.

All of it is one thread, in which only one piece of work has its turn: so what happens is the same each time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

import greenlet  # type: ignore[import-untyped]


class Killed(BaseException):
    """The daemon was killed: nothing after this is done."""


class Strand:
    """One piece of work.

    Attributes:
        result: what it came to, once it has ended.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self.result: Any = None
        self._work = work
        self._greenlet = greenlet.greenlet(self._run)

    def go_on(self) -> float | None:
        """It goes on until it waits again: for how many seconds. None: it has ended. Raises what ended it."""
        seconds: float | None = self._greenlet.switch()
        return seconds

    def wait(self, seconds: float) -> None:
        """Called by the work itself: time passes."""
        self._greenlet.parent.switch(seconds)

    def kill(self) -> None:
        """It ends where it stands."""
        while self._greenlet:
            self._greenlet.throw(Killed)
        self._greenlet = None

    def _run(self) -> None:
        try:
            self.result = self._work()
        except Killed:
            return


class Inline:
    """In place of a pool of one thread: what is submitted is done at once."""

    def __init__(self, _threads: int, thread_name_prefix: str = "") -> None: ...

    def submit(self, work: Callable[..., Any], *given: Any) -> Future[Any]:
        """Done when this returns."""
        done: Future[Any] = Future()
        try:
            done.set_result(work(*given))
        except BaseException as exc:  # raised where the result is asked for
            done.set_exception(exc)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...
