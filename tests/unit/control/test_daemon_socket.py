"""What can be asked of the daemon, by the real client at a real socket; and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control import connections, talk, wire
from chatkeep.daemon.control.client import Daemon
from chatkeep.daemon.control.errors import DaemonLost, DaemonRefused, DaemonRunning, DaemonSilent
from chatkeep.daemon.control.listening import Listening
from chatkeep.daemon.control.noted import NOTE
from chatkeep.daemon.control.reporting import report_of
from chatkeep.daemon.service.errors import NotReady, SocketRefused
from chatkeep.daemon.service.events import Event, Kind
from chatkeep.daemon.service.places import Place
from tests.support.served import DEADLINE, Serving, raised_in_loop, report, standing, until


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "state", tmp_path / "run") as found:
        yield found


def found(serving: Serving, patience: float = DEADLINE) -> Daemon:
    daemon = Daemon.find(serving.state_dir, serving.directory, patience)
    assert daemon is not None
    return daemon


def connected(serving: Serving) -> socket.socket:
    with Place.open(serving.directory) as place:  # type: ignore[union-attr]
        connection = place.connect(wire.socket_name(serving.state_dir), DEADLINE)
    assert connection is not None
    return connection


def said(connection: socket.socket) -> bytes:
    """Everything that comes, until it is closed."""
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def asked(serving: Serving, method: str, path: str, body: bytes | None = None, *more: str) -> tuple[int, Any]:
    """A request as it is written here, and its answer."""
    with connected(serving) as connection:
        lines = [
            f"{method} {path} HTTP/1.1",
            *(more if any(one.startswith("Host:") for one in more) else ("Host: chatkeep", *more)),
        ]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        raw = said(connection)
    head, _, rest = raw.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    try:
        return status, json.loads(rest)
    except ValueError:
        return status, rest


def reason(answer: tuple[int, Any]) -> tuple[int, str]:
    status, value = answer
    assert value["error"]["code"] == DaemonRefused.code
    return status, value["error"]["params"]["reason"]


def test_status_is_what_the_daemon_says(serving: Serving) -> None:
    assert found(serving).status() == wire.plain(standing())


def test_everything_that_can_be_asked_reaches_the_daemon(serving: Serving) -> None:
    daemon = found(serving)
    assert daemon.unlocked() is False
    serving.served.unlocked = True
    assert daemon.unlocked() is True
    with daemon.locking() as locking:
        assert locking.ended() is True
    daemon.reload()
    daemon.run_job("verify")
    with pytest.raises(ChatkeepError) as raised:
        daemon.run_job("nothing")
    assert raised.value.code == "no-such-job"
    assert raised.value.params == {"name": "nothing", "known": ["verify"]}
    assert serving.served.asked == ["session", "session", "lock", "reload", "job verify", "job nothing"]


def test_metrics_are_text(serving: Serving) -> None:
    status, body = asked(serving, "GET", "/v1/metrics")
    assert (status, body) == (200, b"# TYPE chatkeep_up gauge\nchatkeep_up 1\n")


def test_a_backup_tells_its_progress_and_ends_with_its_report(serving: Serving) -> None:
    with found(serving).backup(["chat", "other"]) as lines:
        told = [one for one in lines if one["line"] != "alive"]
    assert {(one["what"], one["done"], one["total"]) for one in told[:-1]} == {("chat", 5, 10), ("to disk", 1, None)}
    assert told[-1]["line"] == "result"
    assert wire.plain(report_of(told[-1]["report"])) == wire.plain(report())
    captured = report_of(told[-1]["report"]).sources[0].captured
    assert captured is not None
    assert [one.path for one in captured.remarks] == [b"Media/\xff\xfe.jpg", b"a.db"]
    assert [one.error.code for one in captured.remarks if one.error] == ["error"]
    assert serving.served.asked == ["backup chat,other"]


def test_a_backup_that_cannot_begin_is_the_error_that_it_is(serving: Serving) -> None:
    serving.served.fails = NotReady(reason="lent")
    with pytest.raises(ChatkeepError) as raised, found(serving).backup([]) as lines:
        list(lines)
    assert (raised.value.code, raised.value.params) == ("not-ready", {"reason": "lent"})


def test_a_backup_goes_on_when_who_asked_goes_away(serving: Serving) -> None:
    serving.served.slow = True
    with found(serving).backup([]) as lines:
        assert next(line for line in lines if line["line"] == "progress")
    until(lambda: "alone" in serving.served.asked, "it was not told that nobody waits")


def test_progress_is_only_the_latest_and_never_more_than_can_be_read(serving: Serving) -> None:
    serving.served.steps = [("chat", done, 100_000) for done in range(100_000)]
    with found(serving).backup([]) as lines:
        told = [line for line in lines if line["line"] == "progress"]
    assert told[-1]["done"] == 99_999
    assert len(told) < 100


def test_events_come_as_they_happen(serving: Serving) -> None:
    with found(serving).events() as lines:
        assert next(lines)["line"] == "alive"
        serving.served.bus.publish(Event.now(Kind.SNAPSHOT_BEGUN, source="chat"))
        line = next(line for line in lines if line["line"] == "event")
    assert line["event"]["kind"] == "snapshot-begun"
    assert line["event"]["values"] == {"source": "chat"}


def test_a_reader_that_is_slow_is_told_what_it_missed_and_holds_up_nobody(serving: Serving) -> None:
    count = 8_000
    with found(serving).events() as lines:
        next(lines)
        for number in range(count):
            serving.served.bus.publish(Event.now(Kind.SNAPSHOT_BEGUN, source=f"{number}".rjust(200, "x")))
        assert found(serving).status()["pid"] == 4242, "others are served"
        serving.served.bus.publish(Event.now(Kind.OVERFLOW))
        seen = dropped = 0
        for line in lines:
            seen += line["line"] == "event"
            dropped += line.get("count", 0)
            if line["line"] == "event" and line["event"]["kind"] == "overflow":
                break
    assert dropped > 0
    assert seen + dropped == count + 1


def test_a_reader_that_never_reads_is_given_up(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "STALLED_SECONDS", 0.2)
    with connected(serving) as silent:
        silent.sendall(b"GET /v1/events HTTP/1.1\r\nHost: chatkeep\r\n\r\n")
        until(lambda: serving.api._streams.count == 1, "it did not begin")
        big = "x" * 1000
        for _ in range(1000):
            serving.served.bus.publish(Event.now(Kind.SNAPSHOT_BEGUN, source=big))
        until(lambda: serving.api._streams.count == 0, "it was waited for without end")


def test_what_follows_ends_with_the_daemon(tmp_path: Path) -> None:
    with Serving(tmp_path / "state", tmp_path / "run") as serving:
        with found(serving).events() as lines:
            next(lines)
            ending = threading.Thread(target=lambda: serving.run(serving.api.close()))
            ending.start()
            assert [line["line"] for line in lines][-1] == "end"
            ending.join()
        assert Daemon.find(serving.state_dir, serving.directory) is None
        assert not [name for name in os.listdir(serving.directory) if name.endswith(".sock")]


def test_an_end_waits_for_nobody_that_hangs(tmp_path: Path) -> None:
    with Serving(tmp_path / "state", tmp_path / "run") as serving:
        serving.served.slow = True
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(found(serving).status)
            until(lambda: serving.served.asked == ["standing"], "it was not asked")
            serving.run(serving.api.close(seconds=0.1))
            with pytest.raises(DaemonLost):
                waiting.result(DEADLINE)


def test_a_state_directory_is_lent_until_the_connection_closes(serving: Serving) -> None:
    with found(serving).borrowed("prune") as lines:
        assert next(line for line in lines if line["line"] != "alive")["line"] == "lent"
        assert serving.served.owner == "prune"
    until(lambda: serving.served.owner is None, "it was not taken back")
    assert serving.served.asked == ["lend prune", "returned"]


def test_one_who_gives_up_before_it_is_lent_leaves_nothing_lent(serving: Serving) -> None:
    serving.served.slow = True
    with found(serving).borrowed("prune"):
        until(lambda: serving.served.asked == ["lend prune"], "it was not asked")
    until(lambda: serving.api._streams.count == 0, "it is waited for")
    serving.open_gate()
    assert found(serving).status()["pid"]
    assert serving.served.owner is None
    assert serving.served.asked == ["lend prune", "standing"]


def test_what_cannot_be_lent_is_an_error(serving: Serving) -> None:
    serving.served.fails = NotReady(reason="stopping")
    with pytest.raises(ChatkeepError) as raised, found(serving).borrowed("prune") as lines:
        list(lines)
    assert raised.value.code == "not-ready"


@pytest.mark.parametrize(
    ("method", "path", "status", "why"),
    [
        ("GET", "/", 404, "path"),
        ("GET", "/v2/status", 404, "path"),
        ("GET", "/v1/status/", 404, "path"),
        ("GET", "/v1/status?x=1", 404, "path"),
        ("GET", "/v1/stat%75s", 404, "path"),
        ("GET", "/v1/../v1/status", 404, "path"),
        ("GET", "//v1/status", 404, "path"),
        ("POST", "/v1/jobs//run", 404, "path"),
        ("POST", "/v1/jobs/../run", 404, "path"),
        ("POST", "/v1/jobs/{name}/run", 404, "path"),
        ("POST", "/v1/status", 405, "method"),
        ("HEAD", "/v1/status", 405, "method"),
        ("DELETE", "/v1/lock", 405, "method"),
        ("GET", "/v1/backup", 405, "method"),
        ("PATCH", "/v1/status", 405, "method"),
    ],
)
def test_what_is_not_there_is_refused(serving: Serving, method: str, path: str, status: int, why: str) -> None:
    if method == "HEAD":
        assert asked(serving, method, path)[0] == status
    else:
        assert reason(asked(serving, method, path)) == (status, why)
    assert serving.served.asked == []


TYPE = "Content-Type: application/json"


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("/v1/backup", b'{"source": []}', 400, "keys"),
        ("/v1/backup", b'{"sources": [], "x": 1}', 400, "keys"),
        ("/v1/backup", b'{"sources": "chat"}', 400, "keys"),
        ("/v1/backup", b'{"sources": [1]}', 400, "keys"),
        ("/v1/backup", b'{"sources": null}', 400, "keys"),
        ("/v1/backup", b"[]", 400, "keys"),
        ("/v1/backup", b"{", 400, "body"),
        ("/v1/backup", b"\xff", 400, "body"),
        ("/v1/backup", b"[" * 10_000, 400, "body"),
        ("/v1/backup", b'{"sources": ["' + b"x" * 300 + b'"]}', 400, "keys"),
        ("/v1/backup", json.dumps({"sources": ["x"] * 1001}).encode(), 400, "keys"),
        ("/v1/backup", b" " * (wire.BODY_LIMIT + 1), 413, "size"),
        ("/v1/lend", b"{}", 400, "keys"),
        ("/v1/lend", b'{"command": "rm -rf /"}', 400, "keys"),
        ("/v1/lend", b'{"command": "\\u001b[2J"}', 400, "keys"),
        ("/v1/lock", b'{"now": true}', 400, "keys"),
    ],
)
def test_a_body_that_is_not_what_is_documented_is_refused(
    serving: Serving, path: str, body: bytes, status: int, why: str
) -> None:
    assert reason(asked(serving, "POST", path, body, TYPE)) == (status, why)
    assert serving.served.asked == []


def test_other_hosts_and_types_are_refused(serving: Serving) -> None:
    assert reason(asked(serving, "GET", "/v1/status", None, "Host: localhost")) == (421, "host")
    assert asked(serving, "GET", "/v1/status", None, "Host: chatkeep", "Host: chatkeep")[0] in {400, 421}
    assert asked(serving, "GET", "/v1/status", None, "Host: chatkeep", "Host: localhost")[0] in {400, 421}
    assert reason(asked(serving, "POST", "/v1/lock", b"{}", "Content-Type: text/plain")) == (415, "type")
    assert reason(asked(serving, "POST", "/v1/lock", b"{}")) == (415, "type")
    assert reason(asked(serving, "POST", "/v1/lock", b"{}", TYPE, "Content-Encoding: gzip")) == (415, "type")
    assert reason(asked(serving, "GET", "/v1/status", b"{}", TYPE)) == (400, "body")
    assert serving.served.asked == []


def test_a_body_without_end_is_cut_off(serving: Serving) -> None:
    with connected(serving) as connection:
        connection.sendall(
            f"POST /v1/backup HTTP/1.1\r\nHost: chatkeep\r\n{TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        sent = 0
        try:
            while sent < 64 << 20:
                connection.sendall(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
                sent += 0x1000
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 64 << 20, "it was read without end"
    assert serving.served.asked == []


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\x16\x03\x01" * 50, b"GET\r\n\r\n", b"A" * 100_000, b"CKSESS\0\1"])
def test_garbage_closes_its_own_connection(serving: Serving, garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    with connected(serving) as connection:
        connection.sendall(garbage)
        assert said(connection)[:12] in {b"", b"HTTP/1.0 400", b"HTTP/1.1 400"}
    assert found(serving).status()["pid"] == 4242


def test_who_says_nothing_is_let_go(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    with connected(serving) as silent, connected(serving) as half:
        half.sendall(b"POST /v1/lock HTTP/1.1\r\nHost: chatkeep\r\n")
        assert said(silent) == b""
        assert said(half) == b""


def test_a_thousand_connections_that_say_nothing_keep_nobody_out(serving: Serving) -> None:
    silent = [connected(serving) for _ in range(1000)]
    assert found(serving).status()["pid"] == 4242
    assert len(serving.api.connections) <= connections.CONNECTIONS
    for connection in silent:
        connection.close()


def test_a_thousand_requests_at_once_are_answered(serving: Serving) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: found(serving).status()["pid"], range(1000)))
    assert answers == [4242] * 1000


def test_a_mistake_of_ours_is_no_answer_of_its_own_and_is_reported(serving: Serving) -> None:
    with raised_in_loop(serving) as reported:
        serving.served.fails = ZeroDivisionError("with words that nobody should see")
        status, value = asked(serving, "GET", "/v1/status")
        assert (status, value) == (500, {"error": {"code": "error", "params": {}}})
        assert [type(one["exception"]) for one in reported] == [ZeroDivisionError]


def test_an_answer_that_takes_too_long_is_an_error(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.control.api.WORK_SECONDS", 0.1)
    serving.served.slow = True
    assert reason(asked(serving, "GET", "/v1/status")) == (504, "slow")


def test_only_so_many_follow_at_a_time(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.control.api.STREAMS", 1)
    with found(serving).events() as lines:
        next(lines)
        assert reason(asked(serving, "GET", "/v1/events")) == (503, "busy")
        assert found(serving).status()["pid"] == 4242


def test_the_socket_is_this_users_alone(serving: Serving) -> None:
    path = serving.api.path
    assert path is not None
    assert re.fullmatch(r"control-[0-9a-f]{16}\.sock", path.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_state_directories_have_two_daemons(serving: Serving, tmp_path: Path) -> None:
    with Serving(tmp_path / "other", serving.directory) as second:
        assert second.api.path != serving.api.path
        assert found(second).unlocked() is False
    assert serving.served.asked == []
    (tmp_path / "linked").symlink_to(tmp_path / "state")
    assert wire.socket_name(tmp_path / "linked") == wire.socket_name(tmp_path / "state")


def test_a_second_daemon_is_refused_and_the_first_goes_on(serving: Serving) -> None:
    with pytest.raises(DaemonRunning):
        Listening.begin(serving.state_dir, serving.directory)
    assert found(serving).status()["pid"] == 4242


def test_one_that_hangs_is_not_replaced_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.control.listening._PATIENCE", 0.2)
    first = Listening.begin(tmp_path / "state", tmp_path)
    first.listener.listen(0)
    with Place.open(tmp_path) as place:  # type: ignore[union-attr]
        waiting = place.connect(first.path.name, 0.2)
        assert waiting is not None
        with pytest.raises(TimeoutError):
            place.connect(first.path.name, 0.2)
    try:
        with pytest.raises(DaemonSilent):
            Daemon.find(tmp_path / "state", tmp_path, 0.2)
        with pytest.raises(DaemonRunning):
            Listening.begin(tmp_path / "state", tmp_path)
    finally:
        first.close()
        waiting.close()


def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    dead = Listening.begin(tmp_path / "state", tmp_path)
    dead.listener.close()  # as a process that is killed leaves it
    assert dead.path.exists()
    assert Daemon.find(tmp_path / "state", tmp_path) is None
    with Serving(tmp_path / "state", tmp_path) as serving:
        assert found(serving).status()["pid"] == 4242
        dead.close()  # it may even tidy up late: what is there is not its own
        assert found(serving).status()["pid"] == 4242


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    name = wire.socket_name(tmp_path / "state")
    (tmp_path / name).write_text("mine")
    with pytest.raises(SocketRefused):
        Listening.begin(tmp_path / "state", tmp_path)
    with pytest.raises(SocketRefused):
        Daemon.find(tmp_path / "state", tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_directory_that_goes_is_made_again(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.control.api.LOOK_SECONDS", 0.05)
    serving.run(serving.api.close())
    serving.run(serving._begin())
    path = serving.api.path
    assert path is not None
    for each in serving.directory.iterdir():
        each.unlink()
    serving.directory.rmdir()
    until(lambda: Daemon.find(serving.state_dir, serving.directory) is not None, "it cannot be asked any more")
    assert found(serving).status()["pid"] == 4242


def test_one_that_listens_elsewhere_is_found_by_its_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the daemon was started with another XDG_RUNTIME_DIR than the command that asks."""
    state = tmp_path / "state"
    for name in ("state", "here", "there"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "there"))
    with contextlib.closing(Listening.begin(state)) as listening:
        assert listening.path.parent == tmp_path / "there/chatkeep"
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "here"))
        assert Daemon.find(state) is not None
        assert Daemon.find(state, tmp_path / "here/chatkeep") is None
        (tmp_path / "there/chatkeep").chmod(0o755)
        with pytest.raises(SocketRefused):  # a note is no reason to trust what it leads to
            Daemon.find(state)
        (tmp_path / "there/chatkeep").chmod(0o700)
    assert Daemon.find(state) is None, "the note of one that ended leads nowhere"
    (state / NOTE).write_bytes(b"there/chatkeep")
    assert Daemon.find(state) is None
    (state / NOTE).unlink()
    assert Daemon.find(state) is None


def test_without_room_for_the_note_it_listens_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "there"))
    with contextlib.closing(Listening.begin(tmp_path / "no/such/state")):
        assert Daemon.find(tmp_path / "no/such/state") is not None
    assert not (tmp_path / "no").exists()
