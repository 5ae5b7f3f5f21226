"""The webhook and the heartbeat: what is sent where, and that it goes nowhere else and is shown nowhere."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.service.telling import post
from chatkeep.daemon.service.telling.address import Address
from chatkeep.daemon.service.telling.errors import AddressRefused, Undelivered
from chatkeep.daemon.service.telling.heartbeat import AGAIN, EVERY, FIRST, Heartbeat
from chatkeep.daemon.service.telling.notice import Notice, Problem, Said
from chatkeep.daemon.service.telling.webhook import Webhook, body_of
from tests.support.running_out import in_time
from tests.support.telling import AT, TOKEN, Planted

NOTICE = Notice(Problem.STORAGE_FULL, "disk", False, AT.wall_ns, AT, 3, values={"code": "quota-exceeded"})
SAID = Said("Storage is full", "disk holds no more.", "Free some room.")


class Server:
    """The server of `tests.support.hook_server`."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "requests"
        script = Path(__file__).parents[2] / "support" / "hook_server.py"
        self.child = subprocess.Popen([sys.executable, script, self.log], stdout=subprocess.PIPE, text=True)
        assert self.child.stdout is not None
        self.port = int(self.child.stdout.readline())

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def came(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def end(self) -> None:
        assert self.child.stdout is not None
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path)
    yield started
    started.end()


def kept(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "url"
    path.write_text(text)
    path.chmod(mode)
    return path


def address(url: str) -> Address:
    return Address(url, {}, False)


def sending(url: str) -> str:
    """Why a notice to this address does not get through; empty: it does."""

    shown: list[str] = []

    async def send() -> str:
        webhook = Webhook(address(url))
        try:
            await webhook.deliver(NOTICE, SAID)
        except Undelivered as error:
            shown.append("".join(traceback.format_exception(error)) + repr(error) + str(error.params))
            return f"{error.params['reason']} {error.params.get('status', '')}".strip()
        finally:
            await webhook.close()
        return ""

    told = asyncio.run(send())
    assert not [text for text in shown if url in text or TOKEN in text]
    return told


def test_an_address_is_read_from_a_file_of_ones_own(tmp_path: Path) -> None:
    found = Address.load(kept(tmp_path, f"https://example.org/{TOKEN}?a=b\n\nAuthorization: Bearer {TOKEN}\nX-A:1\n"))
    assert found.url == f"https://example.org/{TOKEN}?a=b"
    assert dict(found.headers) == {"Authorization": f"Bearer {TOKEN}", "X-A": "1"}
    assert not found.clear
    assert found.below("fail") == f"https://example.org/{TOKEN}/fail?a=b"
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("http://127.0.0.1:8080/x", False),
        ("http://[::1]/x", False),
        ("http://localhost/x", False),
        ("https://ntfy.sh/x", False),
        ("http://ntfy.sh/x", True),
        ("http://192.168.1.4/x", True),
        ("http://localhost.example.org/x", True),
    ],
)
def test_what_goes_over_a_network_in_the_clear_is_known(tmp_path: Path, url: str, clear: bool) -> None:
    assert Address.load(kept(tmp_path, url)).clear is clear


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        TOKEN,
        f"ftp://example.org/{TOKEN}",
        f"file:///{TOKEN}",
        f"https:///{TOKEN}",
        f"https://exa mple.org/{TOKEN}",
        f"https://example.org:99999/{TOKEN}",
        f"https://[::1/{TOKEN}",
        f"https://example.org/é{TOKEN}",
        f"https://example.org/{TOKEN}\nno header {TOKEN}",
        f"https://example.org/{TOKEN}\nA b: {TOKEN}",
        f"https://example.org/{TOKEN}\nA: b\x01{TOKEN}",
    ],
)
def test_what_is_no_address_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        Address.load(kept(tmp_path, text))
    assert caught.value.params["reason"] == "malformed"
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = kept(tmp_path, "https://example.org/x")
    reasons = {}
    for mode in (0o644, 0o640, 0o620, 0o602, 0o400, 0o600):
        path.chmod(mode)
        try:
            Address.load(path)
        except AddressRefused as error:
            reasons[mode] = error.params["reason"]
    assert reasons == dict.fromkeys((0o644, 0o640, 0o620, 0o602), "mode")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    (tmp_path / "loop").symlink_to("loop")
    reasons = {}
    for name in ("missing", "fifo", "directory", "loop", "missing/below"):
        with pytest.raises(AddressRefused) as caught:
            Address.load(tmp_path / name)
        reasons[name] = caught.value.params["reason"]
    assert reasons == {
        "missing": "missing",
        "fifo": "kind",
        "directory": "kind",
        "loop": "unreadable",
        "missing/below": "missing",
    }


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept(tmp_path, "https://example.org/x")
    other = os.geteuid() + 4711
    monkeypatch.setattr("os.geteuid", lambda: other)
    owner = path.stat().st_uid
    if owner:  # a file of root is one that systemd gave
        with pytest.raises(AddressRefused) as caught:
            Address.load(path)
        assert caught.value.params["reason"] == "owner"
    else:
        os.chown(path, 4712, 4712)
        with pytest.raises(AddressRefused) as caught:
            Address.load(path)
        assert caught.value.params["reason"] == "owner"


