"""One seam for everything that a backup makes durable: each step can be the last, or fail."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.state.connection import Connection
from chatkeep.daemon.vault import pack

CALLS = ("rename", "fsync", "fdatasync", "ftruncate", "write", "pwrite", "unlink")


class Crash(BaseException):
    """The process ends here."""


class Steps:
    """Counts the durable steps below a directory, and does something at one of them.

    Once `act` raised Crash every later step raises it too: a dead process cleans nothing up.
    """

    def __init__(self, root: Path, at: int, act: Callable[[str], None], only: str = "") -> None:
        self.names: list[str] = []
        self.fired = ""
        self._root = os.fsencode(root)
        self._at = at
        self._act = act
        self._only = only
        self._dead = False
        self._lock = threading.Lock()

    def step(self, name: str) -> None:
        """One step is about to be made."""
        with self._lock:
            if self._dead:
                raise Crash
            number = self.names.count(name) if self._only else len(self.names)
            self.names.append(name)
        if number == self._at and self._only in ("", name):
            self.fired = name
            try:
                self._act(name)
            except Crash:
                self._dead = True
                raise

    def below(self, target: object) -> bool:
        """Whether a path or a descriptor is one of ours."""
        if isinstance(target, int):
            target = os.readlink(f"/proc/self/fd/{target}")
        return os.fsencode(os.fspath(target)).startswith(self._root)  # type: ignore[call-overload]


class _File(io.FileIO):
    steps: Steps

    def write(self, piece: Any) -> int:
        self.steps.step("pack write")
        return super().write(piece)


@contextlib.contextmanager
def durable_steps(root: Path, at: int, act: Callable[[str], None], only: str = "") -> Iterator[Steps]:
    """Watch every durable step below `root` while the block runs. `at` -1: only count; it is numbered among all steps,
    or among those of the kind `only`."""
    steps = Steps(root, at, act, only)
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _watched(steps, name))
        patch.setattr(pack.PackWriter.__init__, "__kwdefaults__", {"create": _creator(steps)})
        patch.setattr(Connection, "transaction", _transaction(steps, Connection.transaction))
        yield steps


def _watched(steps: Steps, name: str) -> Callable[..., Any]:
    call = getattr(os, name)

    def watched(target: Any, *arguments: Any, **options: Any) -> Any:
        if not options.get("dir_fd") and steps.below(target):
            steps.step(name)
        return call(target, *arguments, **options)

    return watched


def _creator(steps: Steps) -> Callable[[Path], io.FileIO]:
    def create(path: Path) -> io.FileIO:
        steps.step("pack create")
        made = _File(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "w")
        made.steps = steps
        return made

    return create


def _transaction(steps: Steps, real: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def transaction(self: Connection) -> Iterator[sqlite3.Connection]:
        with real(self) as db:
            yield db
            steps.step("before COMMIT")
        steps.step("after COMMIT")

    return transaction


def crash(_: str) -> None:
    """Die."""
    raise Crash


def kill(_: str) -> None:
    """Die as the kernel has it."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> Callable[[str], None]:
    """The system refuses: ENOSPC, EIO."""

    def act(name: str) -> None:
        if name == "before COMMIT":
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL if number == errno.ENOSPC else sqlite3.SQLITE_IOERR
            raise error
        if name != "after COMMIT":
            raise OSError(number, os.strerror(number))

    return act
