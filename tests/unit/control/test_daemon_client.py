"""A command before a daemon that is another user's, of another version, hangs, lies, or ends half-way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control import client, wire
from chatkeep.daemon.control.client import Daemon
from chatkeep.daemon.control.errors import DaemonForeign, DaemonLost, DaemonSilent
from chatkeep.daemon.control.reporting import report_of, report_values
from chatkeep.daemon.service.errors import SocketRefused
from chatkeep.daemon.service.places import Place
from tests.support.nobody import NOBODY, as_nobody
from tests.support.served import DEADLINE, Serving, report, until
from tests.support.sessions import named

JSON = "Content-Type: application/json"
OURS = f"{wire.HEADER}: {wire.VERSION}"


def answer(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(head).encode() + body


@contextlib.contextmanager
def listening(directory: Path, state_dir: Path) -> Iterator[socket.socket]:
    directory.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        named(listener, directory / wire.socket_name(state_dir))
        yield listener


@contextlib.contextmanager
def answering(tmp_path: Path, raw: bytes, *, stays: bool = False) -> Iterator[Daemon]:
    """A daemon that answers this to whatever is asked, and closes, or stays."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    if connection.recv(1 << 16):
                        connection.sendall(raw)
                        if stays:
                            over.wait(DEADLINE)

    with listening(tmp_path / "run", tmp_path / "state") as listener:
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            found = Daemon.find(tmp_path / "state", tmp_path / "run", 0.3 if stays else DEADLINE)
            assert found is not None
            yield found
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (answer(b"{}", JSON), "version"),
        (answer(b"{}", JSON, f"{wire.HEADER}: 2"), "version"),
        (answer(b"<html>", "Content-Type: text/html", OURS), "answer"),
        (answer(b"", JSON, OURS), "answer"),
        (answer(b"[]", JSON, OURS), "answer"),
        (answer(b"\xff", JSON, OURS), "answer"),
        (answer(b"[" * 100_000, JSON, OURS), "answer"),
        (
            answer(b'{"error": {"code": "daemon-refused", "params": {"reason": "path"}}}', JSON, OURS, status="404 No"),
            "path",
        ),
    ],
)
def test_one_of_another_version_is_told(tmp_path: Path, raw: bytes, why: str) -> None:
    with answering(tmp_path, raw) as daemon, pytest.raises(DaemonForeign) as raised:
        daemon.status()
    assert raised.value.params == {"reason": why}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\1\2\3 garbage\r\n\r\n",
        answer(b"{}", JSON, OURS)[:-1],
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
    ],
)
def test_one_that_ends_half_way_is_lost(tmp_path: Path, raw: bytes) -> None:
    with answering(tmp_path, raw) as daemon, pytest.raises(DaemonLost):
        daemon.status()


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\n", answer(b"{}", JSON, OURS)[:-1]])
def test_one_that_hangs_is_waited_for_so_long(tmp_path: Path, raw: bytes) -> None:
    with answering(tmp_path, raw, stays=True) as daemon, pytest.raises(DaemonSilent):
        daemon.status()


def test_a_stream_that_falls_silent_or_breaks_off_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = f"HTTP/1.1 200 OK\r\nContent-Type: {wire.LINES}\r\n{OURS}\r\nConnection: close\r\n\r\n".encode()
    monkeypatch.setattr(client, "SILENCE", 0.3)
    for more, error in ((b"", DaemonLost), (b'{"line": "alive"}\n{"li', DaemonLost), (b"7\n", DaemonForeign)):
        room = tmp_path / f"{len(more)}"
        room.mkdir()
        with answering(room, begun + more) as daemon, pytest.raises(error), daemon.events() as lines:
            list(lines)
    room = tmp_path / "silent"
    room.mkdir()
    with answering(room, begun + b'{"line": "alive"}\n', stays=True) as daemon, daemon.events() as lines:
        assert next(lines) == {"line": "alive"}
        with pytest.raises(DaemonSilent):
            next(lines)


def test_an_error_that_is_none_is_one_all_the_same() -> None:
    for value in (None, 7, {}, {"code": 7, "params": {}}, {"code": "x"}, {"code": "x", "params": []}):
        assert isinstance(wire.revived(value), ChatkeepError)
    told = wire.revived({"code": "not-ready", "params": {"reason": "lent"}})
    assert (told.code, told.params) == ("not-ready", {"reason": "lent"})


def test_a_report_that_is_none_is_of_another_version() -> None:
    good = report_values(report())
    assert report_values(report_of(good)) == good
    lacking = [{key: value for key, value in good.items() if key != name} for name in good]
    wrong: list[object] = [{**good, "waiting": [1]}, {**good, "cancelled": 1}, {**good, "sources": [{}]}]
    for value in [None, [], {}, *wrong, *lacking]:
        with pytest.raises(DaemonForeign):
            report_of(value)


