"""The transport under Google's client: each request once, to nobody else, within bounds."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from chatkeep.providers import base
from chatkeep.providers.google_http import Bounds, ForGoogle, Transport, retry_after, split

SHORT = Bounds(connect=0.5, silence=0.5)


class Server:
    """Answers each connection with what a script says, and keeps what it was sent."""

    def __init__(self, *script: Callable[[socket.socket], None]) -> None:
        self.script = list(script)
        self.heads: list[bytes] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while self.script:
                connection, _ = self.listening.accept()
                with connection:
                    connection.settimeout(5)
                    self.script.pop(0)(connection)

    def read(self, connection: socket.socket) -> bytes:
        """One request, whole: a connection that is closed over unread bytes is reset, and not ended."""
        head, wanted = b"", 4
        while len(head) < wanted or b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                break
            head += piece
            if (told := re.search(rb"(?i)content-length: (\d+)", head)) and b"\r\n\r\n" in head:
                wanted = head.index(b"\r\n\r\n") + 4 + int(told[1])
        self.heads.append(head)
        return head

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def serving(*replies: bytes, bounds: Bounds | None = None) -> Iterator[tuple[Server, Transport]]:
    """A server that answers one connection after the other; several replies in one stand on one connection."""
    server: Server

    def step(reply: bytes) -> Callable[[socket.socket], None]:
        def run(connection: socket.socket) -> None:
            server.read(connection)
            connection.sendall(reply)

        return run

    server = Server(*map(step, replies))
    transport = Transport("drive", (server.origin,), bounds, proxies=False)
    try:
        yield server, transport
    finally:
        transport.close()
        server.close()


def test_a_reply() -> None:
    with serving(b"HTTP/1.1 200 OK\r\nX-Two: b\r\nContent-Length: 3\r\n\r\nabc") as (server, transport):
        reply = transport.send("GET", f"{server.origin}/a?b=c", {"X-One": "1"})
    assert (reply.status, reply.body, reply.whole, reply.headers["x-two"]) == (200, b"abc", True, "b")
    assert server.heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("raw", "body", "whole"),
    [
        (b"Content-Length: 5\r\n\r\nabc", b"abc", False),
        (b"Content-Length: 5\r\n\r\n", b"", False),
        (b"Content-Length: 0\r\n\r\n", b"", True),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc", True),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"abc", False),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", b"abc", False),
        (b"Connection: close\r\n\r\nabc", b"abc", True),
    ],
)
def test_where_a_body_ends(raw: bytes, body: bytes, whole: bool) -> None:
    with serving(b"HTTP/1.1 200 OK\r\n" + raw) as (server, transport):
        reply = transport.send("GET", f"{server.origin}/", {})
    assert (reply.body, reply.whole) == (body, whole)


def test_a_reply_that_is_too_long() -> None:
    for raw in (b"Content-Length: 1001\r\n\r\n" + bytes(1001), b"Connection: close\r\n\r\n" + bytes(100_000)):
        with serving(b"HTTP/1.1 200 OK\r\n" + raw) as (server, transport), pytest.raises(base.Unavailable):
            transport.send("GET", f"{server.origin}/", {}, limit=1000)
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(1000)) as (server, transport):
        assert len(transport.send("GET", f"{server.origin}/", {}, limit=1000).body) == 1000


def test_a_request_is_sent_once() -> None:
    """Nothing comes back on the first connection: the second one is never opened."""
    again = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with serving(b"", again) as (server, transport):
        with pytest.raises(base.Unavailable) as caught:
            transport.send("POST", f"{server.origin}/", {}, b"body")
        assert caught.value.params["reason"] == "RemoteDisconnected"
        assert len(server.heads) == 1
        assert transport.send("POST", f"{server.origin}/", {}, b"body").status == 200


def test_a_redirection_is_a_reply() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    with serving(moved) as (server, transport):
        assert transport.send("GET", f"{server.origin}/", {}).status == 302


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2:{port}/",
        "https://127.0.0.1:{port}/",
        "http://user@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}@example.org/",
        "http://127.0.0.1.example.org:{port}/",
        "http://127.0.0.1:9/secret",
        "http://127.0.0.1:99999/",
        "file:///etc/passwd",
        "",
    ],
)
def test_nobody_else_is_spoken_to(url: str) -> None:
    with serving() as (server, transport), pytest.raises(base.Unavailable) as caught:
        transport.send("GET", url.format(port=server.origin.rpartition(":")[2]), {"Authorization": "Bearer x"})
    assert caught.value.params == {"provider": "drive", "reason": "foreign-address"}
    assert server.heads == []


def test_silence_is_bounded() -> None:
    with contextlib.ExitStack() as stack:
        gate = threading.Event()
        stack.callback(gate.set)

        def hole(connection: socket.socket) -> None:
            server.read(connection)
            gate.wait(20)

        server = Server(hole)
        stack.callback(server.close)
        stack.callback(gate.set)
        transport = Transport("drive", (server.origin,), SHORT, proxies=False)
        stack.callback(transport.close)
        with pytest.raises(base.Unavailable) as caught:
            transport.send("GET", f"{server.origin}/", {})
        assert caught.value.params["reason"] == "TimeoutError"
        assert len(server.heads) == 1


def test_an_idle_connection_that_was_closed_is_not_used() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with serving(one, one, one) as (server, transport):
        for _ in range(3):
            assert transport.send("PUT", f"{server.origin}/", {}, b"x").status == 200
            # The server closes after each reply without having said so. Wait until that has arrived.
            idle = transport._idle[server.origin][0].sock
            idle.settimeout(5)
            assert idle.recv(1, socket.MSG_PEEK) == b""


def test_connections_are_kept() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def three(connection: socket.socket) -> None:
        for _ in range(3):
            server.read(connection)
            connection.sendall(one)

    server = Server(three)
    transport = Transport("drive", (server.origin,), proxies=False)
    for _ in range(3):
        assert transport.send("GET", f"{server.origin}/", {}).body == b"ok"
    transport.close()
    transport.close()
    server.close()
    assert len(server.heads) == 3


def test_a_refusal_before_the_body_was_read() -> None:
    """A server that answers and closes while a large body is still on its way: the answer counts."""

    def refuses(connection: socket.socket) -> None:
        server.read(connection)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while connection.recv(1 << 20):
                pass

    server = Server(refuses)
    transport = Transport("drive", (server.origin,), proxies=False)
    assert transport.send("PUT", f"{server.origin}/", {}, bytes(8_000_000)).status == 403
    transport.close()
    server.close()


def test_pace_sees_every_byte_and_may_end_it() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def whole(connection: socket.socket) -> None:
        got = len(server.read(connection).partition(b"\r\n\r\n")[2])
        while got < 200_001:
            got += len(connection.recv(65536))
        connection.sendall(one)

    server = Server(whole, lambda _connection: None)
    transport = Transport("drive", (server.origin,), proxies=False)
    told: list[int] = []
    assert transport.send("PUT", f"{server.origin}/", {}, bytes(200_001), pace=told.append).status == 200
    assert (sum(told), max(told)) == (200_001, 65_536)

    class Enough(Exception):
        pass

    def stop(_size: int) -> None:
        raise Enough

    with pytest.raises(Enough):
        transport.send("PUT", f"{server.origin}/", {}, bytes(200_001), pace=stop)
    assert transport._idle[server.origin] == []
    transport.close()
    server.close()


def test_401_is_answered_once() -> None:
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    asked: list[str | None] = []

    def authorize(before: str | None) -> str:
        asked.append(before)
        return f"Bearer {len(asked)}"

    with serving(refused, refused) as (server, transport):
        assert ForGoogle(transport, authorize).send("GET", f"{server.origin}/", {}).status == 401
    assert asked == [None, "Bearer 1"]
    assert [f"Authorization: Bearer {number}".encode() in head for number, head in enumerate(server.heads, 1)] == [
        True
    ] * 2


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for a tunnel, and given nothing of the request before there is one."""
    with serving(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as (server, _):
        monkeypatch.setenv("https_proxy", server.origin)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        through = Transport("drive", ("https://drive.invalid",))
        with pytest.raises(base.Unavailable):
            through.send("GET", "https://drive.invalid/secret", {"Authorization": "Bearer x"})
        through.close()
    assert server.heads[0].startswith(b"CONNECT drive.invalid:443 ")
    assert b"Bearer" not in server.heads[0]


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("999999999999", 86_400.0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("\u0663", None),
    ],
)
def test_retry_after(said: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": said}, 1445412480.0) == seconds


def test_origins() -> None:
    assert split("https://Host.Example:443/a?b=c#d") == ("https://host.example", "/a?b=c")
    assert split("http://[::1]:80") == ("http://[::1]", "/")
    assert split("https://h:8443/") == ("https://h:8443", "/")
