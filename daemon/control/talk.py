"""An answer that goes on: lines of JSON, until the last one. A reader that is slow holds up nobody but itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from chatkeep.daemon.control.wire import ALIVE_SECONDS, HEADER, LINES, VERSION, Line

STALLED_SECONDS: Final = 60.0
"""So long nothing was read on the other side: it is given up. What it missed meanwhile was bounded."""


class Talk:
    """One answer, begun."""

    def __init__(self, response: web.StreamResponse, transport: asyncio.Transport | None) -> None:
        self.response = response
        self._transport = transport

    async def say(self, line: Line, **values: object) -> None:
        """One line; waits while the other side does not read. Raises ConnectionError: it is gone, or given up."""
        raw = json.dumps({"line": line.value, **values}, separators=(",", ":")).encode() + b"\n"
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await self.response.write(raw)
        except TimeoutError as exc:
            if self._transport is not None:
                self._transport.abort()
            raise ConnectionResetError from exc

    async def until(self, *wanted: asyncio.Event) -> None:
        """Waits for one of these, and says meanwhile that it goes on."""
        waiting = [asyncio.ensure_future(each.wait()) for each in wanted]
        try:
            while not any(each.is_set() for each in wanted):
                await asyncio.wait(waiting, timeout=ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not any(each.is_set() for each in wanted):
                    await self.say(Line.ALIVE)
        finally:
            for each in waiting:
                each.cancel()


@contextlib.asynccontextmanager
async def talking(request: web.BaseRequest) -> AsyncIterator[Talk]:
    """Begins an answer of many lines, and ends it with the block."""
    response = web.StreamResponse(headers={HEADER: VERSION, "Content-Type": LINES, "Cache-Control": "no-store"})
    response.force_close()
    response.enable_chunked_encoding()
    await response.prepare(request)
    talk = Talk(response, request.transport)
    yield talk
    async with asyncio.timeout(STALLED_SECONDS):
        await response.write_eof()
