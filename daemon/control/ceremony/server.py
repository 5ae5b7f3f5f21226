"""The page's server: HTTP on this machine for one browser tab, and for nobody else.

What another user of the machine, another page in the same browser, or a name that leads here (DNS rebinding) may try,
ends in this module: a connection must come from a process of this user; a request must name `localhost` and the port as
its host; whatever changes something must say that it comes from this very page, carry its ticket, and have a content
type that no form can send. A connection carries one request and does not last, so slow clients hold nothing up.

Whoever had this port before, and was visited once, may have left a service worker in the browser, which then answers in
our place and reads along. So the page carries a word without which nothing begins, and which is given to no visit that
a worker or a page of this origin made; its parts are pinned by their hashes; and its script stops where a worker is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from chatkeep.daemon.control.ceremony.loopback import Loopback
from chatkeep.daemon.control.ceremony.peers import owner

BODY_LIMIT: Final = 64 * 1024
FIELD_LIMIT: Final = 1 << 20
"""Of one header field. Cookies know no port: a browser brings those of every page on `localhost`, 180 of 4 KiB."""
CONNECTIONS: Final = 32
REQUEST_SECONDS: Final = 10.0
"""For a request to be there with its body, from the moment it is connected."""
CONNECTION_SECONDS: Final = 45.0
"""For all of it: the answer that is waited for longest, and then some."""

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
API: Final = "/api/"
STAMP: Final = b"{stamp}"
"""Where the page's word stands in its markup."""
_WORKERS: Final = ("Service-Worker", "Service-Worker-Navigation-Preload")
"""What a browser says of a request whose answer is for a worker (Service Workers, Register and Handle Fetch)."""

HEADERS: Final[Mapping[str, str]] = {
    # No script but our own file, no request but to ourselves, no frame around us, nothing that turns text into markup.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Permissions-Policy": "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), "
    "microphone=(), geolocation=(), payment=(), usb=(), hid=(), serial=(), clipboard-read=()",
    "Server": "chatkeep",
}


class Turned(Exception):
    """A request that is turned away. `reason`: as the event `Refused` has it, or empty for what is only a mistake."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class File:
    """A file that the page is made of."""

    body: bytes
    type: str


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the page's API that passed every check but that of its ticket."""

    name: str
    token: str
    type: str
    body: bytes


Reply = dict[str, Any]


