"""Stands in for `os` in `chatkeep.providers.durable` and stops or fails one chosen call: every step of a write in turn.

Run as a module (`python -m tests.providers.faulty_os ROOT NAME SIZE STEP`) it puts an object and halts for good just
before the call of that number, or half-way through it where it is a write, after saying so. Whoever started it then
kills it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGING = frozenset({"open", "write", "fsync", "close", "link", "unlink", "rename", "mkdir"})


class FaultyOs:
    """`os`, except that the call of number `step` (from 1, among those that change something) meets `fault`."""

    def __init__(self, step: int, fault: Callable[[str, tuple[Any, ...]], None]) -> None:
        self.step = step
        self.fault = fault
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGING:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self.seen.append(name)
            if len(self.seen) == self.step:
                if name == "close":  # failed or not, the descriptor is gone afterwards
                    real(*arguments)
                self.fault(name, arguments)
            return real(*arguments, **named)

        return call


def failing(step: int, number: int) -> FaultyOs:
    """The call of that number raises that errno."""

    def fail(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write":  # a full disk takes what fits first
            os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        raise OSError(number, os.strerror(number))

    return FaultyOs(step, fail)


def body_of(size: int) -> bytes:
    """The object that the child puts."""
    return bytes(each % 251 for each in range(size))


def _halt(name: str, arguments: tuple[Any, ...]) -> None:
    if name == "write":
        os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
    sys.stdout.write(f"halted before {name}\n")
    sys.stdout.flush()
    while True:
        signal.pause()


def _main(root: str, name: str, size: str, step: str) -> None:
    from chatkeep.providers import durable
    from chatkeep.providers.folder import FolderProvider

    provider = FolderProvider("disk", Path(root))
    setattr(durable, "os", FaultyOs(int(step), _halt))  # noqa: B010 - mypy: a module's name for another module
    provider.put(name, body_of(int(size)))
    sys.stdout.write("finished\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
