"""HTTP to one service, as the Google client wants it: an object with `request` in place of httplib2's own.

Not httplib2 itself, because it sends a request again by itself when a connection breaks, after which nobody knows how
often it was sent; follows redirects, which would carry a token and a body to wherever a reply says; reads a reply of
any size; and may be used by one thread only. Here a request is sent once, to the origins that were named and to no
other, within bounds of time and size, over connections that are lent to one thread at a time.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import select
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chatkeep.providers import base

CONNECT: Final = 10.0
"""Seconds to wait for a connection."""
SILENCE: Final = 60.0
"""Seconds to wait for the next byte, in either direction."""
REPLY_LIMIT: Final = 16 * 1024 * 1024
"""Most bytes of a reply that is no object: a page of 1000 files takes about 300 KB."""
BLOCK: Final = 65_536
"""Bytes of a body that leave at once where they are paced."""

Pace = Callable[[int], None]
Body = bytes | memoryview | str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        status: of HTTP.
        headers: names in lower case.
        body: as far as it came.
        whole: whether that is all that was announced.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long to wait, in seconds: for a connection, and for the next byte."""

    connect: float = CONNECT
    silence: float = SILENCE


class Transport:
    """Sends requests, each once. Any thread may call it.

    Args:
        provider: the configured name, for errors.
        origins: `scheme://host[:port]` of those that may be spoken to.
        bounds: of time.
        proxies: whether the environment's proxies (`https_proxy`, `no_proxy`) are used.
    """

    def __init__(
        self, provider: str, origins: Iterable[str], bounds: Bounds | None = None, *, proxies: bool = True
    ) -> None:
        self.provider = provider
        self.origins = frozenset(origins)
        self._bounds = bounds or Bounds()
        self._proxies = proxies
        self._lock = threading.Lock()
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._closed = False
        self._tls: ssl.SSLContext | None = None

    def serves(self, url: str) -> bool:
        """Whether the address is of an origin that may be spoken to."""
        return split(url)[0] in self.origins

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body = None,
        *,
        limit: int = REPLY_LIMIT,
        pace: Pace | None = None,
    ) -> Reply:
        """One request and its reply.

        Args:
            limit: most bytes of the reply.
            pace: called with the size of each block of the body before it leaves. What it raises comes out unchanged.

        Raises:
            Unavailable: no reply, a reply that is too long, an address that is not one of `origins`. A body of the
                reply that breaks off is no error here: see `Reply.whole`.
        """
        origin, path = split(url)
        if origin not in self.origins:
            # An address out of a reply. Not in the error: those of upload sessions are as good as a credential.
            raise base.Unavailable(provider=self.provider, reason="foreign-address")
        with self._lent(origin) as connection:
            try:
                return self._exchange(connection, method, path, headers, body, limit, pace)
            except (OSError, http.client.HTTPException) as problem:
                about = {"errno": problem.errno} if isinstance(problem, OSError) and problem.errno else {}
                # The type says what happened; the text of some (InvalidURL) repeats the address.
                raise base.Unavailable(provider=self.provider, reason=type(problem).__name__, **about) from (
                    problem if isinstance(problem, OSError) else None
                )

    def close(self) -> None:
        """Closes what is idle; what is lent is closed when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body,
        limit: int,
        pace: Pace | None,
    ) -> Reply:
        if connection.sock is None:
            connection.timeout = self._bounds.connect
            connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(self._bounds.silence)
        raw = body.encode("utf-8") if isinstance(body, str) else body
        sent = {"Accept-Encoding": "identity", **headers}
        if raw is not None or method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = str(len(raw or b""))
        try:
            connection.request(method, path, _blocks(raw, pace), sent)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses does not always read the body first: its reply may be there all the same.
            with contextlib.suppress(OSError):
                return _read(connection, limit)
            raise
        return _read(connection, limit)

    @contextlib.contextmanager
    def _lent(self, origin: str) -> Iterator[http.client.HTTPConnection]:
        """A connection for one exchange. Only one that ended well is used again: after an error nobody knows whose
        bytes come next."""
        with self._lock:
            idle = self._idle.get(origin, [])
            connection = idle.pop() if idle else None
        while connection is not None and _dropped(connection):
            connection.close()
            with self._lock:
                idle = self._idle.get(origin, [])
                connection = idle.pop() if idle else None
        connection = connection or self._connection(origin)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if not self._closed and connection.sock is not None:
                self._idle.setdefault(origin, []).append(connection)
                return
        connection.close()

    def _connection(self, origin: str) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(origin)
        host = parts.hostname or ""
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        proxy = self._proxy(parts.scheme, parts.netloc)
        target, at, who = (host, port, {}) if proxy is None else self._through(proxy)
        if secure:
            with self._lock:
                self._tls = self._tls or ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(target, at, context=self._tls)
        else:
            connection = http.client.HTTPConnection(target, at)
        if proxy is not None:
            connection.set_tunnel(host, port, who)
        return connection

    def _proxy(self, scheme: str, host: str) -> str | None:
        if not self._proxies or urllib.request.proxy_bypass(host):
            return None
        return urllib.request.getproxies().get(scheme)

    def _through(self, proxy: str) -> tuple[str, int, dict[str, str]]:
        """Host and port of a proxy, and the header that says who asks there."""
        try:
            via = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            host, port = via.hostname, via.port or 8080
        except ValueError:  # it quotes the address, and with it a part of a password
            host = None
        if not host:
            raise base.Unavailable(provider=self.provider, reason="proxy")
        if via.username is None:
            return host, port, {}
        said = ":".join(urllib.parse.unquote(each or "") for each in (via.username, via.password))
        return host, port, {"Proxy-Authorization": f"Basic {base64.b64encode(said.encode()).decode()}"}


class ForGoogle:
    """A transport in the two forms that Google's libraries call: httplib2's `request`, and that of google-auth.

    Args:
        transport: what sends.
        authorize: the value of `Authorization` for a request; given the one that was refused with 401, if there was.
            None: none is sent (for the token endpoint).
    """

    def __init__(self, transport: Transport, authorize: Callable[[str | None], str] | None = None) -> None:
        self.transport = transport
        self._authorize = authorize

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body = None,
        *,
        limit: int = REPLY_LIMIT,
        pace: Pace | None = None,
    ) -> Reply:
        """`Transport.send` with authorization; once more with a new token when the first is refused."""
        plain = {name: value for name, value in headers.items() if name.lower() not in ("content-length", "host")}
        # Drive's replies are small; bodies of objects do not become smaller. One thing less that may be undone wrongly.
        plain = {name: value for name, value in plain.items() if name.lower() != "accept-encoding"}
        if self._authorize is None:
            return self.transport.send(method, url, plain, body, limit=limit, pace=pace)
        said = self._authorize(None)
        reply = self.transport.send(method, url, {**plain, "Authorization": said}, body, limit=limit, pace=pace)
        if reply.status == 401:  # revoked, or expired by a clock that is not ours; the server did nothing
            said = self._authorize(said)
            reply = self.transport.send(method, url, {**plain, "Authorization": said}, body, limit=limit, pace=pace)
        return reply

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        **_others: object,
    ) -> tuple[Any, bytes]:
        """As httplib2's: what `HttpRequest.execute(http=...)` calls."""
        from httplib2 import Response

        reply = self.send(method, uri, headers or {}, body)
        if not reply.whole:
            raise base.Unavailable(provider=self.transport.provider, reason="reply-cut")
        return Response({**reply.headers, "status": str(reply.status)}), reply.body

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **_others: object,
    ) -> AuthReply:
        """As google-auth's `transport.Request`. The bounds are those of the transport."""
        reply = self.send(method, url, headers or {}, body)
        if not reply.whole:
            raise base.Unavailable(provider=self.transport.provider, reason="reply-cut")
        # Said here already: google-auth would sleep and ask again by itself.
        if reply.status == 429:
            raise base.Throttled(provider=self.transport.provider, after=retry_after(reply.headers, time.time()))
        if reply.status >= 500:
            raise base.Unavailable(provider=self.transport.provider, status=reply.status)
        return AuthReply(reply.status, dict(reply.headers), reply.body)


