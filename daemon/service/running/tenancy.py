"""The state directory: ours, or lent to a command that needs it for itself."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.inputs import Input
from chatkeep.daemon.service.engine.engine import Engine
from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.running.workers import Workers
from chatkeep.daemon.state import StateBusy, StateFull, StateUnusable

BUSY_AGAIN: Final = 1.0
"""Seconds until a state directory that another process has is asked for again."""


class Tenancy:
    """For the thread of the loop. The conductor is to have been told `Lend` when it is made: nothing is open yet.

    Args:
        opened: called with the engine when it was opened.
        failed: called with what keeps it from being opened ever again.

    Attributes:
        engine: while the state directory is ours.
        tenant: the command that has it, or waits for it.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        workers: Workers,
        bus: Bus,
        tell: Callable[[Input], None],
        opened: Callable[[Engine], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._config, self._workers, self._bus, self._tell = config, workers, bus, tell
        self._opened, self._failed = opened, failed
        self.engine: Engine | None = None
        self.tenant: str | None = None
        self._one = asyncio.Lock()
        self._handed = asyncio.Event()
        self._trouble: str | None = None
        self._ends = False
        self._taking: asyncio.Future[None] | None = None

    def handed(self) -> None:
        """The conductor says that nothing uses it any more."""
        self._handed.set()

    async def try_open(self) -> bool:
        """Opens it; whether nobody else has it. Raises ChatkeepError: it cannot be opened."""
        try:
            engine = await self._opened_engine()
        except StateBusy as exc:
            self._wait(exc)
            return False
        if self._trouble is not None:
            self._bus.publish(Event.now(Kind.PROBLEM_OVER, problem=self._trouble, subject="state"))
            self._trouble = None
        self.engine = engine
        self._handed.clear()
        self._opened(engine)
        return True

    async def _opened_engine(self) -> Engine:
        while True:
            config = self._config()
            engine = await self._workers.call("open", functools.partial(Engine.open, config))
            if self._config() is config:
                return engine
            # Read again meanwhile: this one would know nothing of a source that the conductor sends it to.
            await asyncio.to_thread(engine.close)

    async def open(self) -> None:
        """The same, as soon as that is possible: a disk that is full or away is there again some day."""
        while True:
            try:
                if await self.try_open():
                    return
            except (StateFull, StateUnusable) as exc:
                self._wait(exc)
            await asyncio.sleep(BUSY_AGAIN)

    def _wait(self, why: ChatkeepError) -> None:
        """Tells what it waits for, once."""
        if self._trouble != why.code:
            self._trouble = why.code
            self._bus.publish(Event.failed(Kind.PROBLEM, now(), why, problem=why.code, subject="state"))

    @contextlib.asynccontextmanager
    async def lent_to(self, command: str | None) -> AsyncIterator[None]:
        """Closed for the block, once what uses it came to a safe point; opened again before the next one gets it. None:
        for ourselves."""
        await self._one.acquire()
        try:
            self.tenant = command
            self._tell(inputs.Lend())
            await self._handed.wait()
            await self._close()
            yield
        finally:
            # Whoever waits for that may go away as well; the next one gets it when it was taken back, and not before:
            # two that take back at once would each find it in use, for ever.
            self._taking = asyncio.ensure_future(self._taken_back())
            await asyncio.shield(self._taking)

    def end(self) -> None:
        """Nothing is taken back any more: the daemon ends, and whoever has it goes on with it."""
        self._ends = True
        if self._taking is not None:
            self._taking.cancel()

    async def close(self) -> None:
        """For good."""
        self.end()
        await self._close()

    async def _taken_back(self) -> None:
        try:
            if not self._ends:
                await self._take_back()
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._failed(exc)  # a daemon without its records must not look like one that works
            raise
        finally:
            self._one.release()

    async def _take_back(self) -> None:
        self.tenant = None
        if self.engine is None:
            await self.open()
        else:  # whoever asked went away before it was handed over
            self._handed.clear()
            self._tell(inputs.Returned())

    async def _close(self) -> None:
        engine, self.engine = self.engine, None
        if engine is None:
            return
        moved = await asyncio.to_thread(engine.close)
        if moved is not None:
            self._bus.publish(Event.failed(Kind.PROBLEM, now(), moved, problem=moved.code, subject="state"))
