"""`chatkeep run` under both units, in a machine with a real systemd and a real logind."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.installed import PYTHON, Installed, installed
from tests.support.machine import ALICE, ALICE_ID, HOME, TOP, Machine

pytestmark = pytest.mark.machine

CHATKEEP: Final = str(TOP / ".venv/bin/chatkeep")
FROZEN: Final = (PYTHON, str(TOP / "tests/support/frozen_daemon.py"))
CHAT, STORE, KEY = HOME / "chat", HOME / "backup", HOME / "key.txt"
FILE, STATE = HOME / ".config/chatkeep/chatkeep.yaml", HOME / ".local/state/chatkeep"
WATCH = "watch: {quiet: 0 seconds, min_interval: 0 seconds}"
_ASK: Final = (
    "import json, sys, pathlib; from chatkeep.daemon.control.client import Daemon;"
    "print(json.dumps(Daemon.find(pathlib.Path(sys.argv[1])).status()))"
)


@dataclass
class Service:
    """The daemon of a user with a vault."""

    unit: Installed

    @property
    def machine(self) -> Machine:
        return self.unit.machine

    def configure(self, *lines: str) -> None:
        text = [f"sources: [{CHAT}]", f"providers: [{{name: disk, type: folder, path: {STORE}}}]", WATCH, *lines]
        self.machine.write(FILE, "\n".join([*text, ""]), user=True)

    def chatkeep(self, *words: object) -> Any:
        return json.loads(self.machine.run(CHATKEEP, *map(str, words), "--json", user=True))

    def standing(self) -> dict[str, Any]:
        """What the daemon says of itself, to a program of the user's."""
        said: dict[str, Any] = json.loads(self.machine.run(PYTHON, "-c", _ASK, str(STATE), user=True))
        return said

    def changes(self, word: str) -> None:
        """The application writes."""
        self.machine.write(CHAT / word, word, user=True)

    def sent(self) -> int:
        """How many snapshots storage has."""
        return sum("/s/" in str(path) for path in self.machine.at(STORE).rglob("*") if path.is_file())

    def says(self, pattern: str, within: float = 30.0) -> None:
        """Waits for a status."""
        self.until(lambda: re.search(pattern, self.unit.shows("StatusText")), within)

    def until(self, holds: Callable[[], object], within: float = 30.0) -> None:
        self.machine.until(holds, within, lambda: self._told())

    def _told(self) -> str:
        return "\n".join([self.unit.journal()[-3000:], self.machine.run("ps", "-eo", "pid,ppid,stat,user,args")])

    def unlocked(self) -> bool:
        """Whether a session is open, as the daemon has it."""
        return bool(self.standing()["session"]["unlocked"])

    def readers(self) -> int:
        """Processes that hold keys which read."""
        found = self.machine.run("pgrep", "--full", "--count", "chatkeep.daemon.service.reader", check=False)
        return int(found)

    def waits(self) -> bool:
        """Whether suspending waits for the daemon."""
        return "Chatkeep" in self.machine.run("systemd-inhibit", "--list", "--no-legend", "--no-pager")


def prepared(unit: Installed, database: Path) -> Service:
    """Her chat, her vault, her configuration; nothing runs yet."""
    service = Service(unit)
    service.machine.write(CHAT / "messages.db", database.read_bytes(), user=True)
    service.configure()
    service.chatkeep("init", "--recovery-key-file", KEY)
    return service


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "messages.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, body TEXT)")
        connection.executemany("INSERT INTO messages(body) VALUES(?)", [(f"message {n}",) for n in range(500)])
        connection.commit()
    return path


@pytest.fixture(params=["user", "system"])
def service(machine: Machine, request: pytest.FixtureRequest, database: Path) -> Iterator[Service]:
    with installed(machine, [CHATKEEP], user=request.param == "user", RestartSec="0.1") as unit:
        service = prepared(unit, database)
        yield service
        machine.run(CHATKEEP, "lock", user=True, check=False)


