"""Somebody who has just installed Chatkeep: a home directory of his own, and the real command in it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.station import COMMAND, Done, fill, finish
from tests.support.terminal import Answer, converse

WRITTEN = "Press Enter when they are written down"
_OWN = (
    *("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_DOWNLOAD_DIR", "XDG_DOCUMENTS_DIR"),
    "DBUS_SESSION_BUS_ADDRESS",  # of the services of whoever runs the tests
)


class Newcomer:
    """A home directory below `room`, and a disk beside it to store backups on."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.home = room / "home"
        self.disk = room / "disk"
        self.key = room / "key.txt"
        self.runtime = room / "runtime"
        for directory in (self.home, self.disk, self.runtime):
            directory.mkdir(mode=0o700)
        self.environment = {name: value for name, value in os.environ.items() if name not in _OWN} | {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "TZ": "UTC",
            "TERM": "dumb",
            "PATH": f"{room / 'bin'}:{os.environ['PATH']}",
        }

    @property
    def store(self) -> Path:
        return self.disk / "vault"

    @property
    def config(self) -> Path:
        return self.home / ".config/chatkeep/chatkeep.yaml"

    @property
    def state(self) -> Path:
        return self.home / ".local/state/chatkeep"

    @property
    def unit(self) -> Path:
        return self.home / ".config/systemd/user/chatkeep.service"

    def signal(self, rows: int = 200) -> Path:
        """A profile of Signal Desktop."""
        top = self.home / ".config/Signal"
        (top / "sql").mkdir(parents=True)
        (top / "Cache").mkdir()
        (top / "Cache/f_000001").write_text("a page that comes again")
        (top / "config.json").write_text('{"key": "00"}')
        fill(top / "sql/db.sqlite", rows)
        return top

    def start(self, *words: object, json: bool = True, **how: Any) -> subprocess.Popen[str]:
        """Begins a command."""
        argv = [*COMMAND, *map(str, words), *(["--json"] if json else [])]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, env=self.environment, text=True, **{**pipes, **how})

    def run(self, *words: object, json: bool = True, **how: Any) -> Done:
        """Runs a command to its end."""
        return finish(self.start(*words, json=json, **how))

    def ok(self, *words: object) -> Any:
        """Runs a command that must succeed, and returns what it said."""
        done = self.run(*words)
        assert done.code == 0, (words, done)
        return done.json

    def set_up(self, *words: object) -> Any:
        """`chatkeep setup` without questions, with what every run of it needs."""
        return self.ok("setup", "--all-found", "--store", self.store, "--recovery-key-file", self.key, *words)

    def at_terminal(self, talk: Sequence[tuple[str, Answer]], *words: object) -> tuple[int, str]:
        """`chatkeep setup` at a terminal of 80 columns."""
        screen = {**self.environment, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"}
        return converse([*COMMAND, "setup", *map(str, words)], talk, screen)

    def restore(self, source: str, name: str) -> Path:
        """The newest snapshot of a source, from storage and the key alone."""
        target = self.room / name
        words = ("--source", source, "--target", target, "--from", self.store, "--key-file", self.key)
        self.ok("restore", "latest", *words)
        return target

    def everything(self) -> set[str]:
        """Every path below the home directory and the disk."""
        tops = (self.home, self.disk)
        return {str(path.relative_to(self.room)) for top in tops for path in top.rglob("*")}

    def fake(self, name: str, script: str) -> Path:
        """A program that comes before the real one on the path; each call of it is written to the file returned."""
        tools = self.room / "bin"
        tools.mkdir(exist_ok=True)
        calls = self.room / f"{name}.calls"
        calls.touch()
        program = tools / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{calls}"\n{script}\n')
        program.chmod(stat.S_IRWXU)
        assert shutil.which(name, path=self.environment["PATH"]) == str(program)
        return calls


def lines_of(shown: str) -> list[str]:
    """The recovery key as it was shown last."""
    found = re.findall(r"^ +[1-8]   (\d{4} \d{4})\r?$", shown, re.MULTILINE)
    assert found, shown
    assert len(found) % 8 == 0, shown
    return found[-8:]


def typed_back() -> list[tuple[str, Answer]]:
    """The recovery key is taken down and typed."""

    def line(number: int) -> tuple[str, Answer]:
        return f"line {number}:", lambda shown: lines_of(shown)[number - 1]

    return [(WRITTEN, ""), *(line(number) for number in range(1, 9))]


def states(done: Any) -> dict[str, str]:
    """What became of each step."""
    return {step["step"]: step["state"] for step in done["steps"]}
