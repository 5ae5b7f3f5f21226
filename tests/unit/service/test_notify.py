"""What is told to a service manager, as it arrives at a real socket."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.service.notify import STATUS_LIMIT, Supervisor

PATIENCE = 0.2


@pytest.fixture(autouse=True)
def _less_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.service.notify.PATIENCE", PATIENCE)


class Ear:
    """A manager: a datagram socket that somebody may send to."""

    def __init__(self, address: str) -> None:
        self.name = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(5)

    def hears(self) -> dict[str, str]:
        """The next message."""
        lines = self.socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def everything(self) -> list[dict[str, str]]:
        """Every message that is there now."""
        self.socket.settimeout(0)
        heard = []
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(self.hears())
        return heard


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(str(tmp_path / "notify") if request.param == "path" else f"@chatkeep-test-{os.getpid()}-{id(request)}")
    yield ear
    ear.socket.close()


def test_every_state_arrives(ear: Ear) -> None:
    with Supervisor(ear.name, clock=lambda: 12_345_678_901) as supervisor:
        assert supervisor.listens
        supervisor.status("Starting.")
        supervisor.ready("Locked: run chatkeep unlock")
        supervisor.watchdog()
        supervisor.reloading()
        supervisor.extend_timeout(2.5)
        supervisor.stopping("Stopping.")
    assert ear.everything() == [
        {"STATUS": "Starting."},
        {"READY": "1", "STATUS": "Locked: run chatkeep unlock"},
        {"WATCHDOG": "1"},
        {"RELOADING": "1", "MONOTONIC_USEC": "12345678"},
        {"EXTEND_TIMEOUT_USEC": "2500000"},
        {"STOPPING": "1", "STATUS": "Stopping."},
    ]


def test_reloading_carries_the_clock_of_the_manager(ear: Ear) -> None:
    before = time.monotonic_ns() // 1000
    with Supervisor(ear.name) as supervisor:
        supervisor.reloading()
    assert before <= int(ear.hears()["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("text", ["a\nREADY=1", "a\r\nREADY=1", "a\x00READY=1", "a\u2028READY=1", "a\x1bREADY=1"])
def test_a_status_is_one_line(ear: Ear, text: str) -> None:
    with Supervisor(ear.name) as supervisor:
        supervisor.status(text)
    heard = ear.hears()
    assert list(heard) == ["STATUS"]
    assert heard["STATUS"].split() == ["a", "READY=1"]


@pytest.mark.parametrize("text", ["é" * 3000, "x" + "é" * 3000, "\N{FLOPPY DISK}" * 3000])
def test_a_long_status_is_cut_between_letters(ear: Ear, text: str) -> None:
    with Supervisor(ear.name) as supervisor:
        supervisor.status(text)
    told = ear.hears()["STATUS"]
    assert text.startswith(told)
    assert STATUS_LIMIT - 4 < len(told.encode()) <= STATUS_LIMIT


def test_a_status_with_half_a_character_is_text(ear: Ear) -> None:
    with Supervisor(ear.name) as supervisor:
        supervisor.status("disk\udcff full")
    assert ear.hears() == {"STATUS": "disk  full"}


@pytest.mark.parametrize("address", ["", "/", "@", "relative/path", "vsock:2:1234", "/run/a\0b"])
def test_nobody_asked(address: str) -> None:
    with Supervisor(address) as supervisor:
        assert not supervisor.listens
        _says_everything(supervisor)
        assert not supervisor._unsent


def test_a_manager_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    ear = Ear(str(tmp_path / "notify"))
    with Supervisor(ear.name) as supervisor:
        supervisor.ready()
        ear.socket.close()  # refused from now on
        _says_everything(supervisor)
        os.unlink(ear.name)  # and now there is nothing
        _says_everything(supervisor)
        again = Ear(ear.name)
        supervisor.watchdog()
        assert again.hears() == {"WATCHDOG": "1"}
        again.socket.close()


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    with Supervisor(str(tmp_path / ("x" * 200))) as supervisor:
        assert supervisor.listens
        _says_everything(supervisor)


def test_after_close_nothing_is_sent(ear: Ear) -> None:
    supervisor = Supervisor(ear.name)
    supervisor.close()
    supervisor.close()
    _says_everything(supervisor)
    assert ear.everything() == []


def test_a_manager_that_does_not_listen_holds_up_only_changes_of_state(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Supervisor(ear.name) as supervisor:
        _fill(ear)
        with monkeypatch.context() as patience:  # such as no busy machine takes of its own accord
            patience.setattr("chatkeep.daemon.service.notify.PATIENCE", 30.0)
            for number in range(100):
                begun = time.monotonic()
                supervisor.watchdog()
                supervisor.status(f"{number}")
                assert time.monotonic() - begun < 30
        begun = time.monotonic()
        supervisor.reloading()
        supervisor.ready()
        assert time.monotonic() - begun >= PATIENCE
        assert ear.everything()[-1] == {"FILL": "1"}
        supervisor.watchdog()
        heard = ear.everything()
    # In their order, and of the texts only the one that is still true.
    assert [next(iter(message)) for message in heard] == ["RELOADING", "READY", "STATUS", "WATCHDOG"]
    assert heard[2]["STATUS"] == "99"


def test_an_older_status_does_not_come_after_a_newer_state(ear: Ear) -> None:
    with Supervisor(ear.name) as supervisor:
        _fill(ear)
        supervisor.status("old")
        supervisor.stopping("new")
        ear.everything()
        supervisor.watchdog()
        assert ear.everything() == [{"STOPPING": "1", "STATUS": "new"}, {"WATCHDOG": "1"}]


def test_what_waits_has_a_bound(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.service.notify.PATIENCE", 0.0)
    with Supervisor(ear.name) as supervisor:
        _fill(ear)
        for _ in range(1000):
            supervisor.reloading()
        supervisor.stopping()
        ear.everything()
        supervisor.watchdog()
        assert len(supervisor._unsent) <= 16
        supervisor.watchdog()


@pytest.mark.parametrize(
    ("variables", "limit"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "{pid}"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "nobody"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_the_watchdog_of_the_environment(variables: dict[str, str], limit: float | None) -> None:
    environment = {name: value.format(pid=os.getpid()) for name, value in variables.items()}
    supervisor = Supervisor.from_environment({**environment, "OTHER": "kept"})
    assert supervisor.watchdog_limit == limit
    assert supervisor.watchdog_interval() == (None if limit is None else limit / 3)
    assert not supervisor.listens


def test_the_environment_says_it_once(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NOTIFY_SOCKET", ear.name), ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", str(os.getpid()))):
        monkeypatch.setenv(name, value)
    with Supervisor.from_environment() as supervisor:
        supervisor.ready()
        assert supervisor.watchdog_limit == 0.001
    assert ear.hears() == {"READY": "1"}
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
    with Supervisor.from_environment() as second:
        assert not second.listens


def _says_everything(supervisor: Supervisor) -> None:
    acts: list[Callable[[], None]] = [
        lambda: supervisor.status("text"),
        supervisor.ready,
        supervisor.watchdog,
        supervisor.reloading,
        lambda: supervisor.extend_timeout(1),
        supervisor.stopping,
    ]
    for act in acts:
        act()


def _fill(ear: Ear) -> None:
    """Leaves the manager's queue without room."""
    address = "\0" + ear.name[1:] if ear.name.startswith("@") else ear.name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        for _ in range(100_000):
            try:
                other.sendto(b"FILL=1", address)
            except BlockingIOError:
                return
    raise AssertionError("the queue has no bound")
