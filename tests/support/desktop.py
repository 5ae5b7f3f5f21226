"""What the command finds where a person has a desktop: a program that opens things, and hands them to the test."""

from __future__ import annotations

import os
import select
import stat
import subprocess
import time
from pathlib import Path

DEADLINE = 180.0  # seconds; a command that opens a page does it within


class Desktop:
    """`xdg-open`, first on the command's PATH. What it is asked to open comes here over a pipe: a browser would open
    the same, and has nothing else to go by.
    """

    def __init__(self, room: Path, *, works: bool = True) -> None:
        room.mkdir()
        pipe, self._tools = room / "opened", room / "bin"
        self._tools.mkdir()
        os.mkfifo(pipe, 0o600)
        self._end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # both ends: it neither waits nor ends
        opener = self._tools / "xdg-open"
        opener.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{pipe}"\nexit {0 if works else 3}\n')
        opener.chmod(stat.S_IRWXU)
        self._read = ""

    def environment(self) -> dict[str, str]:
        """What the command must be given."""
        return {
            "PATH": f"{self._tools}:{os.environ['PATH']}",
            "BROWSER": str(self._tools / "xdg-open"),
            "DISPLAY": ":7",
        }

    @property
    def asked(self) -> bool:
        """Whether something was to be opened that nobody has looked at."""
        self._take(0)
        return "\n" in self._read

    def _take(self, seconds: float) -> None:
        if select.select([self._end], [], [], seconds)[0]:
            self._read += os.read(self._end, 4096).decode()

    def opened(self, process: subprocess.Popen[str] | None = None) -> str:
        """What was to be opened: waits for it, for as long as the command runs."""
        end = time.monotonic() + DEADLINE
        while "\n" not in self._read:
            assert process is None or process.poll() is None, "the command ended and opened nothing"
            assert time.monotonic() < end, "nothing was opened"
            self._take(0.2)
        line, _, self._read = self._read.partition("\n")
        return line

    def address(self, process: subprocess.Popen[str] | None = None) -> str:
        """The same as an address: a file is one that a browser reads."""
        what = self.opened(process)
        return what if "://" in what else Path(what).as_uri()

    def close(self) -> None:
        os.close(self._end)
