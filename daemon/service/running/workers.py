"""Work that blocks, away from the event loop, one thread for each piece of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from chatkeep.daemon.service.progress import Progress

Result = TypeVar("Result")


class Piece:
    """A piece of work that runs. Made by `Workers.begin`.

    Attributes:
        name: of no other piece that runs.
        since_ns: wall clock.
        done, total: bytes; total None: not known.
    """

    def __init__(self, name: str, progress: Progress) -> None:
        self.name: Final = name
        self.since_ns: Final = time.time_ns()
        self.done = 0
        self.total: int | None = None
        self._progress = progress
        self._stop = threading.Event()

    def stop(self) -> None:
        """Asks it to end at its next safe point."""
        self._stop.set()

    def stopped(self) -> bool:
        """Whether it is to end. That the work asks is a sign of life as well."""
        self._progress.moved(self.name, time.monotonic())
        return self._stop.is_set()

    def moved(self, done: int, total: int | None) -> None:
        """How far it is."""
        self.done, self.total = done, total
        self._progress.moved(self.name, time.monotonic())


class Workers:
    """Everything that runs. For the thread of the loop."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._pieces: dict[str, Piece] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What runs now."""
        return tuple(self._pieces.values())

    def begin(
        self,
        name: str,
        work: Callable[[Piece], Result],
        ended: Callable[[Result | None, BaseException | None], None],
    ) -> Piece:
        """Begins a piece of work; `ended` is called in the loop with what it returned, or raised.

        The thread is a daemon thread: one that hangs in a call of the system must not keep the process from ending.
        """
        piece: Piece = Piece(name, self._progress)
        assert name not in self._pieces, name
        self._pieces[name] = piece
        self._idle.clear()
        self._progress.began(name, time.monotonic())

        def finish(result: Result | None, error: BaseException | None) -> None:
            del self._pieces[name]
            if not self._pieces:
                self._idle.set()
            ended(result, error)

        def run() -> None:
            result: Result | None = None
            error: BaseException | None = None
            try:
                result = work(piece)
            except BaseException as exc:
                error = exc
            self._progress.ended(name)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=run, name=name, daemon=True).start()
        return piece

    async def call(self, name: str, work: Callable[[], Result]) -> Result:
        """The same for who waits for it. Cancelled, it goes on alone."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def ended(result: Result | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        number = 0
        while (unique := f"{name} {number}" if number else name) in self._pieces:
            number += 1
        self.begin(unique, lambda _piece: work(), ended)
        return await future

    def say(self, what: Callable[[], object]) -> None:
        """Has something called in the loop. For any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(what)

    def complain(self, error: BaseException) -> None:
        """A mistake of ours, which is nobody's to mend but ours."""
        self._loop.call_exception_handler({"message": "work failed", "exception": error})

    def stop(self, *names: str) -> None:
        """Asks these pieces to end at their next safe point; none named: all."""
        for name, piece in self._pieces.items():
            if not names or name in names:
                piece.stop()

    async def all_ended(self, seconds: float) -> bool:
        """Waits for everything that runs, so long at most; whether all of it ended."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True
