"""Jobs: each is a command in a process of its own, which needs no more of the daemon than anybody's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.inputs import Input
from chatkeep.daemon.service.errors import JobEndless
from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.job_notes import JobResult, Outcome
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.standing import Doing

PATIENCE: Final = 2.0
"""Seconds for a job that is told to end. It stops at a safe point, and loses nothing when it is killed."""
LONGEST: Final = 24 * 3600.0
"""Seconds awake for one job. One that hangs in storage would hold up every other for good."""
MOST_SAID: Final = 4 * 1024 * 1024
_FOUND: Final = 1
_INTEGRITY: Final = 5
_PUT_OFF: Final = frozenset({3, 6})  # it was locked meanwhile, or told to end


class Errands:
    """For the thread of the loop.

    Args:
        command: the command line that does a job; it says how it went as `--json` has it.
        ended: called with the name of a job, what it came to, and how many seconds it took.
        longest: seconds, and a job is ended.
    """

    def __init__(
        self,
        command: Callable[[str], Sequence[str]],
        bus: Bus,
        tell: Callable[[Input], None],
        ended: Callable[[str, JobResult, float], None],
        longest: float = LONGEST,
    ) -> None:
        self._command, self._bus, self._tell, self._ended = command, bus, tell, ended
        self._longest = longest
        self._running: dict[str, int] = {}

    @property
    def doing(self) -> tuple[Doing, ...]:
        """What runs."""
        return tuple(Doing("job", name, since) for name, since in self._running.items())

    async def run(self, name: str) -> None:
        """Does a job. Cancelled, it is told to end, and put off."""
        self._running[name] = time.time_ns()
        begun = now().boot
        self._bus.publish(Event.now(Kind.JOB_BEGUN, job=name))
        result = JobResult(Outcome.PUT_OFF, "cancelled")
        try:
            result = await self._run(name)
        finally:
            del self._running[name]
            if result.outcome is Outcome.GOOD:
                self._bus.publish(Event.now(Kind.JOB_DONE, job=name))
            else:
                self._bus.publish(Event.now(Kind.JOB_FAILED, job=name, code=result.code))
            self._ended(name, result, now().boot - begun)
            self._tell(inputs.JobEnded(name, result.outcome is not Outcome.GOOD))

    async def _run(self, name: str) -> JobResult:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=MOST_SAID,
            )
        except OSError as exc:
            return JobResult(Outcome.FAILED, "system", {"errno": exc.errno or 0})
        try:
            async with asyncio.timeout(self._longest):
                said, _ = await process.communicate()
        except TimeoutError:
            await _end(process)
            return JobResult(Outcome.FAILED, JobEndless.code, {"hours": round(self._longest / 3600)})
        except asyncio.CancelledError:
            await _end(process)
            raise
        return judged(process.returncode or 0, said)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Tells it to end, and then makes it."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def judged(status: int, said: bytes) -> JobResult:
    """What a command came to, by its exit code and by what it said with `--json` (docs/commands.md)."""
    try:
        value = json.loads(said)
    except ValueError:
        value = {}
    value = value if isinstance(value, dict) else {}
    checked = tuple(str(one["name"]) for one in _rows(value, "providers") if one.get("error", 0) is None)
    if status == 0:
        return JobResult(Outcome.GOOD, checked=checked)
    code = next(_codes(value), f"exit-{status}")
    if status in _PUT_OFF:
        return JobResult(Outcome.PUT_OFF, code)
    # A drill that came to its end and found databases that were not whole before is done: again in a quarter of an hour
    # it would find the same.
    trials = value.get("sources")
    tried = isinstance(trials, list) and all(isinstance(one, dict) and one.get("error", 0) is None for one in trials)
    done = status == _INTEGRITY or checked or (status == _FOUND and tried and trials and "error" not in value)
    return JobResult(Outcome.BAD if done else Outcome.FAILED, code, checked=checked)


def _codes(value: Any) -> Iterator[str]:
    """The codes of every error in it, as it is read."""
    if isinstance(value, dict):
        if isinstance(value.get("code"), str):
            yield value["code"]
        for inner in value.values():
            yield from _codes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _codes(inner)


def _rows(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = value.get(name)
    return [row for row in rows if isinstance(row, dict) and "name" in row] if isinstance(rows, list) else []
