"""The units in a machine with a real systemd and a real logind, with a program in the daemon's place that speaks with
the daemon's own code."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installed import PYTHON, STAND_IN, Installed, installed
from tests.support.machine import ALICE_ID, HOME, Machine

pytestmark = pytest.mark.machine

CREDENTIAL = "chatkeep-writer"


@pytest.fixture(params=["user", "system"])
def unit(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """Each of both, with the stand-in, and times that a test can wait for."""
    with installed(machine, STAND_IN, user=request.param == "user", WatchdogSec="1", RestartSec="0.1") as unit:
        yield unit


def test_started_means_serving(unit: Installed) -> None:
    unit.start("--no-block")
    unit.until("StatusText", "waiting")
    assert unit.shows("ActiveState") == "activating"
    unit.goes()
    unit.until("StatusText", "serves")
    assert (unit.shows("ActiveState"), unit.shows("NRestarts")) == ("active", "0")


def test_one_that_hangs_is_started_again(unit: Installed) -> None:
    unit.goes()
    unit.start()
    first = unit.shows("MainPID")
    unit.systemctl("kill", "--kill-whom=main", "--signal=STOP", unit.unit)
    unit.until("NRestarts", "1")
    unit.until("ActiveState", "active")
    unit.until("StatusText", "serves")
    assert unit.shows("MainPID") != first
    assert "Watchdog timeout (limit 1s)!" in unit.journal()
    assert "Failed with result 'watchdog'" in unit.journal()


def test_one_that_is_fed_lives(unit: Installed) -> None:
    unit.goes()
    unit.start()
    begun = time.monotonic()
    unit.machine.until(lambda: time.monotonic() - begun > 2.5)  # limits of 1 s
    assert (unit.shows("ActiveState"), unit.shows("NRestarts")) == ("active", "0")


def test_one_that_is_killed_is_started_again(unit: Installed) -> None:
    unit.goes()
    unit.start()
    unit.systemctl("kill", "--signal=KILL", unit.unit)
    unit.until("NRestarts", "1")
    unit.until("StatusText", "serves")


def test_one_that_fails_is_never_given_up(machine: Machine) -> None:
    with installed(machine, [PYTHON, "-c", "raise SystemExit(2)"], RestartSec="10ms") as unit:
        with pytest.raises(AssertionError, match="control process exited"):
            unit.start()
        unit.machine.until(lambda: int(unit.shows("NRestarts")) > 10, tell=unit.journal)
        assert unit.shows("Result") != "start-limit-hit"


def test_it_is_stopped_at_once_and_well(unit: Installed) -> None:
    unit.goes()
    unit.start()
    begun = time.monotonic()
    unit.systemctl("stop", unit.unit)
    assert time.monotonic() - begun < 5
    assert (unit.shows("ActiveState"), unit.shows("Result")) == ("inactive", "success")
    assert unit.shows("NRestarts") == "0"


def test_reload_reaches_it(unit: Installed) -> None:
    unit.goes()
    unit.start()
    for count in range(1, 4):
        unit.systemctl("reload", unit.unit)
        unit.until("StatusText", f"reloaded {count}")
        unit.until("ActiveState", "active")
    assert unit.shows("NRestarts") == "0"


def test_only_the_daemon_speaks_for_it(unit: Installed) -> None:
    unit.goes()
    unit.start()
    assert unit.shows("StatusText") == "serves"
    assert "reception only permitted for main PID" in unit.journal()


@pytest.fixture
def places(machine: Machine) -> None:
    """Where a daemon that was taken over could do harm."""
    script = "mkdir -p /home/other && chmod 777 /home/other /media && touch /tmp/another"
    machine.run("sh", "-c", script)


def test_what_it_cannot_do(unit: Installed, places: None) -> None:
    unit.goes()
    unit.start()
    found = unit.probes()
    allowed = {name: found[name] for name in ("home", "state", "media", "internet", "lower-limit")}
    assert set(allowed.values()) == {"done"}, allowed
    refused = ("other-home", "etc", "usr", "write-and-execute", "namespace", "mount", "packet", "set-user-id")
    assert "done" not in {found[name] for name in refused}, found
    assert {found[name] for name in ("other-home", "etc", "usr")} == {"EROFS"}, found
    assert found["sysctl"] in ("EROFS", "ENOENT")
    assert found["tmp"] == []
    assert set(found["devices"]) == {"null", "urandom"}
    assert (found["capabilities"], found["no-new-privileges"]) == (0, "1")
    assert (found["core"], found["umask"]) == (0, 0o600)
    assert found["peer"], "it must know who asks it"
    assert found["nice"] == 10


def test_what_it_could_do_without_these_rules(machine: Machine, places: None) -> None:
    """The same attempts in a unit without them: what is refused above is refused by them."""
    plain = Path("/etc/systemd/system/plain.service")
    lines = f"[Service]\nType=notify\nUser={ALICE_ID}\nExecStart={' '.join(STAND_IN)}\n"
    machine.run("find", str(HOME), "-mindepth", "1", "-delete")
    machine.write(plain, lines)
    machine.write(HOME / "go", "", user=True)
    machine.systemctl("daemon-reload", user=False)
    machine.systemctl("start", "plain", user=False)
    try:
        found = Installed(machine, "plain", user=False).probes()
    finally:
        machine.systemctl("stop", "plain", user=False)
        machine.run("rm", str(plain))
    open_to_all = ("other-home", "write-and-execute", "namespace", "set-user-id", "internet", "home", "media")
    assert {found[name] for name in open_to_all} == {"done"}, found
    assert "another" in found["tmp"]
    assert found["umask"] == 0o644
    assert found["capabilities"] != 0
    assert found["no-new-privileges"] == "0"


def test_a_source_can_be_closed_to_it(machine: Machine) -> None:
    """As the documentation has it: a drop-in that makes what is backed up read-only."""
    with installed(machine, STAND_IN, ReadOnlyPaths=f"-{HOME}/chat") as unit:
        unit.goes()
        unit.start()
        assert (unit.probes()["protected"], unit.probes()["state"]) == ("EROFS", "done")


def test_a_credential_for_the_user(machine: Machine) -> None:
    secret = HOME / "kept-elsewhere"
    with installed(machine, STAND_IN, LoadCredential=f"{CREDENTIAL}:{secret}") as unit:
        machine.write(secret, "key", 0o600, user=True)
        unit.goes()
        unit.start()
        assert unit.probes()["credential"] == "done"


@pytest.mark.parametrize("there", [True, False])
def test_a_credential_of_the_system(machine: Machine, there: bool) -> None:
    """The line is in the unit: where root put a credential it is handed over, and where not the unit starts as well."""
    stored = Path("/etc/credstore/chatkeep-writer.alice")
    with installed(machine, STAND_IN, user=False) as unit:
        if there:
            machine.write(stored, "key", 0o600)
        try:
            unit.goes()
            unit.start()
        finally:
            machine.run("rm", "-f", str(stored))
        assert unit.probes()["credential"] == ("done" if there else "ENOENT")


def test_the_directory_of_the_system_unit_outlives_a_restart(machine: Machine) -> None:
    with installed(machine, STAND_IN, user=False, RestartSec="0.1") as unit:
        unit.goes()
        unit.start()
        remembered = Path(unit.probes()["runtime"]) / "remembered"
        machine.write(remembered, "", user=True)
        unit.systemctl("kill", "--signal=KILL", unit.unit)
        unit.until("NRestarts", "1")
        unit.until("StatusText", "serves")
        assert machine.at(remembered).exists()
        assert os.stat(machine.at(remembered.parent)).st_mode & 0o777 == 0o700
        unit.systemctl("stop", unit.unit)
        assert not machine.at(remembered.parent).exists()


def test_the_screen_and_the_logout(unit: Installed) -> None:
    unit.goes()
    with unit.machine.login("at-the-desk") as session:
        unit.start()
        unit.machine.run("loginctl", "lock-session", session)
        unit.until("StatusText", "screen-lock")
        unit.machine.run("loginctl", "unlock-session", session)
        unit.until("StatusText", "screen-lock screen-unlock")
        unit.machine.run("loginctl", "terminate-session", session)
        unit.until("StatusText", "screen-lock screen-unlock logout")
    assert unit.shows("ActiveState") == "active"


def test_suspending_waits_for_it(unit: Installed) -> None:
    unit.goes()
    unit.start()
    listed = unit.machine.run("systemd-inhibit", "--list", "--no-legend", "--no-pager")
    (line,) = [line for line in listed.splitlines() if line.startswith("Chatkeep")]
    assert str(ALICE_ID) in line.split()
    assert "sleep" in line.split()
    assert line.rstrip().endswith("delay")
    unit.systemctl("stop", unit.unit)
    assert "Chatkeep" not in unit.machine.run("systemd-inhibit", "--list", "--no-legend", "--no-pager")


def test_logind_that_is_updated_goes_on_telling(unit: Installed) -> None:
    unit.goes()
    with unit.machine.login("before-the-update") as session:
        unit.start()
        unit.machine.run("systemctl", "restart", "systemd-logind")
        unit.until("StatusText", "no-logind works")
        unit.machine.run("loginctl", "lock-session", session)
        unit.until("StatusText", "no-logind works screen-lock")
