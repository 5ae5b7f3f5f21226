"""Whether SQLite finds a restored database whole, asked of a process that has nothing to lose (`sqlite_child`)."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.verify.sqlite_child import MOST_LETTERS, MOST_PROBLEMS

MEMORY: Final = 512 << 20
"""Bytes of address space: SQLite's check needs a few MiB, and a bit for each page."""
LEAST_SECONDS: Final = 20
BYTES_A_SECOND: Final = 1 << 20
"""A database is given a second of processor time for so many bytes beyond the least; a slow machine checks 20 times as
many."""
_PATIENCE: Final = 4  # times as long on the clock as on the processor: it waits for the disk
_TURN: Final = 0.2  # seconds between two looks at whether it is cancelled
_ANSWER: Final = 64 << 10
_MAGIC: Final = b"SQLite format 3\0"
_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")


class Outcome(enum.StrEnum):
    """What became of a database."""

    SOUND = "sound"  # SQLite finds nothing wrong
    DAMAGED = "damaged"  # SQLite finds it damaged, and it is what was captured
    FOREIGN = "foreign"  # sound as far as SQLite knows it: it has parts that only the application's own code reads
    ENCRYPTED = "encrypted"  # not SQLite readable without the application's key
    UNFINISHED = "unfinished"  # more work than it was given, or SQLite gave up


@dataclass(frozen=True, slots=True)
class Checked:
    """`problems`: texts of SQLite about a hostile database, at most 20 of 200 letters; `why` it is unfinished: `time`,
    `memory`, `journal` (it names other files, and was not played back) or `crashed`."""

    outcome: Outcome
    problems: tuple[str, ...] = ()
    why: str = ""


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    outcome: Outcome
    problems: list[str]


def check(folder: bytes, cancelled: Callable[[], bool] = bool, seconds: int | None = None) -> Checked:
    """What SQLite says of the database `db` in a folder that holds nothing but it and its journal (`Scratch.alone`).

    With a journal, an interrupted transaction is rolled back first, as the application would: the file changes.

    Args:
        seconds: of processor time; None: by its size.

    Raises:
        Cancelled: `cancelled` said so.
        OSError: it is not there, or no process could be started.
    """
    path = os.path.join(folder, b"db")
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return Checked(Outcome.ENCRYPTED)
        size = os.fstat(file.fileno()).st_size
    journal = _journal(path + b"-journal")
    if journal is None:
        return Checked(Outcome.UNFINISHED, why="journal")
    seconds = LEAST_SECONDS + size // BYTES_A_SECOND if seconds is None else seconds
    request = {"size": size, "seconds": seconds, "memory": MEMORY, "journal": journal}
    return _asked(folder, json.dumps(request).encode() + b"\n", seconds * _PATIENCE, cancelled)


def _journal(path: bytes) -> bool | None:
    """Whether there is a journal to be played back; None for one that must not be.

    A journal may name a super-journal, anywhere; SQLite reads that, and removes it in the end.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - len(_JOURNAL_MAGIC)))
            return None if file.read() == _JOURNAL_MAGIC and size > len(_JOURNAL_MAGIC) else size > 0
    except FileNotFoundError:
        return False


def _asked(folder: bytes, request: bytes, seconds: int, cancelled: Callable[[], bool]) -> Checked:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "chatkeep.daemon.verify.sqlite_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"LANG": "C.UTF-8"},
        start_new_session=True,  # Ctrl-C is for the command, which ends it
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(request)
            child.stdin.close()
        raw = _heard(child.stdout.fileno(), time.monotonic() + seconds, cancelled)
        if raw is None:
            return Checked(Outcome.UNFINISHED, why="time")
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_PATIENCE)
        return _believed(raw, child.poll())
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _heard(fd: int, deadline: float, cancelled: Callable[[], bool]) -> bytes | None:
    """All that it says, if it is not too much; None when its time is over."""
    raw = b""
    while len(raw) <= _ANSWER:
        if cancelled():
            raise Cancelled
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        if select.select([fd], [], [], min(left, _TURN))[0]:
            part = os.read(fd, _ANSWER)
            if not part:
                break
            raw += part
    return raw


def _believed(raw: bytes, code: int | None) -> Checked:
    """Its answer, if it has the form of one: the process may be in the hands of what it looked at."""
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Checked(Outcome.UNFINISHED, why="time")
    try:
        said = msgspec.json.decode(raw, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Checked(Outcome.UNFINISHED, why="crashed")
    if len(said.problems) > MOST_PROBLEMS or any(len(text) > MOST_LETTERS for text in said.problems):
        return Checked(Outcome.UNFINISHED, why="crashed")
    why = "" if said.outcome is not Outcome.UNFINISHED else "memory" if said.problems == ["memory"] else "crashed"
    return Checked(said.outcome, () if why == "memory" else tuple(said.problems), why)
