"""What is in the memory of another process: every readable byte of it, searched from outside for every spelling of
every secret.

The process is stopped for as long as it takes. Only root, or a parent of the same user whose child is still dumpable,
can read it: that a hardened process cannot be read otherwise is a claim of its own, with a test of its own.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.secret_hunt import LEAST, spellings

SOURCE: Final = Path(__file__).with_name("memory_scan.c")
HALF: Final = 16  # bytes: what is cut off or overwritten in part is found by either end
_BLOCK: Final = 8 << 20
_MOST_HITS: Final = 4096
_LINE: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \d+ *(.*)")
# Pages of the kernel's own: time, and its calls.
_NOT_ITS_OWN: Final = ("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]")


class _Needle(ctypes.Structure):
    _fields_ = (("text", ctypes.c_char_p), ("size", ctypes.c_uint32), ("next", ctypes.c_int32))


class _Hit(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("needle", ctypes.c_uint64))


class Region(NamedTuple):
    """A mapping of a process."""

    start: int
    end: int
    mode: str
    name: str  # a path, [heap], [stack], or nothing: anonymous


class Hit(NamedTuple):
    """One place where something was found."""

    secret: str
    spelling: str
    region: Region
    address: int

    def __str__(self) -> str:
        where = self.region.name or "anonymous"
        return (
            f"{self.secret} ({self.spelling}) in {where} {self.region.mode} at +{self.address - self.region.start:#x}"
        )


@dataclasses.dataclass(frozen=True)
class Found:
    """What one look gave."""

    hits: tuple[Hit, ...]
    secrets: int
    spelled: int
    bytes: int

    @property
    def names(self) -> set[str]:
        """The secrets that are there, in whichever spelling."""
        return {hit.secret for hit in self.hits}

    def told(self) -> str:
        """Every hit, for people."""
        return "\n".join(map(str, self.hits))


@dataclasses.dataclass
class Tally:
    """How much was searched, in how many looks at how many processes."""

    looks: int = 0
    processes: int = 0
    spelled: int = 0
    bytes: int = 0
    controls: int = 0

    def add(self, other: Mapping[str, int]) -> None:
        """Adds what another process of the test run counted."""
        for name, value in other.items():
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name == "spelled" else mine + value)

    def told(self) -> str:
        """One line for the end of a run."""
        return (
            f"memory: {self.looks} looks into {self.processes} processes, {self.bytes >> 20} MiB in all, "
            f"up to {self.spelled} spellings of secrets at once, {self.controls} found where they had to be"
        )


TALLY: Final = Tally()
_seen: Final[set[int]] = set()


class Scanner:
    """Looks for secrets.

    Args:
        secrets: by name. None shorter than 8 bytes: shorter ones are found by chance.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self.secrets: Final = dict(secrets)
        spelled: dict[bytes, tuple[str, str]] = {}
        for name, secret in secrets.items():
            for spelling, text in _spelled(secret):
                assert len(text) >= LEAST, (name, spelling)
                spelled.setdefault(text, (name, spelling))
        assert spelled, "nothing to look for"
        self._meaning: Final = list(spelled.values())
        self._longest: Final = max(map(len, spelled))
        self._needles: Final = (_Needle * len(spelled))(*(_Needle(text, len(text), -1) for text in spelled))
        self._table: Final = (ctypes.c_int32 * 65536)()
        _library().memory_index(self._needles, len(spelled), self._table)

    def but(self, *names: str) -> Scanner:
        """A scanner that does not look for these."""
        assert set(names) <= self.secrets.keys(), names
        return Scanner({name: secret for name, secret in self.secrets.items() if name not in names})

    def look(self, pid: int) -> Found:
        """Searches everything that a process can read in its memory, while it is stopped.

        Raises:
            PermissionError: it may not be looked at.
            ProcessLookupError: there is none.
        """
        hits: list[Hit] = []
        searched = 0
        with stopped(pid), open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for region in regions(pid):
                for block, start in _blocks(memory.fileno(), region, self._longest - 1):
                    searched += len(block)
                    hits += [Hit(*self._meaning[n], region, start + at) for at, n in self._search(block)]
        assert searched > 0, f"no byte of {pid} was readable"
        found = Found(tuple(dict.fromkeys(hits)), len(self.secrets), len(self._meaning), searched)
        _count(pid, found)
        return found

    def in_bytes(self, body: bytes) -> set[str]:
        """The secrets in a text: for trying the scanner itself."""
        return {self._meaning[n][0] for _, n in self._search(bytearray(body))}

    def _search(self, block: bytearray) -> list[tuple[int, int]]:
        hits = (_Hit * _MOST_HITS)()
        body = (ctypes.c_char * len(block)).from_buffer(block)
        count = _library().memory_find(self._needles, self._table, body, ctypes.c_uint64(len(block)), hits, _MOST_HITS)
        assert count <= _MOST_HITS, f"{count} hits"
        return [(hit.offset, hit.needle) for hit in hits[:count]]


