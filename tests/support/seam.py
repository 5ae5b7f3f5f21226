"""The seam of seam.c: built, loaded into a process of its own, and driven from there.

Nothing of the product is changed for it. Which calls are steps is decided by the directory they touch, so a way of
writing that somebody adds tomorrow is a step tomorrow; a recording that does not rebuild the directory to the byte is
refused, so a call that the seam does not know cannot stay unnoticed.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).with_name("seam.c")
TOP = SOURCE.parents[2]
_HEAD = struct.Struct("<B3xIII QQ")


class Fault(IntEnum):
    """What happens at a step."""

    NONE = 0
    KILL = 1  # by the kernel, before the step is made
    REFUSE = 2  # once
    REFUSE_FROM = 3  # and everything that needs room from then on
    SHORT = 4  # a write takes half of what it was given, and says so
    TORN = 5  # so, and what comes next is refused


class Kind(IntEnum):
    """What a step is."""

    CREATE = 1
    WRITE = 2
    CUT = 3
    SYNC = 4
    RENAME = 5
    LINK = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    NOTE = 10


class Event(NamedTuple):
    """One step of a recording. `more`: the bytes written, or the second path. `offset`: also the length after a cut."""

    kind: Kind
    path: str
    more: bytes
    inode: int
    offset: int


class Seam:
    """The seam in this process, which must have been started by `run_beside`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        assert self._library.seam_present() == 1
        self._library.seam_end.restype = ctypes.c_int64
        self._library.seam_fired.restype = ctypes.c_char_p

    def begin(self, root: Path, record: Path | None, at: int = -1, fault: Fault = Fault.NONE, error: int = 0) -> None:
        """Watch what is below `root`, and let `fault` happen at step `at`."""
        name = b"" if record is None else os.fsencode(record)
        self._library.seam_begin(os.fsencode(root), name, ctypes.c_int64(at), int(fault), error)

    def end(self) -> int:
        """Watch no more. Returns how many steps there were."""
        return int(self._library.seam_end())

    def fired(self) -> str:
        """The step that was hit; empty when none was."""
        return os.fsdecode(self._library.seam_fired())

    def note(self, text: str) -> None:
        """A remark between two steps of the record."""
        self._library.seam_note(text.encode())


def read_record(path: Path, root: Path) -> list[Event]:
    """What was recorded, in order. Paths are relative to `root`; its own is empty."""
    raw = path.read_bytes()
    events: list[Event] = []
    at = 0

    def relative(name: bytes) -> str:
        found = os.path.relpath(os.fsdecode(name), root)
        return "" if found == "." else found

    while at < len(raw):
        kind, first, second, _, inode, offset = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        name, more = raw[at : at + first], raw[at + first : at + first + second]
        at += first + second
        if kind in (Kind.RENAME, Kind.LINK):
            more = relative(more).encode()
        text = name.decode() if kind == Kind.NOTE else relative(name)
        events.append(Event(Kind(kind), text, more, inode, offset))
    return events


def build(directory: Path) -> Path:
    """Compile the seam. Needs a C compiler, `cc`."""
    library = directory / "seam.so"
    command = ["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE]
    subprocess.run([*map(str, command), "-lpthread"], check=True)
    return library


def run_beside(library: Path, module: str, **arguments: object) -> dict[str, Any]:
    """Run `main` of a module of the tests in a process with the seam in it; what it printed last, as JSON."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(TOP)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", module, json.dumps(arguments, default=str)],
        env=environment,
        cwd=TOP,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
