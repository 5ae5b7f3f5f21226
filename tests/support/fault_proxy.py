"""A proxy on loopback that breaks HTTP on demand: between a provider and a real server that speaks plain http.

It understands requests and replies, so a fault hits the request it is for: not a connection that was opened for
another, and not the `100 Continue` before the reply that matters. Every fault counts how often it `fired`; a test that
does not assert that has proven nothing.

It is a relay and not a server: what it does not break it passes on as it came, but for two things. It answers
`Expect: 100-continue` itself and takes the header out, and it opens a connection to the server for every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import socket
import struct
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, TypeVar

T = TypeVar("T")

Kind = Literal[
    "status",  # answered in place of the server, which never sees it: `status`, `headers`, `body`
    "reset",  # half of the request's body reaches the server, then both connections are reset
    "lost",  # the server carries it out and replies; then the connection to the client is reset
    "truncated",  # half of the reply's body, then an orderly end of the connection
    "hole",  # read and never answered, until the client goes away
    "slow",  # the reply's body in `pieces`, `seconds` before each
    "flip-request",  # one bit of the request's body
    "flip-reply",  # one bit of the reply's body
    "skew",  # every time of day in the reply, head and body, `seconds` later
    "swap",  # `find` in the reply, head and body, is `put`, of the same length
    "stale",  # answered as the same request was while `remember` was set; not one of those: passes, and is not counted
    "refused",  # nobody listens, until `clear`; not for chosen requests, and not counted: see `FaultProxy.set`
]
_OF_REQUEST_BODY = ("reset", "flip-request")
_OF_REPLY_BODY = ("truncated", "slow", "flip-reply")
_COUNTED_LATER = (*_OF_REPLY_BODY, "skew", "swap", "stale")
_PIECE = 65536
_GONE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@dataclass
class Fault:
    """One way to fail.

    Attributes:
        kind: what happens.
        on: the requests it hits: a regular expression, searched for in `METHOD /path?query`, or in that and ` depth=1`
            where a request has such a header. Kinds that need a body hit only what has one of two bytes or more.
        skip: so many of them pass first.
        times: so many are hit; None: all from then on.
        status, headers, body: of a `status`.
        seconds, pieces: of a `slow`; seconds of a `skew`.
        find, put: of a `swap`.
        fired: requests that were hit.
        hit: those of a kind that is decided before the server is asked, as `METHOD /path?query`.
        answers: status of each reply that was lost, broken or slow: what the server had made of the request.
    """

    kind: Kind
    on: str = ""
    skip: int = 0
    times: int | None = 1
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    seconds: float = 0.1
    pieces: int = 4
    find: bytes = b""
    put: bytes = b""
    fired: int = 0
    hit: list[str] = field(default_factory=list, init=False)
    answers: list[int] = field(default_factory=list)


class _Head(NamedTuple):
    """The head of a message, and how the end of its body is told: a length, "chunked", or None for the end of all."""

    first: str
    headers: list[tuple[str, str]]
    framing: int | Literal["chunked"] | None

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def raw(self) -> bytes:
        lines = [self.first, *(f"{key}: {value}" for key, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    @property
    def status(self) -> int:
        return int(self.first.split(" ", 2)[1])


class FaultProxy:
    """Listens on a free port of 127.0.0.1 and passes everything to `host`:`port`, but what a fault hits.

    A context manager; `set` and `clear` may be called from any thread between two requests.

    Attributes:
        url: what a client is given instead of the server's address.
        faults: those that are set.
        seen: `METHOD /path?query` of every request, in the order they came.
        remember: replies to requests that this finds (as `Fault.on`) are kept for `stale`.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.seen: list[str] = []
        self.remember: str | None = None
        self._kept: dict[tuple[str, bytes], bytes] = {}
        self._upstream = (host, port)
        self.faults: list[Fault] = []
        self._server: asyncio.Server | None = None
        self._idle: set[asyncio.StreamWriter] = set()
        # Bound for as long as the proxy is: nobody else gets the port while nobody listens.
        self._guard = socket.socket()
        self._guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._guard.bind(("127.0.0.1", 0))
        self.port: int = self._guard.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._run(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set(self, *faults: Fault) -> None:
        """From now on these faults, tried in this order, and no others.

        Every request passes here on its own, so connections that a client keeps are left to it, but for `refused`:
        then they are ended too, and a request that arrives all the same is none of this proxy's. So `seen` does not
        grow while it is set, and that is the proof that it fired.
        """
        self._run(self._set(list(faults)))

    def clear(self) -> None:
        """No fault any more."""
        self.set()

    def drop_idle(self) -> None:
        """Ends the connections that wait for a request, as a server does with those it finds idle for too long."""
        self._run(self._drop_idle())

    def close(self) -> None:
        """Ends all. Twice is once."""
        if self._loop.is_closed():
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._guard.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_PIECE)

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop_idle()

    async def _set(self, faults: list[Fault]) -> None:
        self.faults = faults
        if any(fault.kind == "refused" for fault in faults):
            await self._unlisten()
        elif self._server is None:
            await self._listen()

    async def _drop_idle(self) -> None:
        for writer in [*self._idle]:
            writer.close()

    async def _close(self) -> None:
        await self._unlisten()
        # What was just accepted is a task of the loop's own, and what has bytes to send would wait for a reader.
        ending = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for transport in [*getattr(self._loop, "_transports").values()]:  # noqa: B009  # private, and all there are
            transport.abort()
        for _ in range(3):  # what was closed is let go of in later turns of the loop
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(*_GONE, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; whether another may follow on the connection."""
        self._idle.add(writer)
        try:
            head = await _head(reader, reply=False)
        finally:
            self._idle.discard(writer)
        method, target, version = head.first.split(" ")
        self.seen.append(f"{method} {target}")
        if head.header("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = head._replace(headers=[each for each in head.headers if each[0].lower() != "expect"])
        depth = head.header("depth")
        request = f"{method} {target} depth={depth}" if depth else f"{method} {target}"
        fault = self._taken(request, head)
        remembered = self.remember is not None and re.search(self.remember, request) is not None
        tape: list[bytes] | None = None
        raw = b""
        if remembered or (fault is not None and fault.kind == "stale"):
            raw = b"".join([piece async for piece, _ in _body(reader, head)])
            reader = _played(raw)
            if remembered:
                tape = []
            elif (old := self._kept.get((request, raw))) is not None and fault is not None:
                fault.fired += 1
                writer.write(old)
                await writer.drain()
                return True
        if fault is not None and fault.kind in ("status", "hole"):
            async for _ in _body(reader, head):
                pass
            return await _unserved(fault, method, reader, writer)
        source, sink = await asyncio.open_connection(*self._upstream, limit=_PIECE)
        try:
            stays = await _relay(fault, head, (reader, writer), (source, sink), tape)
        finally:
            sink.close()
        if tape is not None:
            self._kept[request, raw] = b"".join(tape)
        return stays and version == "HTTP/1.1"

    def _taken(self, request: str, head: _Head) -> Fault | None:
        for fault in self.faults:
            if fault.kind in _OF_REQUEST_BODY and (head.framing == 0 or head.framing == 1):
                continue
            if not re.search(fault.on, request) or fault.fired == fault.times:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.kind not in _COUNTED_LATER:  # when it is known that the reply has what it changes
                fault.fired += 1
                fault.hit.append(request)
            return fault
        return None


async def _unserved(fault: Fault, method: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    if fault.kind == "hole":
        while await reader.read(_PIECE):
            pass
        return False
    headers = [*fault.headers, ("Content-Length", str(len(fault.body)))]
    writer.write(_Head(f"HTTP/1.1 {fault.status} Fault", headers, 0).raw() + (b"" if method == "HEAD" else fault.body))
    await writer.drain()
    return True


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _relay(
    fault: Fault | None, head: _Head, client: _Streams, server: _Streams, tape: list[bytes] | None
) -> bool:
    """Passes a request on and its reply back; whether the client's connection may be used again."""
    # Read while the body is sent: a server that refuses a request may say so before it has it all, and hang up.
    replied = asyncio.ensure_future(_final_head(server[0], head.first.startswith("HEAD ")))
    try:
        if not await _send_request(fault, head, client, server):
            return False
        reply = await replied
    finally:
        replied.cancel()
        await asyncio.gather(replied, return_exceptions=True)
    if fault is not None and fault.kind == "lost":
        async for _ in _body(server[0], reply):
            pass
        fault.answers.append(reply.status)
        _reset(client[1])
        return False
    if fault is not None and fault.kind in ("skew", "swap"):
        return await _send_altered(fault, reply, server[0], client[1])
    if tape is not None:
        tape.append(reply.raw())
        tape += [piece async for piece, _ in _body(server[0], reply)]
        client[1].write(b"".join(tape))
        return reply.framing is not None and reply.header("connection").lower() != "close"
    return await _send_reply(fault, reply, server[0], client[1])


async def _send_request(fault: Fault | None, head: _Head, client: _Streams, server: _Streams) -> bool:
    """False: both connections were reset on the way."""
    kind = fault.kind if fault is not None else ""
    middle = head.framing // 2 if isinstance(head.framing, int) else 1
    server[1].write(head.raw())
    at, alive = 0, True
    async for piece, payload in _body(client[0], head):
        shown = _flipped(piece, middle - at) if payload and kind == "flip-request" else piece
        if payload and kind == "reset" and at + len(piece) > middle:
            with contextlib.suppress(OSError):
                server[1].write(piece[: max(0, middle - at)])
                await server[1].drain()
            _reset(server[1])
            _reset(client[1])
            return False
        at += len(piece) if payload else 0
        if alive:
            try:
                server[1].write(shown)
                await server[1].drain()
            except OSError:  # it may have refused the request and said so
                alive = False
    return True


async def _send_reply(
    fault: Fault | None, reply: _Head, source: asyncio.StreamReader, sink: asyncio.StreamWriter
) -> bool:
    if fault is not None and (fault.kind not in _OF_REPLY_BODY or reply.framing in (0, 1)):
        fault = None
    if fault is not None:
        fault.fired += 1
        fault.answers.append(reply.status)
    sink.write(reply.raw())
    middle = reply.framing // 2 if isinstance(reply.framing, int) else 1
    at = 0
    async for piece, payload in _body(source, reply):
        if fault is None or not payload:
            sink.write(piece)
        elif fault.kind == "flip-reply":
            sink.write(_flipped(piece, middle - at))
        elif fault.kind == "truncated" and at + len(piece) > middle:
            sink.write(piece[: max(0, middle - at)])
            await sink.drain()
            return False
        elif fault.kind == "slow":
            await _trickle(fault, piece, sink, reply)
        else:
            sink.write(piece)
        at += len(piece) if payload else 0
        await sink.drain()
    return reply.framing is not None and reply.header("connection").lower() != "close"


async def _trickle(fault: Fault, piece: bytes, sink: asyncio.StreamWriter, reply: _Head) -> None:
    whole = reply.framing if isinstance(reply.framing, int) else len(piece)
    step = max(1, -(-whole // fault.pieces))
    for start in range(0, len(piece), step):
        await asyncio.sleep(fault.seconds * min(1.0, len(piece) / step))
        sink.write(piece[start : start + step])
        await sink.drain()


async def _send_altered(fault: Fault, reply: _Head, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
    changed = False
    for piece in [reply.raw()] + [each async for each, _ in _body(source, reply)]:
        shown = _shifted(piece, fault.seconds) if fault.kind == "skew" else piece.replace(fault.find, fault.put)
        if shown != piece and not changed:  # before the client can have it, who asks then whether it fired
            fault.fired, changed = fault.fired + 1, True
        sink.write(shown)
    await sink.drain()
    return reply.framing is not None and reply.header("connection").lower() != "close"


_TIME = re.compile(rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_FORMS = ("%a, %d %b %Y %H:%M:%S GMT", "%Y-%m-%dT%H:%M:%S")


def _shifted(piece: bytes, seconds: float) -> bytes:
    """The piece with every time in it later; of the same length, which is announced."""

    def later(found: re.Match[bytes]) -> bytes:
        form = _FORMS[0 if found[0].endswith(b"GMT") else 1]
        try:
            at = dt.datetime.strptime(found[0].decode(), form).replace(tzinfo=dt.UTC)
        except ValueError:  # looks like one
            return found[0]
        return (at + dt.timedelta(seconds=seconds)).strftime(form).encode()

    return _TIME.sub(later, piece)


def _played(raw: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    return reader


def _flipped(piece: bytes, at: int) -> bytes:
    """The piece with one bit changed, if that place is in it."""
    if not 0 <= at < len(piece):
        return piece
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection so that the other side gets an error and no end of file."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _final_head(reader: asyncio.StreamReader, to_head: bool) -> _Head:
    while True:
        found = await _head(reader, reply=True)
        if found.status >= 200:
            return found._replace(framing=0) if to_head else found


async def _head(reader: asyncio.StreamReader, *, reply: bool) -> _Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    found = _Head(first, headers, 0)
    length = found.header("content-length")
    if reply and (found.status in (204, 304) or found.status < 200):
        return found
    if "chunked" in found.header("transfer-encoding").lower():
        return found._replace(framing="chunked")
    return found._replace(framing=int(length) if length else None if reply else 0)


async def _body(reader: asyncio.StreamReader, head: _Head) -> AsyncIterator[tuple[bytes, bool]]:
    """The body as it is on the wire, in pieces, and of each whether it belongs to what is sent or to its framing.

    Raises:
        asyncio.IncompleteReadError: it ended early.
    """
    if head.framing == "chunked":
        while True:
            line = await reader.readuntil(b"\r\n")
            yield line, False
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            async for piece in _exactly(reader, size):
                yield piece, True
            yield await reader.readexactly(2), False
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            yield line, False
        yield line, False
    elif head.framing is None:
        while piece := await reader.read(_PIECE):
            yield piece, True
    else:
        async for piece in _exactly(reader, head.framing):
            yield piece, True


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    left = size
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


@contextlib.contextmanager
def broken(proxy: FaultProxy, *faults: Fault) -> Iterator[tuple[Fault, ...]]:
    """Those faults for the length of a block; at its end each must have fired."""
    before = len(proxy.seen)
    proxy.set(*faults)
    try:
        yield faults
        quiet = [fault for fault in faults if fault.kind != "refused" and not fault.fired]
        assert not quiet, f"never fired: {quiet}; requests: {proxy.seen[before:]}"
        if any(fault.kind == "refused" for fault in faults):
            assert proxy.seen[before:] == []
    finally:
        proxy.clear()
