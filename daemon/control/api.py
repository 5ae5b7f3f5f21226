"""The control socket: what a command may ask of the running daemon. HTTP with JSON, as docs/control.md has it.

Nothing that opens the vault ever goes through here: keys are handed to the process that holds them by the command that
has them, and the daemon is only told that it happened.

Everybody who gets here is this user, and so may do all of it. The checks keep out those who are not, keep mistakes from
being taken for something else, and keep one that hangs, floods or never reads from being in anybody's way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiohttp import web

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control import asked, streams
from chatkeep.daemon.control.connections import Connections
from chatkeep.daemon.control.errors import DaemonRefused
from chatkeep.daemon.control.listening import Listening
from chatkeep.daemon.control.served import Served
from chatkeep.daemon.control.wire import (
    BACKUP,
    BODY_LIMIT,
    EVENTS,
    HEADER,
    HOST,
    JSON,
    LEND,
    LOCK,
    METRICS,
    REASONS,
    RELOAD,
    RUN_JOB,
    SESSION,
    STATUS,
    TEXT,
    VERSION,
    Route,
    fault,
    plain,
)
from chatkeep.daemon.service.errors import NoSuchJob

STREAMS: Final = 64
"""Answers that go on, at a time."""

WORK_SECONDS: Final = 60.0
"""For the daemon to answer what is no stream."""

LOOK_SECONDS: Final = 5.0
"""Between two looks at whether the socket still is in its place."""

Answer = Callable[[web.BaseRequest, Mapping[str, str], Any], Awaitable[web.StreamResponse]]


class _Way(NamedTuple):
    route: Route
    body: type[asked.Nothing] | None
    answer: Answer


class Api:
    """Serves a daemon's control socket, in its event loop.

    `directory`: of the socket; None for the usual one. `uid`: whose connections are taken, None: this process's user.
    """

    def __init__(self, served: Served, state_dir: Path, directory: Path | None = None, uid: int | None = None) -> None:
        self._served = served
        self._state_dir = state_dir
        self._directory = directory
        self.connections: Final = Connections(uid)
        self._ending = asyncio.Event()
        self._streams = streams.Streams(served, self._ending)
        self._listening: Listening | None = None
        self._server: asyncio.Server | None = None
        self._http = _http(self._respond)
        self._looking: asyncio.Task[None] | None = None
        self._ways = (
            _Way(STATUS, None, self._status),
            _Way(METRICS, None, self._metrics),
            _Way(EVENTS, None, lambda request, *_: self._streams.events(request)),
            _Way(BACKUP, asked.Backup, lambda request, _, body: self._streams.backup(request, body.sources)),
            _Way(LEND, asked.Lend, lambda request, _, body: self._streams.lend(request, body.command)),
            _Way(SESSION, asked.Nothing, self._session),
            _Way(LOCK, asked.Nothing, self._lock),
            _Way(RUN_JOB, asked.Nothing, self._run_job),
            _Way(RELOAD, asked.Nothing, self._reload),
        )

    @property
    def path(self) -> Path | None:
        """Where the socket is, while it is served."""
        return None if self._listening is None else self._listening.path

    async def start(self) -> None:
        """Listens. Raises DaemonRunning, SocketRefused, ControlError, OSError."""
        await self._listen()
        self._looking = asyncio.create_task(self._look())

    async def close(self, seconds: float = 1.5) -> None:
        """Takes nobody new, tells those who follow, gives answers so long to come to their end, and cuts off the rest.

        A backup that is followed ends with what it has when the daemon stops it: the daemon stops its work first.
        """
        self._ending.set()
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self._unlisten()
        await self._http.shutdown(seconds)
        await self._streams.close()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening = await asyncio.to_thread(Listening.begin, self._state_dir, self._directory)
        self._server = await loop.create_unix_server(
            lambda: self.connections.accept(self._http), sock=self._listening.listener
        )

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._listening is not None:
            self._listening.close()
        self._server = self._listening = None

    async def _look(self) -> None:
        """Its directory may go, with a logout that the daemon survives, and come again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._listening is None or not self._listening.stays():
                await self._unlisten()
                with contextlib.suppress(ChatkeepError, OSError):  # tried again
                    await self._listen()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._checked(request)
        except DaemonRefused as exc:
            response = _error(REASONS[str(exc.params["reason"])], exc)
        except NoSuchJob as exc:
            response = _error(404, exc)
        except ChatkeepError as exc:
            response = _error(409, exc)
        except ConnectionError:
            raise  # it went away; nobody is there to be told
        except Exception as exc:
            context = {"message": "an answer of the control socket failed", "exception": exc}
            asyncio.get_running_loop().call_exception_handler(context)
            response = _error(500, ChatkeepError())
        if not response.prepared:
            response.headers[HEADER] = VERSION
            response.headers["Cache-Control"] = "no-store"
            response.force_close()
        return response

    async def _checked(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.getall("Host", []) != [HOST]:
            raise DaemonRefused(reason="host")
        way, names = self._way(request)
        body = None if way.body is None else asked.read(await self._body(request), way.body)
        if way.body is None and request.body_exists:
            raise DaemonRefused(reason="body")
        if connection := self.connections.of(request):
            connection.heard(lasts=way.route.streams)
        if way.route.streams:
            if self._streams.count >= STREAMS:
                raise DaemonRefused(reason="busy")
            return await way.answer(request, names, body)
        try:
            async with asyncio.timeout(WORK_SECONDS):
                return await way.answer(request, names, body)
        except TimeoutError as exc:
            raise DaemonRefused(reason="slow") from exc

    def _way(self, request: web.BaseRequest) -> tuple[_Way, dict[str, str]]:
        # A query, or an escape: nothing here has one, and what is checked must be what is meant.
        path = request.path if request.path == request.raw_path else ""
        found = [(way, names) for way in self._ways if (names := asked.match(way.route.path, path)) is not None]
        if not found:
            raise DaemonRefused(reason="path")
        for way, names in found:
            if way.route.method == request.method:
                return way, names
        raise DaemonRefused(reason="method")

    async def _body(self, request: web.BaseRequest) -> bytes:
        if (request.content_length or 0) > BODY_LIMIT:
            raise DaemonRefused(reason="size")
        if request.body_exists and request.headers.getall("Content-Type", []) != [JSON]:
            raise DaemonRefused(reason="type")
        if "Content-Encoding" in request.headers:
            raise DaemonRefused(reason="type")
        body = bytearray()
        async for part in request.content.iter_any():
            body += part
            if len(body) > BODY_LIMIT:
                raise DaemonRefused(reason="size")
        return bytes(body)

    async def _status(self, *_: object) -> web.StreamResponse:
        return _json(plain(await self._served.standing()))

    async def _metrics(self, *_: object) -> web.StreamResponse:
        return web.Response(body=self._served.metrics().encode(), headers={"Content-Type": TEXT})

    async def _session(self, *_: object) -> web.StreamResponse:
        return _json({"unlocked": await self._served.session()})

    async def _lock(self, *_: object) -> web.StreamResponse:
        return _json({"locked": await self._served.lock()})

    async def _run_job(self, _request: web.BaseRequest, names: Mapping[str, str], _body: object) -> web.StreamResponse:
        await self._served.run_job(names["name"])
        return _json({"job": names["name"]})

    async def _reload(self, *_: object) -> web.StreamResponse:
        await self._served.reload()
        return _json({"reloaded": True})


@contextlib.asynccontextmanager
async def serving(served: Served, state_dir: Path, directory: Path | None = None) -> AsyncIterator[Api]:
    """Serves within the block; raises as `Api.start`. Whatever the daemon does when it ends is done inside: until then
    who follows it is told."""
    api = Api(served, state_dir, directory)
    await api.start()
    try:
        yield api
    finally:
        await api.close()


def _http(respond: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> web.Server:
    silent = logging.getLogger("chatkeep.control")
    silent.propagate = False  # what a client sends wrongly is no news of the daemon's, and may be anything
    silent.addHandler(logging.NullHandler())
    return web.Server(
        respond,
        handler_cancellation=True,  # who goes away is waited for by nothing
        access_log=None,
        logger=silent,
        auto_decompress=False,
        tcp_keepalive=False,
        max_line_size=1024,
        max_field_size=1024,
        max_headers=32,
        lingering_time=0,
    )


def _json(value: Mapping[str, object]) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), headers={"Content-Type": JSON})


def _error(status: int, error: ChatkeepError) -> web.Response:
    return web.Response(
        status=status, body=json.dumps({"error": fault(error)}).encode(), headers={"Content-Type": JSON}
    )