def regions(pid: int) -> Iterator[Region]:
    """The mappings of a process that it can read."""
    for line in Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None, line
        start, end, mode, _, name = match.groups()
        if mode.startswith("r") and name not in _NOT_ITS_OWN:
            yield Region(int(start, 16), int(end, 16), mode, name)


def flags(pid: int) -> dict[Region, set[str]]:
    """The kernel's flags of each readable mapping, of proc(5), VmFlags: `lo` is locked, `dd` in no core dump."""
    found: dict[Region, set[str]] = {}
    current: Region | None = None
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="surrogateescape").splitlines():
        if match := _LINE.fullmatch(line):
            start, end, mode, _, name = match.groups()
            current = Region(int(start, 16), int(end, 16), mode, name) if mode.startswith("r") else None
        elif line.startswith("VmFlags:") and current is not None:
            found[current] = set(line.split()[1:])
    return found


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Holds a process still for the block: what moves while it is looked for can be missed."""
    os.kill(pid, signal.SIGSTOP)
    try:
        while _state(pid) not in "TtZX":  # the signal was sent; each thread stops at its next step
            os.sched_yield()
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def wide(name: str, text: str) -> dict[str, bytes]:
    """A typed secret, in the widths in which Python keeps text."""
    widths = {"": "utf-8", ", two bytes": "utf-16-le", ", four bytes": "utf-32-le"}
    return {f"{name}{width}": text.encode(codec) for width, codec in widths.items()}


def _state(pid: int) -> str:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat[stat.rindex(")") + 2]


def _spelled(secret: bytes) -> Iterator[tuple[str, bytes]]:
    parts = {"": secret}
    if len(secret) > HALF:
        parts |= {", first half": secret[:HALF], ", last half": secret[-HALF:]}
    for part, body in parts.items():
        yield from ((f"{spelling}{part}", text) for spelling, text in spellings(body).items())


def _blocks(memory: int, region: Region, overlap: int) -> Iterator[tuple[bytearray, int]]:
    """The bytes of a mapping, piece by piece, each beginning a little before the end of the last."""
    at = region.start
    while at < region.end:
        block = bytearray(min(_BLOCK, region.end - at))
        try:
            got = os.preadv(memory, [block], at)
        except OSError:
            return  # a guard page, or the rest of a file that was cut off: nothing that could be read
        del block[got:]
        yield block, at
        if got == 0 or at + got >= region.end:
            return
        at += max(got - overlap, 1) if got > overlap else got


def _count(pid: int, found: Found) -> None:
    TALLY.looks += 1
    TALLY.processes += pid not in _seen
    _seen.add(pid)
    TALLY.spelled = max(TALLY.spelled, found.spelled)
    TALLY.bytes += found.bytes


@functools.cache
def _library() -> ctypes.CDLL:
    """The search, which needs a C compiler, `cc`: in Python it would take minutes."""
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "memory_scan.so"
        command = ["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE]
        subprocess.run(list(map(str, command)), check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.memory_find.restype = ctypes.c_uint64
    return loaded
