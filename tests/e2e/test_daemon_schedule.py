"""What the daemon does by itself and when, and what it says of that: the jobs of the configuration, and comparing."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.service.job_notes import JobNote, JobNotes
from chatkeep.daemon.service.standing import JobStanding
from tests.support.inside import Inside, inside, until
from tests.support.running import configured
from tests.support.station import Station, fill

QUIET = ("session: {require_unlock: false}", "tell: {desktop: false, unverified_after: never}")
DAY_NS = 86_400 * 10**9
NEVER = "jobs: {drill: {every: never}, verify: {every: never}}"


@pytest.fixture
def at_home(station: Station, monkeypatch: pytest.MonkeyPatch) -> Station:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(station.runtime))
    fill(station.source / "messages.db")
    configured(station, *QUIET)
    return station


async def job(one: Inside, name: str) -> JobStanding:
    (found,) = (row for row in (await one.daemon.standing()).jobs if row.name == name)
    return found


def overdue(station: Station, *names: str) -> None:
    long_ago = time.time_ns() - 1000 * DAY_NS
    JobNotes(station.state).write({name: JobNote(long_ago, long_ago) for name in names})


def test_a_job_that_waits_does_not_run_after_a_reload_to_never(at_home: Station) -> None:
    overdue(at_home, "drill")

    async def play() -> None:
        async with inside(at_home) as one:
            await until(lambda: one.daemon._conductor.waiting_jobs() == ("drill",))  # nobody unlocked
            assert (await job(one, "drill")).due
            configured(at_home, *QUIET, NEVER)
            await one.daemon.reload()
            after = await job(one, "drill")
            assert (after.due, after.next_ns, after.every_s) == (False, None, None)
            one.daemon._tell(inputs.Gate(uploads=True, session=True))
            # What is asked for runs, also what never runs by itself: had the other one waited, it would be first.
            await one.daemon.run_job("prune")
            await one.told(Kind.JOB_BEGUN)
            assert [event.values["job"] for event in one.kinds(Kind.JOB_BEGUN)] == ["prune"]

    asyncio.run(play())


def test_a_job_that_a_person_asked_for_waits_on_and_one_that_runs_comes_to_its_end(at_home: Station) -> None:
    overdue(at_home, "verify")
    go = at_home.state / "go"

    async def play() -> None:
        script = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('{{}}')"
        async with inside(at_home, lambda _: [sys.executable, "-c", script]) as one:
            await one.told(Kind.JOB_BEGUN)
            await one.daemon.run_job("drill")
            configured(at_home, *QUIET, NEVER)
            await one.daemon.reload()
            assert one.daemon._conductor.waiting_jobs() == ("drill",)
            assert [doing.subject for doing in one.daemon._errands.doing] == ["verify"]
            go.touch()
            await one.told(Kind.JOB_DONE)
            assert (await job(one, "verify")).fault is None
            assert len(one.kinds(Kind.JOB_BEGUN)) == 1
            one.daemon._tell(inputs.Gate(uploads=True, session=True))
            assert (await one.told(Kind.JOB_BEGUN, 2)).values["job"] == "drill"

    asyncio.run(play())


def test_comparing_is_told_and_its_result_and_that_is_so_after_a_restart_too(at_home: Station) -> None:
    away = at_home.source.with_name("away")

    async def life(*, there: bool) -> JobStanding:
        async with inside(at_home) as one:
            began = time.time_ns()
            if there:
                await one.told(Kind.UPLOAD_DONE)
                await until(lambda: not one.daemon._workers.pieces)
                row = await job(one, "compare")
                assert (row.fault, row.due, row.every_s) == (None, False, 6 * 3600)
                assert row.last_ns is not None
                assert began <= row.last_ns <= time.time_ns()
                assert row.next_ns is not None
                assert 5 * 3600e9 < row.next_ns - time.time_ns() <= 6 * 3600e9
                at_home.source.rename(away)
                one.daemon._tell(inputs.Resumed())  # the machine slept: everything is compared
            await one.told(Kind.SNAPSHOT_FAILED)
            await until(lambda: not one.daemon._workers.pieces)
            return await job(one, "compare")

    async def play() -> None:
        first = await life(there=True)
        again = await life(there=False)
        for row in (first, again):
            assert row.fault is not None
            assert (row.fault.code, row.fault.params["source"]) == ("source-missing", "chat")
            assert row.next_ns is not None
            assert row.next_ns - time.time_ns() < 900e9, "it is tried again"
        assert first.last_ns is not None
        assert again.last_ns == first.last_ns, "when all was well is no other time for a restart"
        away.rename(at_home.source)
        async with inside(at_home) as one:
            await one.told(Kind.SNAPSHOT_NOTHING)
            row = await job(one, "compare")
            assert row.fault is None
            assert row.last_ns is not None
            assert row.last_ns > first.last_ns

    asyncio.run(play())
