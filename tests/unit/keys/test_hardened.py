"""Memory for secrets, and what a process does to be alone with them."""

from __future__ import annotations

import copy
import json
import mmap
import os
import pickle
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chatkeep.daemon.keys import hardened
from chatkeep.daemon.keys.errors import SecretWiped
from chatkeep.daemon.keys.hardened import Hardened, LockedBuffer

_HARDEN = """
import dataclasses, json
from chatkeep.daemon.keys.hardened import harden
reached = dataclasses.asdict(harden())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
limits = next(line.split() for line in open("/proc/self/limits") if line.startswith("Max core"))
import ctypes
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
print(json.dumps([reached, limits[4:6], dumpable, int(status["VmLck"].split()[0])]))
"""


def flags_of(buffer: LockedBuffer) -> set[str]:
    """What the system says of the pages of a buffer (proc(5), VmFlags)."""
    marker = os.urandom(16)
    with buffer.view() as view:
        view[:16] = marker
    for block in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())[1:]:
        first, last = (int(number, 16) for number in block.split(" ", 1)[0].split("-"))
        if " rw-p " in block.splitlines()[0] and last - first <= 1 << 20:
            with Path("/proc/self/mem").open("rb", 0) as memory:
                memory.seek(first)
                if marker in memory.read(last - first):
                    found = set(next(line for line in block.splitlines() if line.startswith("VmFlags:")).split()[1:])
                    if "wf" in found:  # others may hold a copy: this very test does
                        return found
    raise AssertionError("its pages were not found")


def test_its_pages_are_locked_and_not_dumped() -> None:
    buffer = LockedBuffer(40)
    assert {"lo", "dd", "wf"} <= flags_of(buffer)
    assert (buffer.locked, buffer.not_dumped, buffer.not_inherited) == (True, True, True)


def test_it_is_received_into_and_read_without_a_copy() -> None:
    buffer = LockedBuffer(5000)
    assert len(buffer) == 5000
    assert not any(buffer.view())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"secret")
        with buffer.view() as view:
            assert ours.recv_into(view[4990:]) == 6
    assert bytes(buffer.view()[4990:]) == b"secret\0\0\0\0"


def test_wiped_it_is_zeros_and_gone() -> None:
    buffer = LockedBuffer(16)
    kept = buffer.view()
    kept[:] = b"s" * 16
    buffer.wipe()
    buffer.wipe()
    assert bytes(kept) == bytes(16)
    with pytest.raises(SecretWiped):
        buffer.view()


def test_a_forked_child_finds_zeros() -> None:
    buffer = LockedBuffer(16)
    buffer.view()[:] = b"s" * 16
    child = os.fork()
    if child == 0:
        os._exit(1 if any(buffer.view()) else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(buffer.view()) == b"s" * 16


def test_it_shows_and_gives_nothing() -> None:
    buffer = LockedBuffer(16)
    assert repr(buffer) == "<LockedBuffer>"
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            act(buffer)


def test_what_the_system_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Refusing(mmap.mmap):
        def madvise(self, option: int, *rest: int) -> None:
            asked.append(option)
            raise OSError(22, "Invalid argument")

    class Libc:
        @staticmethod
        def mlock(*_: int) -> int:
            asked.append("mlock")
            return -1

    monkeypatch.setattr(mmap, "mmap", Refusing)
    monkeypatch.setattr(hardened, "_libc", Libc)
    buffer = LockedBuffer(16)
    assert asked == [mmap.MADV_DONTDUMP, 18, "mlock"]
    assert (buffer.locked, buffer.not_dumped, buffer.not_inherited) == (False, False, False)
    buffer.view()[:] = b"s" * 16
    assert bytes(buffer.view()) == b"s" * 16


def _harden(locked: int | None) -> tuple[Hardened, list[str], int, int]:
    def limit() -> None:
        if locked is not None:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (locked, locked))

    done = subprocess.run([sys.executable, "-c", _HARDEN], preexec_fn=limit, capture_output=True, check=True)
    reached, core, dumpable, kilobytes = json.loads(done.stdout)
    return Hardened(**reached), core, dumpable, kilobytes


def test_a_process_is_hardened_as_it_says() -> None:
    reached, core, dumpable, locked = _harden(None)
    assert (reached.no_core, reached.not_dumpable) == (True, True)
    assert (core, dumpable) == (["0", "0"], 0)
    assert reached.all_locked == (locked > 1000)


def test_nothing_is_locked_as_a_whole_under_a_limit_that_would_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    class Libc:
        @staticmethod
        def mlockall(flags: int) -> int:
            called.append(flags)
            return 0

    monkeypatch.setattr(hardened, "_libc", Libc)
    monkeypatch.setattr(hardened, "_may_lock", lambda: False)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    assert not hardened._lock_all()
    assert called == []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert hardened._lock_all()
    assert called == [1 | 2 | 4]


def test_a_system_that_refuses_everything_is_lived_with(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[object] = []

    class Libc:
        @staticmethod
        def prctl(*arguments: int) -> int:
            refused.append(arguments[0])
            return -1

        @staticmethod
        def mlockall(_: int) -> int:
            refused.append("mlockall")
            return -1

    def setrlimit(*_: object) -> None:
        refused.append("setrlimit")
        raise ValueError

    monkeypatch.setattr(hardened, "_libc", Libc)
    monkeypatch.setattr(hardened, "_may_lock", lambda: True)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert hardened.harden() == Hardened(no_core=False, not_dumpable=False, all_locked=False)
    assert refused == ["setrlimit", 4, "setrlimit", "mlockall"]
