"""Calls when a job is due: APScheduler waits, `timetable` decides.

APScheduler sleeps on a clock that stands still while the machine does, and then compares what the wall clock says with
the time that it was given. So, as measured: a time that passed during a sleep is not noticed before something else
wakes it, and is then missed unless no grace is set (`misfire_grace_time=None`); after the wall clock was set back by a
year it sleeps for a year, a job that is to run every minute included. Therefore it is woken on resume, what it is given
is made anew each time from the clock that nobody sets, and the beat is a timer of the event loop and no job of its own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.date import DateTrigger  # type: ignore[import-untyped]

from chatkeep.config.amounts import NEVER, Every
from chatkeep.config.model import Config
from chatkeep.daemon.service.conducting.conductor import JobTerms
from chatkeep.daemon.service.job_notes import JobNotes, JobResult
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.moment import now as real_now
from chatkeep.daemon.service.standing import Fault, JobStanding
from chatkeep.daemon.service.timetable import Timetable

BEAT: Final = 60.0
"""Seconds between two looks at the clock, should nothing be due."""

_SHORTEST: Final = 0.01  # the two clocks do not tick alike; early by a hair, it must not spin
_LONGEST: Final = 86_400.0  # seconds that APScheduler is asked to wait; a date of a century ahead may not exist

COMPARE, VERIFY, DRILL, PRUNE = "compare", "verify", "drill", "prune"

TERMS: Final[Mapping[str, JobTerms]] = {
    COMPARE: JobTerms(compares=True),
    VERIFY: JobTerms(),
    DRILL: JobTerms(session=True),
    # A command of its own, which asks for the state directory like any other: it must be lent while this job runs.
    PRUNE: JobTerms(session=True),
}
"""What each job needs."""


def intervals(config: Config) -> dict[str, Every]:
    """How often each job runs by itself. Sources are compared by their own pace (`watch.compare_every`)."""
    jobs = config.jobs
    return {VERIFY: jobs.verify.every, DRILL: jobs.drill.every, PRUNE: jobs.prune.every}


class Schedule:
    """For the thread of the loop, from `start` to `close`.

    Args:
        notes: what earlier runs came to.
        due: called with the name of a job whose time has come; once, until it has `ended` or they `change`.
        now: the clock.
    """

    def __init__(
        self,
        every: Mapping[str, Every],
        notes: JobNotes,
        due: Callable[[str], None],
        now: Callable[[], Moment] = real_now,
    ) -> None:
        self._notes, self._due, self._now = notes, due, now
        self._table: Final = Timetable(every, notes.read(), now())
        # UTC: a job every day is one every 24 hours, also when the clocks are changed.
        self._waiting: Final = AsyncIOScheduler(
            timezone=dt.UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._next_beat: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """Begins; what is overdue is told at once."""
        self._notes.write(self._table.notes)
        self._waiting.start()
        self.beat()

    def close(self) -> None:
        """Nothing is told any more. What `ended` later is remembered all the same."""
        self._closed = True
        if self._next_beat is not None:
            self._next_beat.cancel()
        if self._waiting.running:
            self._waiting.shutdown(wait=False)

    def beat(self) -> None:
        """Tells what is due. To be called when the machine slept or the clock was set, and harmless at other times."""
        if self._closed:
            return
        if self._next_beat is not None:
            self._next_beat.cancel()
        self._next_beat = asyncio.get_running_loop().call_later(BEAT, self.beat)
        if self._table.settle(self._now()):
            self._notes.write(self._table.notes)
        for name in self._table.due(self._now()):
            self._due(name)
        self._wait()

    def resumed(self) -> None:
        """The machine slept."""
        self.beat()
        self._waiting.wakeup()

    def change(self, every: Mapping[str, Every]) -> None:
        """Other intervals from now on. What is due by them is told, also if it was."""
        self._table.change(every, self._now())
        self._notes.write(self._table.notes)
        self.beat()

    def ended(self, name: str, result: JobResult, seconds: float) -> None:
        """A run ended, whoever asked for it."""
        if self._table.ended(name, result, seconds, self._now()) is not None:
            self._notes.write(self._table.notes)
            self.beat()

    def checked_ns(self) -> dict[str, int]:
        """When each provider was last verified to the end (wall clock, as it was then)."""
        note = self._table.notes.get(VERIFY)
        return dict(note.checked_ns) if note is not None else {}

    def standing(self, waiting: tuple[str, ...] = ()) -> tuple[JobStanding, ...]:
        """Every job; `waiting`: those that are due and wait for something."""
        at = self._now()
        found = []
        for name, note in self._table.notes.items():
            every, next_at = self._table.every(name), self._table.next_at(name)
            fault = None
            if note.code is not None:
                fault = Fault(note.code, dict(note.params), note.last_ns)
            found.append(
                JobStanding(
                    name=name,
                    every_s=None if every >= NEVER else float(every),
                    next_ns=None if next_at is None else at.wall_ns + int((next_at - at.boot) * 1e9),
                    last_ns=note.last_ns,
                    due=name in waiting,
                    fault=fault,
                )
            )
        return tuple(found)

    async def _time(self) -> None:
        self.beat()  # a coroutine: APScheduler runs anything else in a thread

    def _wait(self) -> None:
        wake = self._table.wake_at
        if wake is None:
            if self._waiting.get_job("next") is not None:
                self._waiting.remove_job("next")
            return
        seconds = min(max(_SHORTEST, wake - self._now().boot), _LONGEST)
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        self._waiting.add_job(self._time, DateTrigger(at), id="next", replace_existing=True)
