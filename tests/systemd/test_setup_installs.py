"""`chatkeep setup` on a machine with a real systemd: from nothing to a service that backs up, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import ALICE_ID, HOME, TOP, Machine

pytestmark = pytest.mark.machine

CHATKEEP = str(TOP / ".venv/bin/chatkeep")
UNIT = "chatkeep.service"
STORE = Path("/data/backup of alice")  # elsewhere than the unit may write to as it is shipped


@pytest.fixture
def alice(machine: Machine, tmp_path: Path) -> Iterator[Machine]:
    """Her machine, with Signal Desktop and nothing of ours, and a disk that is hers."""
    machine.run("find", str(HOME), "-mindepth", "1", "-delete")
    top = HOME / ".config/Signal"
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as connection:
        connection.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, body TEXT)")
        connection.executemany("INSERT INTO messages(body) VALUES(?)", [(f"message {n}",) for n in range(500)])
        connection.commit()
    machine.write(top / "config.json", "{}", user=True)
    machine.write(top / "sql/db.sqlite", (tmp_path / "db.sqlite").read_bytes(), user=True)
    machine.run("mkdir", "-p", str(STORE.parent))
    machine.run("chown", f"{ALICE_ID}:{ALICE_ID}", str(STORE.parent))
    yield machine
    machine.systemctl("stop", UNIT, check=False)
    machine.systemctl("disable", UNIT, check=False)
    machine.run("rm", "-rf", str(STORE.parent))


def chatkeep(machine: Machine, *words: object) -> Any:
    return json.loads(machine.run(CHATKEEP, *map(str, words), "--json", user=True))


def test_a_service_that_backs_up_by_itself(alice: Machine) -> None:
    done = chatkeep(alice, "setup", "--all-found", "--store", STORE, "--recovery-key-file", HOME / "key.txt")
    assert {step["step"]: step["state"] for step in done["steps"]} == dict.fromkeys(
        ["configuration", "vault", "snapshot", "service"], "done"
    )
    assert (alice.shows(UNIT, "ActiveState"), alice.shows(UNIT, "SubState")) == ("active", "running")
    assert alice.systemctl("is-enabled", UNIT).strip() == "enabled"
    assert done["service"]["lingers"] is True  # as this machine was prepared

    # It sees what changes, and reaches a place outside of what the unit may write to as it is shipped.
    before = set(alice.run("find", str(STORE), "-type", "f").splitlines())
    file = HOME / ".config/chatkeep/chatkeep.yaml"
    alice.write(file, alice.at(file).read_text() + "watch: {quiet: 1s, min_interval: 1s}\n", 0o600, user=True)
    alice.systemctl("reload", UNIT)
    chatkeep(alice, "unlock", "--key-file", HOME / "key.txt")
    alice.write(HOME / ".config/Signal/drafts", "a word", user=True)
    alice.until(
        lambda: set(alice.run("find", str(STORE), "-type", "f").splitlines()) - before,
        within=120,
        tell=lambda: alice.journal(UNIT),
    )

    again = chatkeep(alice, "setup")
    assert {step["state"] for step in again["steps"]} == {"already"}

    assert chatkeep(alice, "setup", "--remove-unit")["removed"]
    assert alice.shows(UNIT, "LoadState") == "not-found"
    assert alice.shows(UNIT, "ActiveState") == "inactive"
    alice.run(CHATKEEP, "lock", user=True, check=False)
    back = HOME / "back"
    chatkeep(alice, "restore", "latest", "--target", back, "--from", STORE, "--key-file", HOME / "key.txt")
    assert alice.at(back / "drafts").read_text() == "a word"
