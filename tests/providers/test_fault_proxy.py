"""The proxy breaks what it is told to break, and nothing else."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import pytest

from tests.support.fault_proxy import Fault, FaultProxy, broken

BODY = bytes(range(256)) * 1000


class Upstream(ThreadingHTTPServer):
    """Keeps what is put. `/chunked/` is sent in chunks, `/open/` until the end of the connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keeper)
        self.objects: dict[str, bytes] = {}
        self.cut: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # connections are broken here on purpose


class _Keeper(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_PUT(self) -> None:
        size = int(self.headers["Content-Length"])
        try:
            body = self.rfile.read(size)
        except ConnectionResetError:
            self.server.cut.append(self.path)
            raise
        if len(body) < size:
            raise AssertionError("an orderly end of half a body")
        self.server.objects[self.path] = body
        self._answer(201)

    def do_GET(self) -> None:
        body = self.server.objects.get(self.path)
        if body is None:
            self._answer(404)
        elif self.path.startswith("/chunked/"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 1000):
                piece = body[start : start + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path.startswith("/open/"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        else:
            self._answer(200, body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.server_address[1]) as proxy:
        yield proxy


class Client:
    """One connection, kept, as a client with a pool of one does; after an error the next request opens another."""

    def __init__(self, proxy: FaultProxy, timeout: float = 10.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)

    def __call__(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body)
            with self._connection.getresponse() as reply:
                return reply.status, reply.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[Client]:
    with Client(proxy) as client:
        yield client


def test_without_faults_everything_passes_on_one_connection(
    upstream: Upstream, proxy: FaultProxy, client: Client
) -> None:
    for path in ("/a", "/chunked/a"):
        assert client("PUT", path, BODY) == (201, b"")
        assert upstream.objects[path] == BODY
        assert client("GET", path) == (200, BODY)
        assert client("HEAD", path)[0] == 200
    assert client("GET", "/none") == (404, b"")
    upstream.objects["/open/a"] = BODY
    assert client("GET", "/open/a") == (200, BODY)
    assert client("GET", "/a?q=1") == (404, b"")
    assert proxy.seen[:2] == ["PUT /a", "GET /a"]
    assert proxy.seen[-1] == "GET /a?q=1"


def test_status_in_place_of_the_server(upstream: Upstream, proxy: FaultProxy, client: Client) -> None:
    fault = Fault("status", on="^PUT /b", status=429, headers=(("Retry-After", "7"),), body=b"<slow/>", skip=1, times=2)
    with broken(proxy, fault):
        assert client("PUT", "/a", b"1")[0] == 201
        assert client("PUT", "/b", b"1")[0] == 201
        for _ in range(2):
            assert client("PUT", "/b", b"2") == (429, b"<slow/>")
        assert upstream.objects["/b"] == b"1"
        assert client("PUT", "/b", b"3")[0] == 201
    assert fault.fired == 2


def test_a_reset_in_the_middle_of_a_body(upstream: Upstream, proxy: FaultProxy, client: Client) -> None:
    with broken(proxy, Fault("reset")), pytest.raises(OSError):
        client("PUT", "/a", BODY)
    until(lambda: upstream.cut == ["/a"])
    assert upstream.objects == {}
    assert client("PUT", "/a", BODY)[0] == 201


def test_a_lost_reply_is_lost_after_it_was_carried_out(upstream: Upstream, proxy: FaultProxy, client: Client) -> None:
    fault = Fault("lost", on="^PUT")
    with broken(proxy, fault), pytest.raises(ConnectionError):
        client("PUT", "/a", BODY)
    assert upstream.objects == {"/a": BODY}
    assert fault.answers == [201]


def test_a_lost_reply_is_not_the_interim_one(upstream: Upstream, proxy: FaultProxy) -> None:
    fault = Fault("lost")
    with broken(proxy, fault), socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as raw:
        raw.sendall(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 100 ")
        assert fault.answers == []
        raw.sendall(b"abc")
        with pytest.raises(ConnectionResetError):
            raw.recv(100)
    assert upstream.objects == {"/a": b"abc"}
    assert fault.answers == [201]


@pytest.mark.parametrize("path", ["/a", "/chunked/a"])
def test_a_truncated_reply(path: str, upstream: Upstream, proxy: FaultProxy, client: Client) -> None:
    upstream.objects[path] = BODY
    with broken(proxy, Fault("truncated")), pytest.raises(http.client.IncompleteRead) as caught:
        client("GET", path)
    assert len(caught.value.partial) < len(BODY)
    assert BODY.startswith(caught.value.partial)
    assert client("GET", path) == (200, BODY)


def test_a_black_hole_swallows_and_says_nothing(upstream: Upstream, proxy: FaultProxy) -> None:
    began = time.monotonic()
    with broken(proxy, Fault("hole")), Client(proxy, timeout=0.2) as client, pytest.raises(TimeoutError):
        client("PUT", "/a", BODY)
    assert time.monotonic() - began >= 0.2
    assert upstream.objects == {}


def test_slow_and_whole(upstream: Upstream, proxy: FaultProxy, client: Client) -> None:
    upstream.objects["/a"] = BODY
    upstream.objects["/small"] = b"abcdefgh"
    for path in ("/a", "/small"):
        began = time.monotonic()
        with broken(proxy, Fault("slow", seconds=0.05, pieces=4)):
            assert client("GET", path) == (200, upstream.objects[path])
        assert 0.15 < time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/a", "/chunked/a"])
def test_one_bit(path: str, upstream: Upstream, proxy: FaultProxy, client: Client) -> None:
    with broken(proxy, Fault("flip-request")):
        assert client("PUT", path, BODY)[0] == 201
    assert different_bits(upstream.objects[path], BODY) == 1
    upstream.objects[path] = BODY
    with broken(proxy, Fault("flip-reply")):
        status, body = client("GET", path)
    assert (status, different_bits(body, BODY)) == (200, 1)


def test_words_of_a_reply(upstream: Upstream, proxy: FaultProxy, client: Client) -> None:
    upstream.objects["/a"] = b"one two; Mon, 05 Jan 2026 10:00:00 GMT and 2026-01-05T10:00:00Z"
    with broken(proxy, Fault("swap", find=b"two", put=b"2/3")):
        assert client("GET", "/a")[1].startswith(b"one 2/3; ")
    with broken(proxy, Fault("skew", seconds=-36000.0 - 1)):
        assert client("GET", "/a")[1] == b"one two; Sun, 04 Jan 2026 23:59:59 GMT and 2026-01-04T23:59:59Z"
    upstream.objects["/a"] = b"nothing"
    with pytest.raises(AssertionError, match="never fired"), broken(proxy, Fault("swap", find=b"two", put=b"2/3")):
        client("GET", "/a")


def test_an_old_reply(upstream: Upstream, proxy: FaultProxy, client: Client) -> None:
    proxy.remember = "^GET /a"
    upstream.objects["/a"] = b"old"
    assert client("GET", "/a") == (200, b"old")
    proxy.remember = None
    upstream.objects |= {"/a": b"new", "/ab": b"new"}
    fault = Fault("stale", on="^GET /a", times=None)
    with broken(proxy, fault):
        assert client("GET", "/a") == (200, b"old")
        assert client("GET", "/ab") == (200, b"new")
        assert client("GET", "/a") == (200, b"old")
    assert fault.fired == 2
    assert client("GET", "/a") == (200, b"new")


def different_bits(one: bytes, other: bytes) -> int:
    assert len(one) == len(other)
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


def test_refused_also_for_a_connection_that_was_kept(proxy: FaultProxy, client: Client) -> None:
    assert client("GET", "/a")[0] == 404
    with broken(proxy, Fault("refused")):
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            client("GET", "/a")
        with pytest.raises(ConnectionRefusedError):
            client("GET", "/a")
    assert client("GET", "/a")[0] == 404


def test_kept_connections_can_be_ended(proxy: FaultProxy, client: Client) -> None:
    assert client("GET", "/a")[0] == 404
    proxy.drop_idle()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        client("GET", "/a")
    assert client("GET", "/a")[0] == 404


def test_what_did_not_fire_is_told(upstream: Upstream, proxy: FaultProxy) -> None:
    upstream.objects["/empty"] = b""

    def called_under(fault: Fault) -> None:
        with broken(proxy, fault), Client(proxy) as client:
            if fault.kind == "refused":
                proxy.clear()
            assert client("GET", "/empty")[0] == 200
            assert client("HEAD", "/empty")[0] == 200

    for fault in (
        Fault("status", on="^DELETE"),
        Fault("truncated", on="/empty"),
        Fault("reset"),
        Fault("flip-request"),
        Fault("flip-reply", on="HEAD"),
    ):
        with pytest.raises(AssertionError, match="never fired"):
            called_under(fault)
    with pytest.raises(AssertionError):
        called_under(Fault("refused"))


def test_many_at_once(upstream: Upstream, proxy: FaultProxy) -> None:
    fault = Fault("status", times=3)
    answers: list[int] = []

    def put(number: int) -> None:
        with Client(proxy) as client:
            answers.append(client("PUT", f"/{number}", BODY)[0])

    with broken(proxy, fault):
        threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [201] * 5 + [503] * 3
    assert len(upstream.objects) == 5


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