def test_nobody_there(tmp_path: Path) -> None:
    assert Daemon.find(tmp_path / "state", tmp_path / "run") is None
    (tmp_path / "run").mkdir(mode=0o700)
    assert Daemon.find(tmp_path / "state", tmp_path / "run") is None
    with listening(tmp_path / "run", tmp_path / "state"):
        pass  # dead, with its name left
    assert Daemon.find(tmp_path / "state", tmp_path / "run") is None
    with pytest.raises(DaemonLost):
        Daemon(tmp_path / "run", wire.socket_name(tmp_path / "state")).status()


def test_a_directory_that_others_may_use_is_not_asked(tmp_path: Path) -> None:
    with Serving(tmp_path / "state", tmp_path / "run") as serving:
        serving.directory.chmod(0o755)
        with pytest.raises(SocketRefused) as raised:
            Daemon.find(serving.state_dir, serving.directory)
        assert raised.value.params["reason"] == "mode"
        serving.directory.chmod(0o700)
        assert serving.served.asked == []


def test_where_another_user_listens_nothing_is_said(tmp_path: Path) -> None:
    """He got hold of a socket with our name: what he listens with is his process all the same."""
    assert os.geteuid() == 0, "somebody else can only be played by root"
    told, telling = os.pipe()
    with listening(tmp_path / "run", tmp_path / "state") as listener:
        child = os.fork()
        if child == 0:
            _listen_as_nobody(listener, telling)
        os.close(telling)
        try:
            assert os.read(told, 1) == b"r"
            with pytest.raises(SocketRefused) as raised:
                Daemon.find(tmp_path / "state", tmp_path / "run")
            assert raised.value.params["reason"] == "peer"
            with pytest.raises(SocketRefused):
                Daemon(tmp_path / "run", wire.socket_name(tmp_path / "state")).status()
            heard = b""
            while piece := os.read(told, 100):
                heard += piece
            assert heard == b"..", "connected twice, and nothing was said"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(told)


def _listen_as_nobody(listener: socket.socket, telling: int) -> None:
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        listener.listen()  # who calls this is who the other end sees
        os.write(telling, b"r")
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                os.write(telling, connection.recv(100) or b".")
    finally:
        os._exit(0)


def test_another_user_is_turned_away_before_he_is_read(tmp_path: Path) -> None:
    """Even where the directory and the socket would let him in."""
    assert os.geteuid() == 0, "somebody else can only be played by root"
    with Serving(tmp_path / "state", tmp_path / "run") as serving:
        path = serving.api.path
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o666)
        directory = os.open(serving.directory, os.O_RDONLY)
        reach = f"/proc/self/fd/{directory}/{path.name}"

        def try_it() -> None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(DEADLINE)
                connection.connect(reach)
                try:
                    connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: chatkeep\r\n\r\n")
                    assert connection.recv(1) == b""
                except (BrokenPipeError, ConnectionResetError):
                    pass

        serving.directory.chmod(0o755)
        as_nobody(try_it, os.fsencode(tmp_path))
        os.close(directory)
        assert serving.api.connections.refused == 1, "he did get to it"
        assert serving.served.asked == []


def test_a_daemon_that_is_killed_in_a_backup_and_its_socket_afterwards(tmp_path: Path) -> None:
    place, state = tmp_path / "run", tmp_path / "state"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.served", str(state), str(place), "slow"], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        daemon = Daemon.find(state, place)
        assert daemon is not None
        with daemon.backup([]) as lines:
            assert next(line for line in lines if line["line"] == "progress")
            process.kill()
            with pytest.raises(DaemonLost):
                list(lines)
    finally:
        process.kill()
        process.communicate()
    assert (place / wire.socket_name(state)).exists()
    assert Daemon.find(state, place) is None
    with Serving(state, place) as serving:
        assert serving.api.path == place / wire.socket_name(state)


def test_one_who_is_killed_with_what_it_borrowed_has_it_no_more(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from chatkeep.daemon.control.client import Daemon
daemon = Daemon.find(Path(sys.argv[1]), Path(sys.argv[2]))
with daemon.borrowed("prune") as lines:
    while next(lines)["line"] != "lent":
        pass
    print("lent", flush=True)
    time.sleep(1000)
"""
    with Serving(tmp_path / "state", tmp_path / "run") as serving:
        argv = [sys.executable, "-c", script, str(serving.state_dir), str(serving.directory)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"lent\n"
        assert serving.served.owner == "prune"
        process.kill()
        process.communicate()
        until(lambda: serving.served.owner is None, "it is lent to the dead")


def test_it_is_quick_to_import() -> None:
    heavy = {"aiohttp", "asyncio", "http", "email", "msgspec", "ssl"}
    code = f"import sys; import chatkeep.daemon.control.client; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_place_is_let_go_of(tmp_path: Path) -> None:
    with Serving(tmp_path / "state", tmp_path / "run") as serving:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            daemon = Daemon.find(serving.state_dir, serving.directory)
            assert daemon is not None
            daemon.status()
            with daemon.events() as lines:
                next(lines)
        until(lambda: len(serving.api.connections) == 0, "connections stay")
        assert len(os.listdir("/proc/self/fd")) <= before
    with Place.open(tmp_path / "run") as place:  # type: ignore[union-attr]
        assert [name for name in os.listdir(place.descriptor) if name.endswith(".sock")] == []
