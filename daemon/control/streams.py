"""The answers that go on: events, a backup that is followed, a state directory that is lent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from aiohttp import web

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.reporting import report_values
from chatkeep.daemon.control.served import Served
from chatkeep.daemon.control.talk import Talk, talking
from chatkeep.daemon.control.wire import Line, fault
from chatkeep.daemon.service.events import Stream

PACE_SECONDS: Final = 0.1
"""Between two lines of progress: what is faster nobody can follow, and is only the latest then."""


class Streams:
    """Those that go on now. `count`: how many."""

    def __init__(self, served: Served, ending: asyncio.Event) -> None:
        self._served = served
        self._ending = ending
        self._lends = set[asyncio.Task[None]]()
        self.count = 0

    async def close(self) -> None:
        """What was lent is taken back, however it is."""
        for task in self._lends:
            task.cancel()
        await asyncio.gather(*self._lends, return_exceptions=True)

    async def events(self, request: web.BaseRequest) -> web.StreamResponse:
        """What happens from now on."""
        there = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with self._talking(request) as talk:
            with Stream(self._served.bus, wake=lambda: _wake(loop, there), name="control") as stream:
                await talk.say(Line.ALIVE)  # from here on nothing is missed without being told
                while not self._ending.is_set():
                    await talk.until(there, self._ending)
                    there.clear()
                    await _tell(talk, stream)
                await _tell(talk, stream)
                await talk.say(Line.END)
        return talk.response

    async def backup(self, request: web.BaseRequest, sources: Sequence[str]) -> web.StreamResponse:
        """A backup, with its progress. It goes on when who asked goes away."""
        latest: dict[str, tuple[int, int | None]] = {}
        news = asyncio.Event()

        def step(what: str, done: int, total: int | None) -> None:
            latest[what] = (done, total)
            news.set()

        async with self._talking(request) as talk:
            work = asyncio.ensure_future(self._served.backup(sources, step))
            work.add_done_callback(lambda _: news.set())
            try:
                while not work.done():
                    await talk.until(news)
                    news.clear()
                    for what, (done, total) in latest.items():
                        await talk.say(Line.PROGRESS, what=what, done=done, total=total)
                    latest.clear()
                    await asyncio.wait([work], timeout=PACE_SECONDS)
            finally:
                await _abandoned(work)
            try:
                await talk.say(Line.RESULT, report=report_values(work.result()))
            except ChatkeepError as exc:
                await talk.say(Line.ERROR, error=fault(exc))
        return talk.response

    async def lend(self, request: web.BaseRequest, command: str) -> web.StreamResponse:
        """The state directory, until the connection closes."""
        lent, back = asyncio.Event(), asyncio.Event()
        async with self._talking(request) as talk:
            work = asyncio.ensure_future(self._lending(command, lent, back))
            self._lends.add(work)
            work.add_done_callback(self._lends.discard)
            work.add_done_callback(lambda _: lent.set())
            try:
                await talk.until(lent, self._ending)
                if work.done():
                    await _say_why(talk, work)
                elif lent.is_set():
                    await talk.say(Line.LENT)
                    # Nothing more is said: who borrowed is at work and reads nothing, and what is not read piles up.
                    await self._ending.wait()
                    await talk.say(Line.END)
                else:
                    await talk.say(Line.END)
            finally:
                # Whoever had it is gone, whichever way: it is taken back, which may take longer than this answer.
                back.set()
                if not lent.is_set():
                    work.cancel()
        return talk.response

    async def _lending(self, command: str, lent: asyncio.Event, back: asyncio.Event) -> None:
        async with self._served.lend(command):
            lent.set()
            await back.wait()

    @contextlib.asynccontextmanager
    async def _talking(self, request: web.BaseRequest) -> AsyncIterator[Talk]:
        self.count += 1
        try:
            async with talking(request) as talk:
                yield talk
        finally:
            self.count -= 1


def _wake(loop: asyncio.AbstractEventLoop, there: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there any more
        loop.call_soon_threadsafe(there.set)


async def _tell(talk: Talk, stream: Stream) -> None:
    batch = stream.take()
    if batch.dropped:
        await talk.say(Line.DROPPED, count=batch.dropped)
    for event in batch.events:
        await talk.say(Line.EVENT, event=event.plain())


async def _abandoned(work: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more, if it still goes on."""
    if not work.done():
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await work


async def _say_why(talk: Talk, work: asyncio.Task[None]) -> None:
    try:
        work.result()
    except ChatkeepError as exc:
        await talk.say(Line.ERROR, error=fault(exc))
