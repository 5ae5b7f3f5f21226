"""Requests to a WebDAV server: connections, who asks, time-outs, and what the client library raises."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import httpx

from chatkeep.providers import base, http_client, webdav_replies

PIECE: Final = 65536
"""Most bytes of a body that leave at once."""

_CONNECTING: Final = 10.0  # most seconds for a connection to be made
_PAGE: Final = 1 << 20  # most bytes of a reply whose body is not wanted; with more the connection is given up
_BODIES: Final = (200, 206, 207)  # the statuses of replies whose bodies are wanted
# Asked for as they are stored: a server that compresses would make a range one of the compressed bytes.
_ALWAYS: Final = {"Accept-Encoding": "identity", "User-Agent": "chatkeep"}


class Token(httpx.Auth):
    """Who asks, by a bearer token."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See `httpx.Auth`."""
        request.headers["Authorization"] = self._header
        yield request


class Password(httpx.Auth):
    """Who asks, by user and password, in the way the server wants it: Digest where it is offered, else Basic.

    Nothing is sent before the server said which. httpx counts the uses of a nonce without a lock, so each thread has
    its own; it learns one by a request without a body (`greeted`), lest an object is sent in vain.
    """

    def __init__(self, user: str, password: str) -> None:
        self._user, self._password = user, password
        self.empty = not password
        self._basic = httpx.BasicAuth(user, password)
        self._way = ""
        self._mine = threading.local()

    def greeted(self) -> bool:
        """Whether the next request of this thread will carry what the server wants."""
        return self._way == "basic" or hasattr(self._mine, "digest")

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See `httpx.Auth`."""
        if not self._way:
            response = yield request
            offered = " ".join(response.headers.get_list("www-authenticate")).lower()
            if response.status_code != 401 or not ("digest" in offered or "basic" in offered):
                return
            self._way = "digest" if "digest" in offered else "basic"
        if self._way == "digest":
            if not hasattr(self._mine, "digest"):
                self._mine.digest = httpx.DigestAuth(self._user, self._password)
            yield from self._mine.digest.auth_flow(request)
        else:
            response = yield from self._asked_basic(request)
            if response.status_code == 401:
                self._way = ""  # the server may want another way from now on

    def _asked_basic(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, httpx.Response]:
        response = yield next(self._basic.auth_flow(request))
        return response


class _Body:
    """Bytes that leave piece by piece, and again from the start when the server first wants to know who asks."""

    def __init__(self, body: bytes, pace: Callable[[int], None]) -> None:
        self._body, self._pace = body, pace

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._body), PIECE):
            piece = self._body[start : start + PIECE]
            try:
                self._pace(len(piece))
            except Exception as problem:
                raise _Ended(problem) from problem
            yield piece


class _Ended(Exception):
    """What a `pace` raised, on its way through the client library."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def secure(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies servers by these certificates, or by those that the system trusts.

    Raises:
        SecretFileRefused: `ca_file` cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except FileNotFoundError as problem:
        raise base.SecretFileRefused(path=str(ca_file), reason="missing") from problem
    except ssl.SSLError as problem:
        raise base.SecretFileRefused(path=str(ca_file), reason="malformed") from problem
    except OSError as problem:
        raise base.SecretFileRefused(path=str(ca_file), reason="unreadable") from problem