@dataclass(frozen=True, slots=True)
class AuthReply:
    """As google-auth's `transport.Response`."""

    status: int
    headers: dict[str, str]
    data: bytes


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait as `Retry-After` says, in either of its forms (RFC 9110 section 10.2.3); at most a day."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return min(float(said[:9]), 86_400.0)
    try:
        at = email.utils.parsedate_to_datetime(said)
    except ValueError:
        return None
    return min(max(0.0, at.timestamp() - now), 86_400.0) if at.tzinfo is not None else None


def split(url: str) -> tuple[str, str]:
    """Origin (lower case, without a port that is the scheme's own) and path with query."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return "", ""
    if parts.username is not None or parts.password is not None or not parts.hostname:
        return "", ""
    own = {"http": 80, "https": 443}.get(parts.scheme)
    at = "" if port is None or port == own else f":{port}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"{parts.scheme}://{host}{at}", path


def _blocks(body: bytes | memoryview | None, pace: Pace | None) -> bytes | Iterable[bytes | memoryview] | None:
    if body is None or (pace is None and isinstance(body, bytes) and len(body) <= BLOCK):
        return body
    whole = memoryview(body)
    if pace is None:
        return iter((whole,))  # as an iterable it is sent as it lies; as bytes it would be copied behind the headers
    return _paced(whole, pace)


def _paced(body: memoryview, pace: Pace) -> Iterator[memoryview]:
    for start in range(0, len(body), BLOCK):
        block = body[start : start + BLOCK]
        pace(len(block))
        yield block


def _read(connection: http.client.HTTPConnection, limit: int) -> Reply:
    response = connection.getresponse()
    pieces: list[bytes] = []
    size = 0
    try:
        # Piece by piece: what came before a connection broke is kept, and need not be sent again.
        while size <= limit and (piece := response.read1(BLOCK * 4)):
            pieces.append(piece)
            size += len(piece)
        # `length` is what is still owed of an announced length; a body in chunks says by itself where it ends.
        whole = not response.length
    except (http.client.IncompleteRead, TimeoutError, ConnectionError, ssl.SSLError):
        whole = False
    if size > limit:
        raise http.client.HTTPException("reply too long")
    headers = {name.lower(): value for name, value in response.getheaders()}
    closes = response.will_close or not whole
    response.close()
    if closes:
        connection.close()
    return Reply(response.status, headers, b"".join(pieces), whole)


def _dropped(connection: http.client.HTTPConnection) -> bool:
    """Whether the other side closed an idle connection, or sent what nobody asked for."""
    if connection.sock is None:
        return True
    poll = select.poll()  # not select.select, which knows no descriptor above 1023
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
