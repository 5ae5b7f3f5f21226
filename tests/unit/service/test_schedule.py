"""The schedule in a real event loop, with the clocks that a suspended machine has; and what APScheduler alone does."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apscheduler.executors.base  # type: ignore[import-untyped]
import apscheduler.schedulers.base  # type: ignore[import-untyped]
import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]

from chatkeep.config.amounts import NEVER, Every
from chatkeep.config.loader import parse
from chatkeep.daemon.service import schedule
from chatkeep.daemon.service.job_notes import JobNote, JobNotes, JobResult, Outcome
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.schedule import TERMS, Schedule, intervals

HOUR, DAY, YEAR = 3600, 86_400, 366 * 86_400
GOOD = JobResult(Outcome.GOOD)


class Clock:
    """Both clocks, as APScheduler sees them too. What passes here does not pass for the event loop: as in a suspend."""

    def __init__(self) -> None:
        self.wall = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
        self.boot = 1000.0
        self.began = 0.0

    def __call__(self) -> Moment:
        passed = asyncio.get_running_loop().time() - self.began
        wall_ns = int((self.wall.timestamp() + passed) * 1e9)
        return Moment(wall_ns, self.boot + passed)

    def asleep(self, seconds: float) -> None:
        self.wall += dt.timedelta(seconds=seconds)
        self.boot += seconds

    def set_by(self, seconds: float) -> None:
        self.wall += dt.timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()

    class Shown(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return dt.datetime.fromtimestamp(made().wall_ns / 1e9, tz)

    for module in (apscheduler.schedulers.base, apscheduler.executors.base):
        monkeypatch.setattr(module, "datetime", Shown)
    monkeypatch.setattr(schedule, "dt", type("dt", (), {"datetime": Shown, "timedelta": dt.timedelta, "UTC": dt.UTC}))
    return made


async def until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it becomes true in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not true() and loop.time() < end:
        await asyncio.sleep(0.005)
    return true()


async def waiting() -> None:
    """Until APScheduler sleeps: it begins to in one of the next turns of the loop."""
    async for _ in turns():
        pass


async def turns() -> AsyncIterator[None]:
    """Many turns of the loop, for what must not happen in them."""
    for _ in range(50):
        await asyncio.sleep(0.002)
        yield


def run(work: Callable[[Clock], Any], clock: Clock) -> None:
    async def inner() -> None:
        clock.began = asyncio.get_running_loop().time()
        await work(clock)

    asyncio.run(inner())


def made(state_dir: Path, clock: Clock, told: list[str], **every: int) -> Schedule:
    return Schedule({name: Every(span) for name, span in every.items()}, JobNotes(state_dir), told.append, clock)


def noted(state_dir: Path, clock: Clock, **ago: int) -> None:
    wall = clock().wall_ns
    JobNotes(state_dir).write({name: JobNote(wall - span * 10**9, wall - span * 10**9) for name, span in ago.items()})


def test_what_is_overdue_is_told_at_the_start_and_the_rest_when_its_time_comes(tmp_path: Path, clock: Clock) -> None:
    async def work(clock: Clock) -> None:
        told: list[str] = []
        noted(tmp_path, clock, verify=2 * DAY, drill=0)
        one = made(tmp_path, clock, told, verify=DAY, drill=1)
        one.start()
        assert told == ["verify"]
        assert await until(lambda: told == ["verify", "drill"])
        one.close()

    run(work, clock)


def test_a_time_that_passed_in_a_suspend_is_noticed_on_resume(tmp_path: Path, clock: Clock) -> None:
    async def work(clock: Clock) -> None:
        told: list[str] = []
        noted(tmp_path, clock, verify=0)
        one = made(tmp_path, clock, told, verify=6 * HOUR)
        one.start()
        await waiting()
        clock.asleep(8 * HOUR)
        async for _ in turns():
            assert told == []
        one.resumed()
        assert told == ["verify"]
        one.resumed()
        assert told == ["verify"]
        one.close()

    run(work, clock)


def test_nobody_tells_of_the_resume(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(clock: Clock) -> None:
        told: list[str] = []
        monkeypatch.setattr(schedule, "BEAT", 0.05)
        noted(tmp_path, clock, verify=0)
        one = made(tmp_path, clock, told, verify=6 * HOUR)
        one.start()
        await waiting()
        clock.asleep(8 * HOUR)
        assert await until(lambda: told == ["verify"])
        one.close()

    run(work, clock)


@pytest.mark.parametrize("jump", [-YEAR, YEAR, -8 * HOUR, 8 * HOUR])
def test_the_wall_clock_is_set(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    async def work(clock: Clock) -> None:
        told: list[str] = []
        monkeypatch.setattr(schedule, "BEAT", 0.05)
        noted(tmp_path, clock, verify=0)
        one = made(tmp_path, clock, told, verify=6 * HOUR)
        one.start()
        await waiting()
        clock.set_by(jump)
        async for _ in turns():
            assert told == []
        clock.asleep(6 * HOUR)
        assert await until(lambda: told == ["verify"])
        one.close()

    run(work, clock)


def test_what_apscheduler_alone_does_after_the_clock_was_set_back(clock: Clock) -> None:
    """Why the beat is no job of it. The day on which this fails, it can be one."""

    async def work(clock: Clock) -> None:
        beats: list[float] = []

        async def beat() -> None:
            beats.append(asyncio.get_running_loop().time())

        alone = AsyncIOScheduler(timezone=dt.UTC)
        alone.add_job(beat, "interval", seconds=0.05, misfire_grace_time=None)
        alone.start()
        assert await until(lambda: len(beats) >= 2)
        clock.set_by(-YEAR)
        at = asyncio.get_running_loop().time()
        async for _ in turns():
            pass
        assert [beat for beat in beats if beat > at + 0.05] == []
        alone.shutdown(wait=False)

    run(work, clock)


def test_what_apscheduler_alone_does_without_our_settings(clock: Clock) -> None:
    """A time that passed a second ago is not made up for."""

    async def work(clock: Clock) -> None:
        ran: list[str] = []

        async def note(name: str) -> None:
            ran.append(name)

        alone = AsyncIOScheduler(timezone=dt.UTC)
        at = dt.datetime.fromtimestamp(clock().wall_ns / 1e9, dt.UTC) + dt.timedelta(hours=6)
        alone.add_job(note, "date", run_date=at, args=["default"])
        alone.add_job(note, "date", run_date=at, args=["ours"], misfire_grace_time=None)
        alone.start()
        await waiting()
        clock.asleep(8 * HOUR)
        async for _ in turns():
            assert ran == []
        alone.wakeup()
        assert await until(lambda: ran == ["ours"])
        alone.shutdown(wait=False)

    run(work, clock)


def test_a_run_is_remembered_by_the_next_daemon(tmp_path: Path, clock: Clock) -> None:
    async def work(clock: Clock) -> None:
        told: list[str] = []
        one = made(tmp_path, clock, told, verify=DAY)
        one.start()
        (before,) = one.standing()
        assert (before.last_ns, before.fault, before.due) == (None, None, False)
        result = JobResult(Outcome.BAD, "object-damaged", {"provider": "disk"}, {"findings": 2}, ("disk",))
        one.ended("verify", result, 3.0)
        one.ended("no-such-job", GOOD, 3.0)
        wall = clock().wall_ns
        one.close()
        two = made(tmp_path, clock, told, verify=DAY)
        two.start()
        assert told == []
        (after,) = two.standing(("verify",))
        assert after.last_ns == pytest.approx(wall, abs=1e9)
        assert after.next_ns == pytest.approx(wall + DAY * 10**9, abs=1e9)
        assert (after.every_s, after.due) == (DAY, True)
        assert after.fault is not None
        assert (after.fault.code, after.fault.params) == ("object-damaged", {"provider": "disk"})
        assert set(two.checked_ns()) == {"disk"}
        two.close()

    run(work, clock)


def test_a_run_that_ends_with_the_daemon_is_remembered_and_nothing_is_told(tmp_path: Path, clock: Clock) -> None:
    async def work(clock: Clock) -> None:
        told: list[str] = []
        noted(tmp_path, clock, verify=DAY, drill=0)
        one = made(tmp_path, clock, told, verify=DAY, drill=DAY)
        one.start()
        one.close()
        one.ended("verify", JobResult(Outcome.FAILED, "unavailable"), 1.0)
        clock.asleep(2 * DAY)
        one.beat()
        async for _ in turns():
            assert told == ["verify"]
        assert JobNotes(tmp_path).read()["verify"].code == "unavailable"

    run(work, clock)


def test_other_intervals(tmp_path: Path, clock: Clock) -> None:
    async def work(clock: Clock) -> None:
        told: list[str] = []
        noted(tmp_path, clock, verify=HOUR, drill=HOUR)
        one = made(tmp_path, clock, told, verify=DAY, drill=DAY)
        one.start()
        one.change({"verify": Every(HOUR), "drill": NEVER})
        assert told == ["verify"]
        verify, drill = one.standing()
        assert (verify.every_s, drill.every_s, drill.next_ns) == (HOUR, None, None)
        one.change({"drill": NEVER})
        assert [job.name for job in one.standing()] == ["drill"]
        one.close()
        one.close()

    run(work, clock)


def test_what_the_configuration_says() -> None:
    text = "sources: [/a]\nproviders: [{name: d, type: folder, path: /m}]\njobs: {drill: {every: 3d}}\n"
    every = intervals(parse(text, Path("c.yaml")))
    assert every == {"verify": DAY, "drill": 3 * DAY, "prune": NEVER}
    assert set(every) < set(TERMS)
    assert {name for name, terms in TERMS.items() if terms.session} == {"drill", "prune"}
    # A prune asks the daemon for the state directory: one that counted as using it would wait for itself.
    assert not any(terms.inside for terms in TERMS.values())