class Wire:
    """Requests to one server, each tried once. Any thread may ask.

    Attributes:
        address: of the root.
        forms: how a destination may be written: as a path, which passes gateways that rename the host; as the whole
            URL, which Apache insists on; or as one of http, for Apache behind a gateway that speaks https in its place.

    Args:
        name: the provider's, for its errors.
        url: of the root. Its paths are below it.
        credential: who asks, None for nobody.
        trusted: what verifies the server's certificate.
        patience: most seconds to wait for the next byte in either direction.

    Raises:
        StorageMissing: the URL is none.
        Unavailable: the proxy that the environment names cannot be used.
        SecretFileRefused: the system's certificates cannot be read.
    """

    forms: Final = ("path", "whole", "plain")

    def __init__(
        self,
        name: str,
        url: str,
        credential: Password | Token | None = None,
        trusted: ssl.SSLContext | None = None,
        patience: float = 60.0,
    ) -> None:
        self.name = name
        try:
            self._root = httpx.URL(url.rstrip("/") + "/")
        except httpx.InvalidURL as problem:
            raise base.StorageMissing(provider=name, path=url) from problem
        self.address = str(self._root)
        self._credential = credential
        # httpx would take the certificates that it brings along. For plain http nothing is loaded, which takes a while.
        verify = trusted or (secure(None) if self._root.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._client = http_client.opened(
            name,
            auth=credential,
            verify=verify,
            timeout=httpx.Timeout(patience, connect=min(patience, _CONNECTING)),
            headers=_ALWAYS,
            follow_redirects=False,
            # What the environment says of proxies does not hold for this machine itself.
            trust_env=not _is_here(self._root.host),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=15.0),
        )

    def path(self, place: str) -> str:
        """The decoded path of a place below the root, as listings name it: without a slash at the end."""
        return (self._root.path + place).rstrip("/")

    def destination(self, place: str, form: str) -> str:
        """The place as the Destination header names it, in one of `forms`."""
        url = self._url(place)
        if form == "path":
            return url.raw_path.decode("ascii")
        return str(url.copy_with(scheme="http")) if form == "plain" else str(url)

    def ask(
        self,
        verb: str,
        place: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
    ) -> httpx.Response:
        """Asks, and does not keep the body of the reply.

        Raises:
            Unavailable: no reply.
        """
        with self.reply(verb, place, headers, content) as response:
            _drain(response)
            return response

    def send(
        self, verb: str, place: str, headers: Mapping[str, str], body: bytes, pace: Callable[[int], None]
    ) -> httpx.Response:
        """As `ask`, with a body that leaves at the pace that `base.Paced` describes."""
        length = {"Content-Length": str(len(body))}  # a server that wants it in pieces of unknown number is rare
        return self.ask(verb, place, {**headers, **length}, _Body(body, pace))

    def greet(self) -> None:
        """Lets this thread learn how the server wants to know who asks, before it sends a body."""
        if isinstance(self._credential, Password) and not self._credential.greeted():
            self.ask("PROPFIND", "", {"Depth": "0", "Content-Type": "application/xml"}, webdav_replies.PROPERTIES)

    @contextlib.contextmanager
    def reply(
        self,
        verb: str,
        place: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Iterator[httpx.Response]:
        """A reply whose body the caller reads (`iter_raw`), inside the block, which also translates what that raises.

        Raises:
            Unavailable: no reply, or it broke off.
        """
        with self.translated():
            request = self._client.build_request(verb, self._url(place), headers=headers, content=content)
            response = self._client.send(request, stream=True)
            try:
                if response.status_code not in _BODIES:
                    _drain(response)
                yield response
            finally:
                response.close()

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Translates what the client library raises. Nothing else does."""
        try:
            yield
        except _Ended as ended:
            raise ended.cause from ended.cause.__cause__
        except httpx.TimeoutException as problem:
            raise base.Unavailable(provider=self.name, reason="timeout") from problem
        except httpx.ConnectError as problem:
            certificate = any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(problem))
            reason = "certificate" if certificate else "no-connection"
            raise base.Unavailable(provider=self.name, reason=reason) from problem
        except httpx.HTTPError as problem:
            raise base.Unavailable(provider=self.name, reason="broken") from problem

    def refused(self, response: httpx.Response, **params: object) -> base.ProviderError:
        """The error that the status of a reply means."""
        after = webdav_replies.wait_asked(response.headers.get("retry-after", ""), time.time())
        nobody = self._credential is None or (isinstance(self._credential, Password) and self._credential.empty)
        if response.status_code == 401 and nobody:
            params = {"reason": "anonymous", **params}
        return webdav_replies.refusal(response.status_code, after, self.address, provider=self.name, **params)

    def close(self) -> None:
        """Gives the connections back."""
        self._client.close()

    def _url(self, place: str) -> httpx.URL:
        return self._root.copy_with(raw_path=self._root.raw_path + place.encode("ascii"))


def _drain(response: httpx.Response) -> None:
    """Reads what nobody wants, so that the connection can be used again."""
    read = 0
    if response.is_stream_consumed:
        return
    for part in response.iter_raw():
        read += len(part)
        if read > _PAGE:
            return


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__ or problem.__context__
