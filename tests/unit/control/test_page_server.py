"""The page's server under attack, byte by byte: only the page itself, on this machine, by this user, is answered."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from chatkeep.daemon.control.ceremony.browser import page_files
from chatkeep.daemon.control.ceremony.loopback import listen
from chatkeep.daemon.control.ceremony.server import BODY_LIMIT, CONNECTIONS, FIELD_LIMIT, Call, Reply, Server, Turned
from tests.support.other_user import connected_as_another

TOKEN = "t" * 43


@dataclass
class Site:
    """A server that is up, and what it said."""

    port: int
    server: Server
    calls: list[Call] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def raw(self, request: bytes, address: str = "127.0.0.1") -> bytes:
        """Everything that comes back."""
        reader, writer = await asyncio.open_connection(address, self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(60):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async def ask(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Answer:
        """A request as the page makes it; headers as given, None takes one out (with _ for -)."""
        usual: dict[str, str | None] = {"Host": f"localhost:{self.port}", "Sec_Fetch_Site": "same-origin"}
        if (method, path) == ("GET", "/"):
            usual |= {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
        if body is not None:
            usual |= {
                "X_Page": self.server.stamp,
                "Origin": f"http://localhost:{self.port}",
                "Content_Type": "application/json",
                "X_Token": TOKEN,
                "Content_Length": str(len(body)),
            }
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [
            f"{name.replace('_', '-')}: {value}" for name, value in (usual | headers).items() if value is not None
        ]
        return Answer.of(await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, raw: bytes) -> Answer:
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines[1:])
        return cls(int(lines[0].split()[1]) if lines[0] else 0, {name.lower(): value for name, value in pairs}, body)


@contextlib.asynccontextmanager
async def serving(uid: int | None = None, seconds: float = 10, life: float = 45) -> AsyncIterator[Site]:
    loopback = listen()
    with contextlib.closing(loopback):

        async def call(found: Call) -> Reply:
            site.calls.append(found)
            if found.name == "hold":
                site.waiting.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    site.gone.set()
            if found.name == "none":
                raise Turned(404)
            return {"heard": found.name}

        server = Server(
            loopback.port,
            os.geteuid() if uid is None else uid,
            page_files(),
            call,
            lambda reason: site.refused.append(reason),
            request_seconds=seconds,
            connection_seconds=life,
        )
        site = Site(loopback.port, server)
        async with server.serving(loopback):
            yield site


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_the_page_and_its_parts() -> None:
    async def test() -> None:
        async with serving() as site:
            for path, kind in (
                ("/", "text/html"),
                ("/page.js", "text/javascript"),
                ("/page.css", "text/css"),
                ("/logo.svg", "image/svg+xml"),
            ):
                answer = await site.ask("GET", path)
                assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, kind)
                stamp = site.server.stamp.encode()
                assert answer.body == page_files()[path].body.replace(b"{stamp}", stamp)
                assert (stamp in answer.body) == (path == "/")
            assert (await site.raw(f"GET / HTTP/1.1\r\nHost: localhost:{site.port}\r\n\r\n".encode(), "::1"))[
                9:12
            ] == b"200"

    run(test())


def test_every_answer_says_what_the_page_may_do() -> None:
    async def test() -> None:
        async with serving() as site:
            for answer in (
                await site.ask("GET", "/"),
                await site.ask("GET", "/nothing"),
                await site.ask("POST", "/api/x", b"{}"),
                await site.ask("GET", "/", Host="evil.test"),
            ):
                policy = answer.headers["content-security-policy"].split("; ")
                assert policy[0] == "default-src 'none'"
                assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} <= set(policy)
                assert {"require-trusted-types-for 'script'", "trusted-types 'none'", "script-src 'self'"} <= set(
                    policy
                )
                assert "unsafe" not in answer.headers["content-security-policy"]
                assert answer.headers["cross-origin-opener-policy"] == "same-origin"
                assert answer.headers["cross-origin-resource-policy"] == "same-origin"
                assert answer.headers["referrer-policy"] == "no-referrer"
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["cache-control"] == "no-store"
                assert "publickey-credentials-get=(self)" in answer.headers["permissions-policy"]
                assert answer.headers["connection"] == "close"
                assert not {"set-cookie", "access-control-allow-origin"} & set(answer.headers)

    run(test())


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    text = page_files()["/"].body.decode()
    assert "<script type" in text
    assert "</script>" in text
    assert not [sign for sign in ("style=", "onclick", "<style", "http://", "https://", "javascript:") if sign in text]
    script = page_files()["/page.js"].body.decode()
    assert not [sign for sign in ("innerHTML", "eval(", "console.", "localStorage", "sessionStorage") if sign in script]


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/begin"])
@pytest.mark.parametrize(
    "host", ["evil.test:{port}", "127.0.0.1:{port}", "[::1]:{port}", "localhost", "LOCALHOST:{port}"]
)
def test_another_host_is_turned_away_everywhere(path: str, host: str) -> None:
    async def test() -> None:
        async with serving() as site:
            body = b"{}" if path.startswith("/api") else None
            answer = await site.ask("POST" if body else "GET", path, body, Host=host.format(port=site.port))
            assert answer.status == 421
            assert site.refused == ["host"]
            assert site.calls == []

    run(test())


def test_a_request_with_no_host_or_two_is_turned_away() -> None:
    async def test() -> None:
        async with serving() as site:
            host = f"Host: localhost:{site.port}\r\n"
            for head in ("GET / HTTP/1.0\r\n", f"GET / HTTP/1.1\r\n{host}{host}", "GET / HTTP/1.1\r\n"):
                assert Answer.of(await site.raw(f"{head}\r\n".encode())).status in {400, 421}

    run(test())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": None}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 403),
        ({"Origin": "https://localhost:{port}"}, 403),
        ({"Origin": "http://localhost:{port}.evil.test"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "none"}, 403),
        ({"X_Token": None}, 403),
        ({"Content_Type": None}, 415),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content_Type": "text/plain; application/json"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
    ],
)
def test_a_call_that_is_not_the_page_s_own(headers: dict[str, str | None], status: int) -> None:
    async def test() -> None:
        async with serving() as site:
            said = {name: value and value.format(port=site.port) for name, value in headers.items()}
            assert (await site.ask("POST", "/api/begin", b"{}", **said)).status == status
            assert site.calls == []

    run(test())


@pytest.mark.parametrize("name", ["Origin", "Content-Type", "X-Token"])
def test_a_call_that_says_something_twice(name: str) -> None:
    async def test() -> None:
        async with serving() as site:
            fields = {
                "Host": f"localhost:{site.port}",
                "Origin": f"http://localhost:{site.port}",
                "Content-Type": "application/json",
                "X-Token": TOKEN,
                "X-Page": site.server.stamp,
                "Content-Length": "2",
            }
            lines = [f"{key}: {value}" for key, value in fields.items()] + [f"{name}: {fields[name]}"]
            request = "\r\n".join(["POST /api/begin HTTP/1.1", *lines]).encode() + b"\r\n\r\n{}"
            assert Answer.of(await site.raw(request)).status in {400, 403, 415}
            assert site.calls == []

    run(test())


def test_a_call_of_the_page() -> None:
    async def test() -> None:
        async with serving() as site:
            assert (await site.ask("POST", "/api/begin", b'{"a":1}')).body == b'{"heard": "begin"}'
            assert site.calls == [Call("begin", TOKEN, "application/json", b'{"a":1}')]
            # A browser that does not tell where a request comes from still tells its origin.
            assert (await site.ask("POST", "/api/begin", b"{}", Sec_Fetch_Site=None)).status == 200
            assert (await site.ask("POST", "/api/none", b"{}")).status == 404
            assert (await site.ask("GET", "/api/begin")).status == 405
            assert (await site.ask("POST", "/", b"{}")).status == 405
            assert (await site.ask("GET", "/?x=1")).status == 404
            assert (await site.ask("GET", "/%70age.js")).status == 404
            assert (await site.ask("GET", "/../page.js")).status == 404

    run(test())


def test_where_the_page_may_be_visited_from() -> None:
    visit: dict[str, Any] = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}

    async def test() -> None:
        async with serving() as site:
            for come_from in ("none", "cross-site", "same-site"):  # typed, or led to by the file that opens it
                assert (await site.ask("GET", "/", Sec_Fetch_Site=come_from, **visit)).status == 200
            framed = visit | {"Sec_Fetch_Dest": "iframe"}
            assert (await site.ask("GET", "/", Sec_Fetch_Site="cross-site", **framed)).status == 403
            fetched = visit | {"Sec_Fetch_Mode": "no-cors"}
            assert (await site.ask("GET", "/", Sec_Fetch_Site="cross-site", **fetched)).status == 403
            assert (await site.ask("GET", "/page.js", Sec_Fetch_Site="cross-site", **visit)).status == 403
            assert (await site.ask("GET", "/page.js", Sec_Fetch_Site="none", **visit)).status == 403
            assert site.refused == ["origin"] * 4

    run(test())


@pytest.mark.parametrize(
    "said",
    [
        # As Chromium says them: a worker that hands the visit on or makes one of its own, a script of this origin, a
        # visit that is sent ahead for a worker, a worker's own script.
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "empty"},
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "same-origin", "Sec_Fetch_Dest": "empty"},
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
        {"Service_Worker_Navigation_Preload": "true"},
        {"Service_Worker": "script", "Sec_Fetch_Site": "same-origin", "Sec_Fetch_Dest": "serviceworker"},
    ],
)
def test_the_word_of_the_page_is_for_no_worker(said: dict[str, str]) -> None:
    async def test() -> None:
        async with serving() as site:
            answer = await site.ask("GET", "/", None, **said)
            assert (answer.status, answer.body) == (403, b"")
            assert site.refused == ["origin"]

    run(test())


def test_a_page_of_this_origin_that_opens_it_finds_no_word_in_it() -> None:
    async def test() -> None:
        async with serving() as site:
            answer = await site.ask("GET", "/", Sec_Fetch_Site="same-origin")
            assert (answer.status, site.server.stamp.encode() in answer.body) == (200, False)
            assert b'<meta name="page" content="">' in answer.body

    run(test())


@pytest.mark.parametrize("said", [None, "", "x" * 43, "\xfc"])
def test_nothing_begins_without_the_word_of_the_page(said: str | None) -> None:
    async def test() -> None:
        async with serving() as site:
            assert (await site.ask("POST", "/api/begin", b"{}", X_Page=said)).status == 403
            assert (site.calls, site.refused) == ([], ["origin"])

    run(test())


def test_the_parts_of_the_page_are_pinned() -> None:
    files = page_files()
    for name in ("/page.js", "/page.css"):
        digest = base64.b64encode(hashlib.sha256(files[name].body).digest()).decode()
        assert f'"{name}" integrity="sha256-{digest}"' in files["/"].body.decode()


def test_a_body_that_is_too_large() -> None:
    async def test() -> None:
        async with serving() as site:
            assert (await site.ask("POST", "/api/x", b"x" * BODY_LIMIT)).status == 200
            # Said beforehand: not even read.
            assert (await site.ask("POST", "/api/x", b"", Content_Length=str(BODY_LIMIT + 1))).status == 413
            part = b"%x\r\n" % (BODY_LIMIT // 2) + b"x" * (BODY_LIMIT // 2) + b"\r\n"
            head = (
                f"POST /api/x HTTP/1.1\r\nHost: localhost:{site.port}\r\nOrigin: http://localhost:{site.port}\r\n"
                f"X-Token: {TOKEN}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            assert Answer.of(await site.raw(head.encode() + part * 3 + b"0\r\n\r\n")).status in {0, 413}
            assert len(site.calls) == 1
            # What the other pages on `localhost` leave in a browser comes along, and keeps nobody out.
            assert (await site.ask("GET", "/", Cookie="x" * 180 * 4096)).status == 200
            assert (await site.ask("GET", "/", Cookie="x" * (FIELD_LIMIT + 9000))).status == 400

    run(test())


HALF_A_CALL = (
    b"POST /api/x HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: http://localhost:{port}\r\nX-Token: t\r\n"
    b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost", HALF_A_CALL])
def test_a_client_that_is_slow_is_cut_off(sent: bytes) -> None:
    async def test() -> None:
        async with serving(seconds=0.3) as site:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await site.raw(sent.replace(b"{port}", str(site.port).encode()))
            assert 0.25 < loop.time() - begun < 10
            assert site.calls == []
            assert site.server.connections == {}
            assert (await site.ask("GET", "/")).status == 200

    run(test())


def test_an_answer_may_take_longer_than_a_question_but_not_for_ever() -> None:
    async def test() -> None:
        async with serving(seconds=0.2, life=0.8) as site:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await site.ask("POST", "/api/hold", b"{}", Content_Length="2")
            assert 0.7 < loop.time() - begun < 10
            assert site.gone.is_set()

    run(test())


def test_a_client_that_leaves_is_not_waited_for() -> None:
    async def test() -> None:
        async with serving() as site:
            asking = asyncio.create_task(site.ask("POST", "/api/hold", b"{}"))
            await site.waiting.wait()
            asking.cancel()
            async with asyncio.timeout(60):
                await site.gone.wait()

    run(test())


def test_there_are_only_so_many_connections() -> None:
    async def test() -> None:
        async with serving() as site:
            held = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(CONNECTIONS)]
            async with asyncio.timeout(60):
                while len(site.server.connections) < CONNECTIONS:  # until the last of them is accepted
                    await asyncio.sleep(0)
            assert await site.raw(b"GET / HTTP/1.1\r\n\r\n") == b""
            for _, writer in held:
                writer.close()
            async with asyncio.timeout(60):
                while site.server.connections:
                    await asyncio.sleep(0)
            assert (await site.ask("GET", "/")).status == 200

    run(test())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_another_user_is_turned_away_whatever_they_know(address: str) -> None:
    async def test() -> None:
        # Who is not root cannot become another user, and takes itself for one.
        uid = os.geteuid() if os.geteuid() == 0 else os.geteuid() + 1
        async with serving(uid=uid) as site:
            request = (
                f"POST /api/begin HTTP/1.1\r\nHost: localhost:{site.port}\r\nOrigin: http://localhost:{site.port}\r\n"
                f"X-Token: {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
            )
            with connected_as_another((address, site.port), request.encode()) as user:
                assert user != uid
                async with asyncio.timeout(60):
                    while not site.refused:
                        await asyncio.sleep(0)
            assert site.refused == ["user"]
            assert site.calls == []
            assert site.server.connections == {}

    run(test())