class Server:
    """Serves `files` by path, and hands calls to `call`. `refused` hears the reasons for what was turned away."""

    def __init__(
        self,
        port: int,
        uid: int,
        files: Mapping[str, File],
        call: Callable[[Call], Awaitable[Reply]],
        refused: Callable[[str], object],
        *,
        request_seconds: float = REQUEST_SECONDS,
        connection_seconds: float = CONNECTION_SECONDS,
    ) -> None:
        self._host = f"localhost:{port}"
        self._uid = uid
        self._files = files
        self._call = call
        self._refused = refused
        self.stamp: Final = secrets.token_urlsafe(32)
        self.request_seconds = request_seconds
        self.connection_seconds = connection_seconds
        self.connections: dict[asyncio.Protocol, _Connection] = {}

    @contextlib.asynccontextmanager
    async def serving(self, loopback: Loopback) -> AsyncIterator[None]:
        """Serves on these sockets within the block, and closes them after it."""
        silent = logging.getLogger("chatkeep.page")
        silent.propagate = False  # a log would show what the browser sent
        silent.addHandler(logging.NullHandler())
        http = web.Server(
            self._answer,
            handler_cancellation=True,
            access_log=None,
            logger=silent,
            auto_decompress=False,
            tcp_keepalive=False,
            max_line_size=4096,
            max_field_size=FIELD_LIMIT,
            max_headers=64,
            lingering_time=0,
        )
        loop = asyncio.get_running_loop()
        listening = [
            await loop.create_server(lambda: _Connection(self, http()), sock=each) for each in loopback.sockets
        ]
        try:
            yield
        finally:
            for each in listening:
                each.close()
            await http.shutdown(1)

    def admits(self, peer: tuple[str, int], ours: tuple[str, int]) -> bool:
        """Whether a new connection may stay."""
        if len(self.connections) >= CONNECTIONS:
            return False
        if owner(peer, ours) == self._uid:
            return True
        self._refused("user")
        return False

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self._check_host(request)
            response = await self._api(request) if request.path.startswith(API) else self._file(request)
        except Turned as turned:
            if turned.reason:
                self._refused(turned.reason)
            response = web.Response(status=turned.status)
        except TimeoutError:
            response = web.Response(status=408)
        response.headers.update(HEADERS)
        response.force_close()
        return response

    def _check_host(self, request: web.BaseRequest) -> None:
        # A name of somebody else's that was made to lead here would be an origin of its own, with their script.
        if request.headers.getall("Host", []) != [self._host]:
            raise Turned(421, "host")
        if request.path != request.raw_path:
            raise Turned(404)  # a query, or an escape: the page uses none
        if any(name in request.headers for name in _WORKERS):
            raise Turned(403, "origin")

    def _file(self, request: web.BaseRequest) -> web.StreamResponse:
        found = self._files.get(request.path)
        if found is None:
            raise Turned(404)
        if request.method != "GET":
            raise Turned(405)
        site = request.headers.get("Sec-Fetch-Site")
        visit = (request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest")) == (
            "navigate",
            "document",
        )
        # From anywhere the page may be gone to; not put into a frame, and not fetched, nor by a worker. Its parts are
        # its own. A browser that does not say from where is left to the other checks.
        if site is not None and not (visit if request.path == "/" else site == "same-origin"):
            raise Turned(403, "origin")
        # Loaded again it is of no use anyway; and a page of this origin that opened it in a window could look into it.
        body = found.body.replace(STAMP, b"" if site == "same-origin" else self.stamp.encode())
        return web.Response(body=body, headers={"Content-Type": found.type})

    async def _api(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST":
            raise Turned(405)
        if request.headers.getall("Origin", []) != [f"http://{self._host}"]:
            raise Turned(403, "origin")
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Turned(403, "origin")
        kinds = request.headers.getall("Content-Type", [])
        if len(kinds) != 1 or kinds[0] not in (JSON, BINARY) or "Content-Encoding" in request.headers:
            raise Turned(415)
        tokens = request.headers.getall("X-Token", [])
        if len(tokens) != 1:
            raise Turned(403, "token")
        name = request.path.removeprefix(API)
        if name == "begin" and not self._is_stamped(request):
            raise Turned(403, "origin")
        body = await self._body(request)
        reply = await self._call(Call(name, tokens[0], kinds[0], body))
        return web.json_response(reply)

    def _is_stamped(self, request: web.BaseRequest) -> bool:
        said = request.headers.get("X-Page", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(said, self.stamp.encode())

    async def _body(self, request: web.BaseRequest) -> bytes:
        if (request.content_length or 0) > BODY_LIMIT:
            raise Turned(413)
        body = bytearray()
        async for part in request.content.iter_any():
            body += part
            if len(body) > BODY_LIMIT:
                raise Turned(413)
        if connection := self.connections.get(request.protocol):
            connection.heard()
        return bytes(body)


class _Connection(asyncio.Protocol):
    """A connection: closed at once if it is another user's, and in time if it is slow. What it carries is for HTTP."""

    def __init__(self, server: Server, http: web.RequestHandler) -> None:
        self._server = server
        self._http = http
        self._transport: asyncio.Transport | None = None
        self._timers: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise AssertionError("not a stream")
        peer, ours = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not peer or not self._server.admits(peer[:2], ours[:2]):
            transport.abort()
            return
        self._transport = transport
        self._server.connections[self._http] = self
        loop = asyncio.get_running_loop()
        self._timers = [
            loop.call_later(self._server.request_seconds, transport.abort),
            loop.call_later(self._server.connection_seconds, transport.abort),
        ]
        self._http.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        del self._server.connections[self._http]
        for timer in self._timers:
            timer.cancel()
        self._http.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._http.data_received(data)

    def eof_received(self) -> bool | None:
        if self._transport is not None:
            self._http.eof_received()
        return None

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def heard(self) -> None:
        """The request is there: from now on it is the answer that takes time."""
        self._timers[0].cancel()