def test_from_the_start_to_the_end(service: Service) -> None:
    service.unit.start()
    # Started means serving, at this very moment: it takes snapshots, answers, and says what a person must do.
    assert service.standing()["session"]["uploads"] is False
    service.says("^Locked.*: run chatkeep unlock")
    assert service.sent() == 0
    assert not service.waits()

    service.chatkeep("unlock", "--key-file", KEY)
    service.until(lambda: service.sent() >= 1)
    service.says("^All is kept")
    service.until(service.waits)
    service.changes("a-word")
    service.until(lambda: service.sent() >= 2)

    service.chatkeep("lock")
    service.until(lambda: not service.waits())
    assert service.readers() == 0

    begun = time.monotonic()
    service.unit.systemctl("stop", service.unit.unit)
    assert time.monotonic() - begun < 5
    assert (service.unit.shows("ActiveState"), service.unit.shows("Result")) == ("inactive", "success")
    assert service.unit.shows("NRestarts") == "0"

    back = HOME / "back"
    service.chatkeep("restore", "latest", "--target", back, "--from", STORE, "--key-file", KEY)
    assert service.machine.at(back / "a-word").read_text() == "a-word"


def test_the_screen_locks_the_vault(service: Service) -> None:
    service.configure("session: {lock_on: [screen-lock]}")
    with service.machine.login("desk") as session:
        service.unit.start()
        service.chatkeep("unlock", "--key-file", KEY)
        service.until(service.unlocked)
        assert service.readers() == 1
        service.machine.run("loginctl", "lock-session", session)
        service.until(lambda: not service.unlocked())
        service.until(lambda: service.readers() == 0)
        assert service.standing()["session"]["uploads"] is True  # until the logout
        sent = service.sent()
        service.changes("behind-the-locked-screen")
        service.until(lambda: service.sent() > sent)


def test_the_logout_locks_the_vault_and_holds_the_uploads(service: Service) -> None:
    with service.machine.login("last") as session:
        service.unit.start()
        service.chatkeep("unlock", "--key-file", KEY)
        service.until(service.unlocked)
        service.machine.run("loginctl", "terminate-session", session)
        service.until(lambda: service.readers() == 0)
        service.says("^Locked")
    assert service.unit.shows("ActiveState") == "active"


def test_a_daemon_that_is_killed_goes_on_where_it_was(service: Service) -> None:
    service.unit.start()
    service.chatkeep("unlock", "--key-file", KEY)
    service.until(lambda: service.sent() >= 1)
    service.unit.systemctl("kill", "--kill-whom=main", "--signal=KILL", service.unit.unit)
    service.unit.until("NRestarts", "1")
    service.unit.until("ActiveState", "active")
    assert service.unlocked(), "the session is a process of its own"
    service.changes("after-the-crash")
    service.until(lambda: service.sent() >= 2)  # without another unlock


def test_reload(service: Service) -> None:
    service.unit.start()
    pid = service.unit.shows("MainPID")
    more = HOME / "more"
    service.machine.write(more / "x", "x", user=True)
    good = service.machine.at(FILE).read_text()

    service.machine.write(FILE, good + "nonsense: 1\n", user=True)
    service.unit.systemctl("reload", service.unit.unit)
    service.says("refused: run chatkeep config check")
    service.unit.until("ActiveState", "active")
    service.chatkeep("unlock", "--key-file", KEY, "--config", _written(service, HOME / "as-it-was.yaml", good))
    service.until(lambda: service.sent() >= 1)  # by the one that it had

    service.machine.write(FILE, good.replace(f"[{CHAT}]", f"[{CHAT}, {more}]"), user=True)
    service.unit.systemctl("reload", service.unit.unit)
    service.until(lambda: {source["name"] for source in service.standing()["sources"]} == {"chat", "more"})
    service.says("^All is kept")
    service.unit.until("ActiveState", "active")
    assert (service.unit.shows("MainPID"), service.unit.shows("NRestarts")) == (pid, "0")


