"""A machine of its own for one test: a source, storage, a configuration, and the real `chatkeep` in processes."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.independent_reader import Directory
from tests.support.independent import again

DEADLINE = 180.0  # seconds; what is waited for comes within
COMMAND = (sys.executable, "-m", "chatkeep.daemon.cli.main")
_PR_CAPBSET_DROP = 24  # <linux/prctl.h>
_DAC = (1, 2, 3)  # <linux/capability.h>: DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The code of the error that --json told."""
        found: str = self.json["error"]["code"]
        return found


def drop_powers() -> None:
    """Root without the powers that look past permissions: mode bits count for it as for anybody. For preexec_fn."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for power in _DAC:
            if libc.prctl(_PR_CAPBSET_DROP, power, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")


def limit_files(size: int) -> Callable[[], None]:
    """No file longer than this many bytes can be written: how a full quota looks to a process. For preexec_fn."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class Station:
    """Everything of one test below `room`. Providers are folders below it, named as given."""

    def __init__(self, room: Path, providers: tuple[str, ...] = ("disk",), optional: tuple[str, ...] = ()) -> None:
        self.room = room
        self.source = room / "chat"
        self.state = room / "state"
        self.config = room / "chatkeep.yaml"
        self.key = room / "key.txt"
        self.names = providers
        self.optional = optional
        self.runtime = room / "runtime"  # where sessions are
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        self.source.mkdir(exist_ok=True)
        self.configure(self.source)

    def configure(self, *sources: Path) -> None:
        """Writes the configuration, with these sources."""
        lines = ["sources:", *(f"  - {source}" for source in sources), "providers:"]
        for name in self.names:
            required = "false" if name in self.optional else "true"
            lines.append(f"  - {{name: {name}, type: folder, path: {self.storage(name)}, required: {required}}}")
        self.config.write_text("\n".join([*lines, f"state_dir: {self.state}", ""]))

    def storage(self, name: str = "disk") -> Path:
        return self.room / name

    def argv(self, *words: object) -> list[str]:
        """A command line."""
        return [*COMMAND, "--config", str(self.config), *map(str, words)]

    def start(self, *words: object, json: bool = True, **how: Any) -> subprocess.Popen[str]:
        """Begins a command."""
        argv = [*self.argv(*words), *(["--json"] if json else [])]
        environment = {**os.environ, "TZ": "UTC", "TERM": "dumb", "XDG_RUNTIME_DIR": str(self.runtime)}
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, env=environment, text=True, **{**pipes, **how})

    def run(self, *words: object, json: bool = True, **how: Any) -> Done:
        """Runs a command to its end."""
        return finish(self.start(*words, json=json, **how))

    def ok(self, *words: object) -> Any:
        """Runs a command that must succeed, and returns what it said."""
        done = self.run(*words)
        assert done.code == 0, (words, done)
        return done.json

    def init(self) -> Any:
        return self.ok("init", "--recovery-key-file", self.key)

    def backup(self, *words: object) -> Any:
        """A backup that must succeed: what it says of its first source."""
        return self.ok("backup", *words)["sources"][0]

    def restore(self, snap: object, name: str, *words: object) -> Path:
        """Restores into a new directory, with storage and key alone; returns it."""
        target, storage = self.room / name, self.storage(self.names[0])
        done = self.ok("restore", snap, *words, "--target", target, "--from", storage, "--key-file", self.key)
        if not words:  # the whole snapshot: a second time by the reader that shares no code with the product
            one = done["snapshot"]
            again(Directory(str(storage)), self.key.read_text(), target, one["seq"], one["id"])
        return target

    def objects(self, name: str = "disk") -> dict[str, Path]:
        """The files of a provider by their path below it, without what is being written."""
        top = self.storage(name)
        return {
            str(path.relative_to(top)): path
            for path in sorted(top.rglob("*"))
            if path.is_file() and ".tmp" not in path.relative_to(top).parts
        }

    def packs(self, name: str = "disk") -> list[Path]:
        return [path for text, path in self.objects(name).items() if "/p/" in text]


def finish(process: subprocess.Popen[str]) -> Done:
    """Waits for a command to end."""
    try:
        out, err = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Done(process.returncode, out, err)


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Waits until something is so; fails when the process ends before, or after the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert process is None or process.poll() is None, finish(process) if process else None
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.001)


def met(begin: Callable[[], subprocess.Popen[str]], condition: Callable[[], object]) -> subprocess.Popen[str]:
    """A command that is held still at a moment of its work, and goes on with SIGCONT.

    On a busy machine one may be past it before anybody looks. Then another is begun. A condition may look at what the
    command takes away meanwhile, and is not met then.
    """

    def is_met() -> bool:
        with suppress(FileNotFoundError):
            return bool(condition())
        return False

    for _ in range(20):
        process = begin()
        while process.poll() is None:
            if is_met():
                process.send_signal(signal.SIGSTOP)
                if process.poll() is None and is_met():
                    return process
                process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
        done = finish(process)
        assert done.code == 0, done
    raise AssertionError("it was never met at that")


@contextmanager
def paused(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Holds a process still for the block."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def template(top: Path, *providers: str) -> Station:
    """A station whose vault is made, to be copied."""
    top.mkdir()
    station = Station(top, providers or ("disk",))
    station.init()
    return station


def copied(made: Station, room: Path) -> Station:
    """A station with the same vault and device in a place of its own."""
    shutil.copytree(made.room, room, dirs_exist_ok=True, symlinks=True)
    return Station(room, made.names, made.optional)


# -- databases --------------------------------------------------------------------------------------------------------


def fill(path: Path, rows: int = 200, text: str = "a message", *, wal: bool = True) -> None:
    """Adds rows to a database, which is made if need be, and closes it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
        connection.execute("CREATE TABLE IF NOT EXISTS messages(id INTEGER PRIMARY KEY, body TEXT)")
        connection.executemany("INSERT INTO messages(body) VALUES(?)", [(f"{text} {n} " * 20,) for n in range(rows)])
        connection.commit()


def sql(path: Path, *statements: str) -> None:
    """Runs statements, each on its own, and closes the database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


def rows(path: Path) -> list[tuple[Any, ...]]:
    """Every row, after SQLite found nothing wrong."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT * FROM messages ORDER BY id").fetchall()
