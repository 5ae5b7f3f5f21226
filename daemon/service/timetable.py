"""When which job is due. Pure.

The wall clock is asked when the daemon starts: how long ago was the last run. From then on time is that of
`Moment.boot`, which nobody sets and which counts sleep, so that a wall clock that jumps, by hours or by years, neither
loses a run nor causes one. When it has jumped, what the next daemon is to read is put right. A last run in the future
counts as one of just now, and is noted so: else a device that is started every day would wait for that future.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chatkeep.config.amounts import NEVER, Every
from chatkeep.daemon.service.job_notes import JobNote, JobResult, Outcome
from chatkeep.daemon.service.moment import Moment

FIRST: Final = 600.0
"""Seconds until a job runs that never did, if its interval is not shorter: the first backup goes first."""

RETRY_FIRST: Final = 900.0
"""Seconds until one that could not be done is tried again; doubled each time, up to its interval."""

AGAIN: Final = 60.0
"""Seconds until one that was put off is due again. It then waits for whatever it needs, but it never spins."""

_DOUBLINGS: Final = 20
_DRIFT_NS: Final = 60 * 10**9  # what a clock may be adjusted by without a word


@dataclass(slots=True)
class _Job:
    every: Every
    since: float  # `Moment.boot` from which its interval counts; may lie before the machine started
    note: JobNote
    told: bool = False

    @property
    def due_at(self) -> float | None:
        return None if self.every >= NEVER else self.since + self.every


class Timetable:
    """Every job's interval, last run and next time."""

    def __init__(self, every: Mapping[str, Every], notes: Mapping[str, JobNote], now: Moment) -> None:
        self._jobs: dict[str, _Job] = {}
        for name, span in every.items():
            self._adopt(name, span, notes.get(name), now)

    @property
    def notes(self) -> Mapping[str, JobNote]:
        """What is to be remembered."""
        return {name: job.note for name, job in self._jobs.items()}

    @property
    def wake_at(self) -> float | None:
        """When the next one is due (seconds of `Moment.boot`); None: none will be before something ends or changes."""
        times = [job.due_at for job in self._jobs.values() if not job.told and job.due_at is not None]
        return min(times, default=None)

    def settle(self, now: Moment) -> bool:
        """Whether the wall clock was set since: what is to be remembered is then what it would have shown."""
        changed = False
        for job in self._jobs.values():
            counts_ns = now.wall_ns - int((now.boot - job.since) * 1e9)
            if abs(counts_ns - job.note.counts_ns) > _DRIFT_NS:
                job.note = dataclasses.replace(job.note, counts_ns=counts_ns)
                changed = True
        return changed

    def due(self, now: Moment) -> tuple[str, ...]:
        """The jobs whose time has come, each told once until it has `ended` or `change`; who waited longest first."""
        found = [
            (job.due_at, name)
            for name, job in self._jobs.items()
            if not job.told and job.due_at is not None and job.due_at <= now.boot
        ]
        for _, name in found:
            self._jobs[name].told = True
        return tuple(name for _, name in sorted(found))

    def next_at(self, name: str) -> float | None:
        """When it is due (seconds of `Moment.boot`); it may have passed when it waits for something. None: never."""
        return self._jobs[name].due_at if name in self._jobs else None

    def every(self, name: str) -> Every:
        """Its interval."""
        return self._jobs[name].every

    def change(self, every: Mapping[str, Every], now: Moment) -> None:
        """Other intervals from now on, counted from the same runs. Whatever is due by them is told again."""
        before, self._jobs = self._jobs, {}
        for name, span in every.items():
            job = before.get(name)
            if job is None:
                self._adopt(name, span, None, now)
            else:
                self._jobs[name] = dataclasses.replace(job, every=span, told=False)

    def ended(self, name: str, result: JobResult, seconds: float, now: Moment) -> JobNote | None:
        """A run ended, whoever asked for it, after so many seconds. What to remember; None for a job that is none."""
        job = self._jobs.get(name)
        if job is None:
            return None
        job.told = False
        if result.outcome is Outcome.PUT_OFF:
            # Only put off if it was due: one that was asked for before its time keeps that.
            job.since = max(job.since, now.boot - max(0.0, job.every - AGAIN))
            return job.note
        failures = job.note.failures + 1 if result.outcome is Outcome.FAILED else 0
        wait = float(job.every)
        if failures:
            wait = min(wait, RETRY_FIRST * 2.0 ** min(failures - 1, _DOUBLINGS))
        job.since = now.boot - (job.every - wait)
        good = result.outcome is Outcome.GOOD
        job.note = JobNote(
            counts_ns=now.wall_ns - int((job.every - wait) * 1e9),
            last_ns=now.wall_ns,
            seconds=round(seconds, 3),
            good_ns=now.wall_ns if good else job.note.good_ns,
            outcome=result.outcome,
            code=result.code,
            params=dict(result.params),
            figures=dict(result.figures),
            checked_ns={**job.note.checked_ns, **dict.fromkeys(result.checked, now.wall_ns)},
            failures=failures,
        )
        return job.note

    def _adopt(self, name: str, every: Every, note: JobNote | None, now: Moment) -> None:
        if note is None:
            # Noted at once: a daemon that never runs for ten minutes would else never come to it.
            note = JobNote(counts_ns=now.wall_ns - int(max(0.0, every - FIRST) * 1e9))
        elif note.counts_ns > now.wall_ns:
            note = dataclasses.replace(note, counts_ns=now.wall_ns)
        self._jobs[name] = _Job(every, now.boot - (now.wall_ns - note.counts_ns) / 1e9, note)
