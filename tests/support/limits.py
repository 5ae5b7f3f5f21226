"""Runs a piece of a test in a child that may use only so much memory and time, and tells what it used."""

from __future__ import annotations

import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Used:
    """What the child took beyond what it began with: bytes of memory at the peak, seconds of processor; and what it
    said."""

    memory: int
    seconds: float
    said: str


def bounded(act: Callable[[], str], *, memory: int, seconds: int, space: int = 1024 * MIB) -> Used:
    """Runs `act` in a child. Fails when it raises, is killed, or used more.

    Args:
        memory: most bytes resident beyond those at the beginning.
        seconds: most seconds of processor time; the kernel ends the child soon after.
        space: bytes of address space it gets: what is merely asked for, and never used, counts here.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run(act, writing, seconds, space)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        report = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        cause = "out of time" if code == -signal.SIGXCPU else f"exit {code}"
        raise AssertionError(f"in the child with limits ({cause}):\n{report[-6000:]}")
    peak, spent, said = report.split("\n", 2)
    used = Used(int(peak), float(spent), said)
    assert used.memory <= memory, f"{used.memory / MIB:.0f} MiB were used, and {memory / MIB:.0f} are the bound"
    assert used.seconds <= seconds
    return used


def _run(act: Callable[[], str], writing: int, seconds: int, space: int) -> None:
    code = 1
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + space, now + space))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds + 1, seconds + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # forgets the peak so far
        before, begun = _peak(), time.process_time()
        said = act()
        os.write(writing, f"{_peak() - before}\n{time.process_time() - begun}\n{said}".encode())
        code = 0
    except BaseException:  # whatever it is, the child must not return into the test run
        os.write(writing, traceback.format_exc()[-20_000:].encode())
    finally:
        os._exit(code)


def _peak() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
