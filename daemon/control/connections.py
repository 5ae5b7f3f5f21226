"""Who is connected to the control socket, and for how long: this user's own, a bounded number, none that only waits.

What a connection carries is for HTTP, in `api`. A connection carries one request.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

from aiohttp import web

from chatkeep.daemon.service.places import peer

CONNECTIONS: Final = 256
"""At a time. One more takes the place of the one that has waited longest without asking anything."""

REQUEST_SECONDS: Final = 10.0
"""For a request to be there with its body."""

ANSWER_SECONDS: Final = 90.0
"""For all of it, where the answer is no stream: one that is not read in time is given up."""


class Connections:
    """All of them. `refused`: how many were not this user's."""

    def __init__(self, uid: int | None = None) -> None:
        self._uid = os.geteuid() if uid is None else uid
        self._open: dict[asyncio.Protocol, Connection] = {}  # those that did not ask yet: the oldest first
        self.refused = 0

    def accept(self, http: Callable[[], web.RequestHandler]) -> Connection:
        """What asyncio makes for each one."""
        return Connection(self, http())

    def of(self, request: web.BaseRequest) -> Connection | None:
        """The one that a request came by; None when it is gone."""
        return self._open.get(request.protocol)

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, new: Connection, transport: asyncio.Transport) -> bool:
        """Whether a new one may stay; keeps it then."""
        found = transport.get_extra_info("socket")
        # The directory keeps others out already. Root could get in, and has no business here unless the daemon is its.
        if found is None or _user(found) != self._uid:
            self.refused += 1
            return False
        if len(self._open) >= CONNECTIONS:
            silent = next((each for each in self._open.values() if not each.asked), None)
            if silent is None:
                return False
            self._open.pop(silent.http)
            silent.drop()
        self._open[new.http] = new
        return True

    def forget(self, old: Connection) -> None:
        """It is closed."""
        self._open.pop(old.http, None)


class Connection(asyncio.Protocol):
    """One. `asked`: whether its request is there."""

    def __init__(self, all_: Connections, http: web.RequestHandler) -> None:
        self._all = all_
        self.http: Final = http
        self.asked = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins it, or turns it away before a byte of it is read."""
        assert isinstance(transport, asyncio.Transport)
        if not self._all.admit(self, transport):
            transport.abort()
            return
        self._transport = transport
        self._limit(REQUEST_SECONDS)
        self.http.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends it, and whatever it waited for."""
        if self._transport is None:
            return
        self._all.forget(self)
        self._limit(None)
        self.http.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Of a request."""
        if self._transport is not None:
            self.http.data_received(data)

    def eof_received(self) -> bool | None:
        """Whoever asks no more wants no answer either."""
        if self._transport is not None:
            self.http.eof_received()
        return None

    def pause_writing(self) -> None:
        """It reads more slowly than it is told."""
        self.http.pause_writing()

    def resume_writing(self) -> None:
        """It caught up."""
        self.http.resume_writing()

    def heard(self, *, lasts: bool) -> None:
        """The request is there: from now on it is the answer that takes time. `lasts`: as much as it wants."""
        self.asked = True
        self._limit(None if lasts else ANSWER_SECONDS)

    def drop(self) -> None:
        """Ends it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _limit(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if seconds is None else loop.call_later(seconds, self.drop)


def _user(connection: socket.socket) -> int | None:
    try:
        return peer(connection)[1]
    except OSError:
        return None