def test_a_notice_arrives_as_json(server: Server) -> None:
    assert sending(server.url(f"/200/{TOKEN}?tpl=1")) == ""
    (request,) = server.came()
    assert (request["method"], request["path"], request["query"]) == ("POST", f"/200/{TOKEN}", "tpl=1")
    assert request["headers"]["Content-Type"] == "application/json"
    assert json.loads(request["body"]) == {
        "version": 1,
        "problem": "storage-full",
        "subject": "disk",
        "over": False,
        "since_ns": AT.wall_ns,
        "at_ns": AT.wall_ns,
        "times": 3,
        "again": False,
        "values": {"code": "quota-exceeded"},
        "title": "Storage is full",
        "message": "disk holds no more.\nFree some room.",
        "text": "Storage is full\ndisk holds no more.\nFree some room.",
        "content": "Storage is full\ndisk holds no more.\nFree some room.",
        "priority": 5,
    }


def test_a_notice_carries_no_secret() -> None:
    planted = Planted()
    for text in planted.texts:
        values = {"code": text, "other": [text]}
        notice = Notice(Problem.JOB_FAILED, text, False, AT.wall_ns, AT, values=values)
        assert planted.found_in(json.dumps(body_of(notice, Said(text, text, text)), ensure_ascii=False)) == set()


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/404/x", "refused 404"), ("/500/x", "refused 500"), ("/429/x", "refused 429"), ("/204/x", "")],
)
def test_what_a_server_answers(server: Server, path: str, reason: str) -> None:
    assert sending(server.url(path + TOKEN)) == reason


def test_a_redirect_is_not_followed(server: Server) -> None:
    assert sending(server.url(f"/away/{TOKEN}")) == "redirect 302"
    assert [request["path"] for request in server.came()] == [f"/away/{TOKEN}"]


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert sending(f"http://127.0.0.1:{taken.getsockname()[1]}/{TOKEN}") == "unreachable"
    assert sending(f"http://nobody.invalid/{TOKEN}") == "unreachable"


def test_a_server_without_a_certificate_is_not_told(server: Server) -> None:
    assert sending(f"https://127.0.0.1:{server.port}/{TOKEN}") in {"untrusted", "unreachable"}
    assert server.came() == []


def test_a_server_that_says_nothing_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(seconds: float) -> None:
        monkeypatch.setattr(post, "SECONDS", seconds)
        before = len(server.came())
        assert sending(server.url(f"/slow/{TOKEN}")) == "silent"
        assert len(server.came()) == before + 1

    in_time(act, 0.5, AssertionError)


def test_no_proxy_and_no_netrc(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login ann password {TOKEN}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert sending(server.url("/200/x")) == ""
    assert "Authorization" not in server.came()[0]["headers"]


def test_a_name_server_that_does_not_answer_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    asked, answered = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> list[Any]:
        asked.set()
        answered.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)

    def act(seconds: float) -> None:
        monkeypatch.setattr(post, "SECONDS", seconds)
        before = time.monotonic()
        assert sending(f"https://example.org/{TOKEN}") == "silent"
        assert time.monotonic() - before < 30
        assert asked.is_set()

    try:
        in_time(act, 0.5, AssertionError)
    finally:
        answered.set()


def beats(server: Server) -> list[str]:
    return [f"{request['method']} {request['path']}" for request in server.came()]


def test_it_beats_while_all_is_well_and_says_once_that_it_is_not(server: Server) -> None:
    async def live() -> None:
        heart = Heartbeat(address(server.url("/200/id")), 0)
        try:
            assert not await heart.beat(True, FIRST - 1)  # too young
            assert await heart.beat(True, FIRST)
            assert not await heart.beat(True, FIRST + EVERY - 1)
            assert heart.wake_at(True) == FIRST + EVERY
            assert await heart.beat(False, FIRST + 10)
            assert not await heart.beat(False, FIRST + EVERY * 9)
            assert heart.wake_at(False) == float("inf")
            assert await heart.beat(True, FIRST + EVERY * 10)
            assert await heart.beat(False, FIRST + EVERY * 10 + 1)
        finally:
            await heart.close()

    asyncio.run(live())
    assert beats(server) == ["GET /200/id", "GET /200/id/fail", "GET /200/id", "GET /200/id/fail"]


def test_a_beat_that_is_lost_is_tried_again_soon(server: Server) -> None:
    async def live() -> None:
        heart = Heartbeat(address(server.url("/500/id")), 0)
        try:
            with pytest.raises(Undelivered):
                await heart.beat(True, FIRST)
            assert not await heart.beat(True, FIRST + AGAIN - 1)
            with pytest.raises(Undelivered):
                await heart.beat(True, FIRST + AGAIN)
        finally:
            await heart.close()

    asyncio.run(live())
    assert beats(server) == ["GET /500/id"] * 2


def test_a_service_without_a_page_for_failures_is_asked_once(server: Server) -> None:
    async def live() -> None:
        heart = Heartbeat(address(server.url("/nofail/id")), 0)
        try:
            assert await heart.beat(False, 1)
            assert not await heart.beat(False, 1 + EVERY)
        finally:
            await heart.close()

    asyncio.run(live())
    assert beats(server) == ["GET /nofail/id/fail"]
