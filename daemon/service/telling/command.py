"""Notices as JSON on the standard input of a program.

It gets no environment of ours but what programs need to run, for a credential or a socket of the daemon's could be in
there. It has a minute, and its output goes nowhere but into a log at debug level.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Final, NamedTuple

from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.telling.errors import Undelivered
from chatkeep.daemon.service.telling.notice import Notice, Said
from chatkeep.daemon.service.telling.threads import in_thread
from chatkeep.daemon.service.telling.webhook import body_of

SECONDS: Final = 60.0
GRACE: Final = 2.0  # between asking it to end and ending it
KEPT: Final = 16_384  # bytes of its output; the rest is read and forgotten, for a full pipe would stop it
_GLANCE: Final = 0.2  # how often a thread that waits for it looks whether it is to stop
_PASSED_ON: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "TMPDIR"),
        *("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"),
    }
)


class Ended(NamedTuple):
    """How a program ended.

    Attributes:
        status: its exit status; negative: the signal that ended it. None: it was ended for its time was over.
        output: what it wrote at first, to both.
    """

    status: int | None
    output: bytes


class Command:
    """Runs a program with each notice. To be closed."""

    name: Final = "command"

    def __init__(self, arguments: Sequence[str], bus: Bus, seconds: float = SECONDS) -> None:
        self._arguments, self._bus, self._seconds = list(arguments), bus, seconds
        self._stop = threading.Event()

    async def deliver(self, notice: Notice, said: Said) -> None:
        """Runs it once and waits for its end. Raises Undelivered when it failed, or took too long."""
        text = json.dumps(body_of(notice, said)).encode() + b"\n"
        try:
            ended = await in_thread(
                lambda: run(self._arguments, text, environment(os.environ), self._seconds, self._stop)
            )
        except (OSError, ValueError) as exc:
            number = exc.errno if isinstance(exc, OSError) else None
            raise Undelivered(channel=self.name, reason="start", errno=number or 0) from None
        if ended.output:
            shown = {"output": ended.output.decode("utf-8", "replace")}
            self._bus.publish(Event(Kind.COMMAND_ENDED, now(), {"status": ended.status}, shown))
        if ended.status is None:
            raise Undelivered(channel=self.name, reason="silent")
        if ended.status:
            raise Undelivered(channel=self.name, reason="failed", status=ended.status)

    async def close(self) -> None:
        """Ends one that runs."""
        self._stop.set()


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What of an environment is passed on: what is needed to find programs, the user's files and the desktop."""
    passed = {name: text for name, text in ours.items() if name in _PASSED_ON or name.startswith("LC_")}
    return {"PATH": os.defpath, **passed}


def run(
    arguments: Sequence[str], text: bytes, environ: Mapping[str, str], seconds: float, stop: threading.Event
) -> Ended:
    """Runs a program until its end, or that of its time; then it and what it started are killed.

    What it leaves running in the background is not waited for, even if that holds its output.

    Raises OSError or ValueError when it cannot be started.
    """
    end = time.monotonic() + seconds
    child = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin as given, child.stdout as told:
        talk = _Talk(given, told, text)
        while child.poll() is None and time.monotonic() < end and not stop.is_set():
            talk.turn(_GLANCE)
        status = child.poll()
        if status is None:
            _end(child, talk)
        talk.turn(0)
    return Ended(status, bytes(talk.output))


class _Talk:
    """The pipes of a program, none of which blocks."""

    def __init__(self, given: IO[bytes], told: IO[bytes], text: bytes) -> None:
        self.output = bytearray()
        self._given, self._told, self._left = given, told, memoryview(text)
        self._selector = selectors.DefaultSelector()
        for stream, wanted in ((given, selectors.EVENT_WRITE), (told, selectors.EVENT_READ)):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, wanted)

    def turn(self, seconds: float) -> None:
        """Gives and takes what can be, waiting for that up to `seconds`."""
        if not self._selector.get_map():
            time.sleep(seconds)  # it closed everything and goes on
            return
        for key, _ in self._selector.select(seconds):
            with contextlib.suppress(BlockingIOError):
                if key.fileobj is self._given:
                    self._give()
                else:
                    self._take()

    def _give(self) -> None:
        try:
            self._left = self._left[os.write(self._given.fileno(), self._left) :]
        except BrokenPipeError:
            self._left = self._left[:0]  # it does not want to know
        if not self._left:
            self._selector.unregister(self._given)
            self._given.close()

    def _take(self) -> None:
        taken = os.read(self._told.fileno(), 65_536)
        self.output += taken[: KEPT - len(self.output)]
        if not taken:
            self._selector.unregister(self._told)


def _end(child: subprocess.Popen[bytes], talk: _Talk) -> None:
    """Asks everything in its session to end, then makes it."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 60.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        end = time.monotonic() + seconds
        while child.poll() is None and time.monotonic() < end:
            talk.turn(_GLANCE / 4)
        if child.poll() is not None and number == signal.SIGTERM:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # what it started and did not end
            return
