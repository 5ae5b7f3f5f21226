"""Jobs: each is a command in a process of its own, which needs no more of the daemon than anybody's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.inputs import Input
from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.standing import Doing

PATIENCE: Final = 2.0
"""Seconds for a job that is told to end. It stops at a safe point, and loses nothing when it is killed."""
MOST_SAID: Final = 4 * 1024 * 1024


class Errands:
    """For the thread of the loop.

    Args:
        command: the command line that does a job; it says how it went as `--json` has it.
        ended: called with the name of a job and the code of what went wrong, None: nothing.
    """

    def __init__(
        self,
        command: Callable[[str], Sequence[str]],
        bus: Bus,
        tell: Callable[[Input], None],
        ended: Callable[[str, str | None], None],
    ) -> None:
        self._command, self._bus, self._tell, self._ended = command, bus, tell, ended
        self._running: dict[str, int] = {}

    @property
    def doing(self) -> tuple[Doing, ...]:
        """What runs."""
        return tuple(Doing("job", name, since) for name, since in self._running.items())

    async def run(self, name: str) -> None:
        """Does a job. Cancelled, it is told to end."""
        self._running[name] = time.time_ns()
        self._bus.publish(Event.now(Kind.JOB_BEGUN, job=name))
        code: str | None = "cancelled"
        try:
            code = await self._run(name)
        finally:
            del self._running[name]
            if code is None:
                self._bus.publish(Event.now(Kind.JOB_DONE, job=name))
            else:
                self._bus.publish(Event.now(Kind.JOB_FAILED, job=name, code=code))
            self._ended(name, code)
            self._tell(inputs.JobEnded(name, code is not None))

    async def _run(self, name: str) -> str | None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=MOST_SAID,
            )
        except OSError as exc:
            return f"system-{os.strerror(exc.errno or 0)}"
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await process.wait()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        return None if process.returncode == 0 else _code(said, process.returncode or 0)


def _code(said: bytes, status: int) -> str:
    """The code of the error that a command told, or how it ended."""
    try:
        return str(json.loads(said)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return f"exit-{status}"