def _written(service: Service, path: Path, text: str) -> Path:
    service.machine.write(path, text, user=True)
    return path


def test_a_start_that_cannot_be_says_why(service: Service) -> None:
    service.machine.write(FILE, "nonsense: 1\n", user=True)
    with pytest.raises(AssertionError, match="control process exited"):
        service.unit.start()
    assert "nonsense" in service.unit.journal()


def test_the_key_for_writing_as_a_credential_of_the_system(machine: Machine, database: Path) -> None:
    """It lies where root alone can read it, and nowhere else."""
    stored = Path(f"/etc/credstore/chatkeep-writer.{ALICE}")
    with installed(machine, [CHATKEEP], user=False) as unit:
        service = prepared(unit, database)
        service.configure("session: {require_unlock: false}")
        own = STATE / "chatkeep-writer"
        machine.write(stored, machine.at(own).read_bytes(), 0o600)
        os.unlink(machine.at(own))
        try:
            unit.start()
            service.until(lambda: service.sent() >= 1)
        finally:
            machine.run("rm", "-f", str(stored))
        assert not machine.at(own).exists()


def test_the_key_for_writing_as_a_credential_of_the_user(machine: Machine, database: Path) -> None:
    stored = HOME / "elsewhere" / "key"
    with installed(machine, [CHATKEEP], LoadCredential=f"chatkeep-writer:{stored}") as unit:
        service = prepared(unit, database)
        service.configure("session: {require_unlock: false}")
        own = STATE / "chatkeep-writer"
        machine.write(stored, machine.at(own).read_bytes(), 0o600, user=True)
        os.unlink(machine.at(own))
        unit.start()
        service.until(lambda: service.sent() >= 1)
        assert not machine.at(own).exists()


def test_work_that_hangs_is_ended_with_the_daemon_and_done_by_the_next(machine: Machine, database: Path) -> None:
    """The loop turns, and answers, and a thread hangs in the system for ever: the watchdog is not fed."""
    with installed(machine, FROZEN, WatchdogSec="2", RestartSec="0.1") as unit:
        service = prepared(unit, database)
        service.configure("session: {require_unlock: false}")
        machine.run("mkfifo", str(HOME / "frozen"))
        machine.run("chown", str(ALICE_ID), str(HOME / "frozen"))
        unit.start()
        service.until(machine.at(HOME / "hangs").exists)
        assert service.standing()["sources"], "the loop turns"
        service.until(lambda: "Watchdog timeout (limit 2s)!" in unit.journal())
        os.unlink(machine.at(HOME / "frozen"))
        unit.until("NRestarts", "1", "2")
        service.until(lambda: service.sent() >= 1)
        assert "Failed with result 'watchdog'" in unit.journal()


def test_a_loop_that_hangs_is_started_again(machine: Machine, database: Path) -> None:
    with installed(machine, [CHATKEEP], WatchdogSec="2", RestartSec="0.1") as unit:
        service = prepared(unit, database)
        unit.start()
        unit.systemctl("kill", "--kill-whom=main", "--signal=STOP", unit.unit)
        service.until(lambda: "Watchdog timeout (limit 2s)!" in unit.journal())
        unit.until("NRestarts", "1")
        unit.until("ActiveState", "active")
        service.says("^Locked")


def test_it_leaves_in_time_in_the_middle_of_everything(machine: Machine, database: Path) -> None:
    with installed(machine, [CHATKEEP], RestartSec="0.1") as unit:
        service = prepared(unit, database)
        service.configure("session: {require_unlock: false}")
        for number in range(40):
            machine.write(CHAT / f"film-{number}", os.urandom(4 << 20), user=True)
        unit.start()
        service.until(lambda: service.standing()["doing"])
        begun = time.monotonic()
        unit.systemctl("stop", unit.unit)
        assert time.monotonic() - begun < 5
        assert (unit.shows("ActiveState"), unit.shows("Result")) == ("inactive", "success")
        unit.start()
        service.says("^All is kept", within=60)
        assert service.sent() >= 1
