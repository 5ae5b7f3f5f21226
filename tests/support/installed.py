"""A unit of ours in a machine, with a program of the test's choice."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.machine import ALICE, HOME, TOP, Machine

PYTHON: Final = str(TOP / ".venv/bin/python")
STAND_IN: Final = (PYTHON, str(TOP / "tests/support/stand_in.py"))
UNITS: Final = TOP / "systemd"


def rendered(name: str, command: Sequence[str]) -> str:
    """A unit of ours with a program in its place."""
    text = (UNITS / name).read_text()
    assert text.count("@CHATKEEP@") == 2 if name == "chatkeep.service" else 1
    return text.replace("ExecStart=@CHATKEEP@", f"ExecStart={shlex.join(command)}")


@dataclass
class Installed:
    """One that can be started."""

    machine: Machine
    unit: str
    user: bool

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.machine.systemctl(*words, user=self.user, check=check)

    def start(self, *words: str) -> None:
        self.systemctl("start", *words, self.unit)

    def shows(self, name: str) -> str:
        return self.machine.shows(self.unit, name, user=self.user)

    def journal(self) -> str:
        return self.machine.journal(self.unit, user=self.user)

    def until(self, name: str, *values: str, within: float = 20.0) -> None:
        """Waits until a property has one of these values."""
        self.machine.until(lambda: self.shows(name) in values, within, lambda: (self.shows(name), self.journal()))

    def probes(self) -> dict[str, Any]:
        """What the stand-in could do."""
        found: dict[str, Any] = json.loads(self.machine.at(HOME / "probes.json").read_text())
        return found

    def goes(self) -> None:
        """The stand-in is to serve from now on."""
        self.machine.write(HOME / "go", "", user=True)


@contextlib.contextmanager
def installed(machine: Machine, command: Sequence[str], *, user: bool = True, **changes: str) -> Iterator[Installed]:
    """The unit, with `changes` of [Service] in a drop-in; it is stopped in the end, and gone."""
    file = "chatkeep.service" if user else "chatkeep@.service"
    unit = file if user else f"chatkeep@{ALICE}.service"
    directory = HOME / ".config/systemd/user" if user else Path("/etc/systemd/system")
    machine.run("find", str(HOME), "-mindepth", "1", "-delete")
    machine.write(directory / file, rendered(file, command), user=user)
    lines = "".join(f"{name}={value}\n" for name, value in changes.items())
    machine.write(directory / f"{file}.d/test.conf", f"[Service]\n{lines}", user=user)
    for each in (HOME / ".local/state/chatkeep/x", HOME / "chat/x"):
        machine.write(each, "", user=True)
    machine.systemctl("daemon-reload", user=user)
    try:
        yield Installed(machine, unit, user)
    finally:
        machine.systemctl("kill", "--signal=KILL", unit, user=user, check=False)
        machine.systemctl("stop", unit, user=user, check=False)
        machine.systemctl("reset-failed", unit, user=user, check=False)
        machine.run("rm", "-rf", str(directory / file), str(directory / f"{file}.d"))
        machine.systemctl("daemon-reload", user=user)
