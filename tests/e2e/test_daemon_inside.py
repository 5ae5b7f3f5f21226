"""The daemon, seen from within: what it asks of storage, and when."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.service.engine.engine import Engine, Terms
from chatkeep.daemon.service.errors import NoSuchJob, NoSuchSource, NotReady
from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.service.running import tenancy
from chatkeep.daemon.service.standing import Mode
from chatkeep.daemon.state import StateDamaged, StateFull
from chatkeep.providers.folder import FolderProvider
from tests.support.inside import Counted, calls, inside, until
from tests.support.running import configured
from tests.support.station import Station, fill, sql

__all__ = ["calls"]


@pytest.fixture
def at_home(station: Station, monkeypatch: pytest.MonkeyPatch) -> Station:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(station.runtime))
    fill(station.source / "messages.db")
    configured(station, "session: {require_unlock: false}", "tell: {desktop: false}")
    return station


def change(station: Station, text: str) -> None:
    sql(station.source / "messages.db", f"INSERT INTO messages(body) VALUES('{text}')")


def test_with_nothing_to_send_no_provider_is_asked_anything(at_home: Station, calls: list[str]) -> None:
    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)
            assert calls, "nothing was counted"
            await until(lambda: not one.daemon._workers.pieces)
            quiet = len(calls)
            for _ in range(3):
                # Time passes, events come that change nothing, somebody looks how things stand.
                one.daemon._tick()
                one.daemon._hint("chat", True)
                await one.told(Kind.SNAPSHOT_NOTHING, len(one.kinds(Kind.SNAPSHOT_NOTHING)) + 1)
                assert (await one.daemon.standing()).providers[0].waiting == 0
            assert calls[quiet:] == []
            change(at_home, "new")
            await one.told(Kind.UPLOAD_DONE, 2)
            assert len(calls) > quiet

    asyncio.run(play())


def test_a_sleep_that_nobody_told_of_is_noticed(at_home: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatkeep.daemon.service.running import pulse

    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)
            ahead = pulse._ahead()
            monkeypatch.setattr(pulse, "_ahead", lambda: ahead + 3600)
            one.daemon._pulse._beat()
            await one.told(Kind.RESUMED)
            one.daemon._pulse._beat()
            await one.told(Kind.SNAPSHOT_NOTHING)
            assert len(one.kinds(Kind.RESUMED)) == 1

    asyncio.run(play())


def test_a_job_is_a_command_and_its_end_is_remembered(at_home: Station) -> None:
    script = "import json; print(json.dumps({'providers': [{'name': 'disk', 'error': None}]}))"

    async def play() -> None:
        async with inside(at_home) as one:
            await until(lambda: one.daemon._schedule is not None)
            with pytest.raises(NoSuchJob):
                await one.daemon.run_job("dance")
            one.job = lambda _: [sys.executable, "-c", script]
            await one.daemon.run_job("verify")
            assert (await one.told(Kind.JOB_DONE)).values["job"] == "verify"
            jobs = {job.name: job for job in (await one.daemon.standing()).jobs}
            assert jobs["verify"].last_ns is not None
            assert jobs["verify"].fault is None
            one.job = lambda _: [sys.executable, "-c", 'print(\'{"error": {"code": "no-vault"}}\'); exit(4)']
            await one.daemon.run_job("verify")
            assert (await one.told(Kind.JOB_FAILED)).values["code"] == "no-vault"
            jobs = {job.name: job for job in (await one.daemon.standing()).jobs}
            assert jobs["verify"].fault is not None
            await one.daemon.run_job("drill")
            await until(lambda: "drill" in one.daemon._conductor.waiting_jobs())  # nobody unlocked

    asyncio.run(play())
    assert json.loads((at_home.state / "jobs" / "notes.json").read_text())["jobs"]["verify"]["code"] == "no-vault"


def test_a_job_that_runs_when_the_daemon_ends_is_told_to_end_and_put_off(at_home: Station) -> None:
    async def play() -> None:
        async with inside(at_home) as one:
            await until(lambda: one.daemon._schedule is not None)
            one.job = lambda _: [sys.executable, "-c", "import time; time.sleep(600)"]
            await one.daemon.run_job("verify")
            await one.told(Kind.JOB_BEGUN)
            await until(lambda: [doing.subject for doing in one.daemon._errands.doing] == ["verify"])
        assert one.kinds(Kind.JOB_FAILED)[0].values["code"] == "cancelled"

    asyncio.run(play())
    assert json.loads((at_home.state / "jobs" / "notes.json").read_text())["jobs"]["verify"]["last_ns"] is None


def test_what_is_asked_for_amiss_or_at_the_wrong_time_is_refused(at_home: Station) -> None:
    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)
            with pytest.raises(NoSuchSource):
                await one.daemon.backup(["nobody"], lambda *_: None)
            async with one.daemon.lend("prune"):
                assert (await one.daemon.standing()).mode is Mode.LENT
                with pytest.raises(NotReady):
                    await one.daemon.backup([], lambda *_: None)
            assert (await one.daemon.standing()).mode is Mode.RUNNING
        with pytest.raises(NotReady):
            async with one.daemon.lend("prune"):
                pass

    asyncio.run(play())


def test_who_asks_for_the_records_and_goes_away_leaves_them(at_home: Station) -> None:
    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)

            async def borrow() -> None:
                async with one.daemon.lend("prune"):
                    raise AssertionError("it was cancelled before")

            first = asyncio.create_task(borrow())
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await until(lambda: one.daemon._tenancy.engine is not None)
            change(at_home, "on")
            await one.told(Kind.UPLOAD_DONE, 2)

    asyncio.run(play())


def test_a_disk_that_is_full_when_the_records_come_back_is_waited_for(
    at_home: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = Engine.open, list[int]()

    def opened(*config: object) -> object:
        tries.append(1)
        if len(tries) < 3:
            raise StateFull(path="x")
        return real(*config)  # type: ignore[arg-type]

    monkeypatch.setattr(tenancy, "BUSY_AGAIN", 0.01)

    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)
            monkeypatch.setattr(Engine, "open", opened)
            async with one.daemon.lend("prune"):
                pass
            assert [event.values["code"] for event in one.kinds(Kind.PROBLEM) if "again" not in event.values] == [
                "state-full"
            ]
            assert one.kinds(Kind.PROBLEM_OVER)
            change(at_home, "on")
            await one.told(Kind.UPLOAD_DONE, 2)
        assert len(tries) == 3

    asyncio.run(play())


def test_a_daemon_that_cannot_have_its_records_back_ends_and_says_why(
    at_home: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(ChatkeepError):
        code = "gone"

    def opened(*_: object) -> object:
        raise Gone

    async def fail() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)
            monkeypatch.setattr(Engine, "open", opened)
            with pytest.raises(Gone):
                async with one.daemon.lend("prune"):
                    pass
            await one.told(Kind.STOPPING)
            assert one.kinds(Kind.STOPPING)[0].values["reason"] == "failed"

    async def play() -> None:
        with pytest.raises(Gone):
            await fail()

    asyncio.run(play())


def test_records_that_are_damaged_while_it_runs_are_moved_aside_and_begun_anew(at_home: Station) -> None:
    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)
            await until(lambda: not one.daemon._workers.pieces)
            engine = one.daemon._tenancy.engine
            assert engine is not None
            error = StateDamaged(path="state.db", reason="malformed", for_good=True)

            def snapshot(*_: object) -> None:
                engine._damaged = error
                raise error

            engine.snapshot = snapshot  # type: ignore[method-assign,assignment]
            change(at_home, "damaged")
            await one.told(Kind.PROBLEM)
            codes = [event.values.get("code") for event in one.kinds(Kind.PROBLEM)]
            assert "state-moved-aside" in codes
            await until(lambda: one.daemon._tenancy.engine not in {None, engine})
            # The new records know nothing of what is in the vault: that is waited for, as without a daemon.
            await until(lambda: any(event.values["code"] == "state-lost" for event in one.kinds(Kind.SNAPSHOT_FAILED)))

    asyncio.run(play())
    assert (at_home.state / "state.db.damaged-1").exists()


def test_a_mistake_of_ours_in_a_snapshot_is_told_and_does_not_end_it(
    at_home: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)
            complaints: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
            engine = one.daemon._tenancy.engine
            assert engine is not None
            with monkeypatch.context() as patch:
                patch.setattr(engine, "snapshot", lambda *_: 1 // 0)
                change(at_home, "broken")
                assert (await one.told(Kind.SNAPSHOT_FAILED)).values["code"] == "error"
            assert isinstance(complaints[0], ZeroDivisionError)
            one.daemon._hint("chat", True)
            await one.told(Kind.UPLOAD_DONE, 2)

    asyncio.run(play())


def test_counting_sees_every_call() -> None:
    found: list[str] = []

    class Inner:
        name = "x"

        def list(self, prefix: str) -> str:
            return prefix

    counted = Counted(Inner(), found)  # type: ignore[arg-type]
    assert (counted.name, counted.list("v"), found) == ("x", "v", ["list"])


def test_two_sources_are_kept_side_by_side(at_home: Station, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    fill(other / "more.db")
    text = at_home.config.read_text()
    at_home.config.write_text(text.replace(f"  - {at_home.source}\n", f"  - {at_home.source}\n  - {other}\n"))

    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.SNAPSHOT_MADE, 2)
            report = await one.daemon.backup([], lambda *_: None)
            assert [source.name for source in report.sources] == ["chat", "other"]
            assert [provider.problems for provider in report.providers] == [()]
            assert report.waiting == (0, 0)

    asyncio.run(play())


def test_what_a_long_first_backup_has_made_is_sent_while_it_goes_on(
    at_home: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(24):
        (at_home.source / f"{number}.jpg").write_bytes(os.urandom(1 << 20))
    real = Engine.open
    monkeypatch.setattr(Engine, "open", lambda config: real(config, Terms(budget=2 << 20)))

    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.SNAPSHOT_MADE)
            kinds = [event.kind for event in one.events]
            assert Kind.UPLOAD_DONE in kinds[: kinds.index(Kind.SNAPSHOT_MADE)], "everything waited for the end"
            await until(lambda: not one.daemon._work.figures or not one.daemon._conductor.wants("disk"))
            assert (await one.daemon.standing()).providers[0].waiting == 0

    asyncio.run(play())


def test_storage_that_hangs_does_not_keep_the_daemon_from_ending(
    at_home: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    async def play() -> None:
        async with inside(at_home) as one:
            await one.told(Kind.UPLOAD_DONE)
            engine = one.daemon._tenancy.engine
            assert engine is not None
            monkeypatch.setattr(engine, "upload", lambda *_: go.wait(60))
            change(at_home, "more")
            await one.told(Kind.UPLOAD_BEGUN, 2)
            begun = time.monotonic()
            one.daemon.stop("test")
            await until(lambda: one.clean is not None)
            assert time.monotonic() - begun < 5
            assert one.clean is False, "it says that all work came to its end"
        go.set()
        await until(lambda: not one.daemon._workers.pieces)
        await asyncio.to_thread(engine.close)

    asyncio.run(play())


def test_who_waits_for_an_upload_is_told_when_uploads_close(at_home: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locked meanwhile, no upload begins before the next unlock, which may be tomorrow."""
    held, go = threading.Event(), threading.Event()
    real = FolderProvider.put

    def put(provider: FolderProvider, name: str, body: bytes) -> None:
        held.set()
        assert go.wait(60)
        real(provider, name, body)

    async def play() -> None:
        monkeypatch.setattr(FolderProvider, "put", put)
        monkeypatch.setattr(FolderProvider, "adopt", lambda *_: False)
        async with inside(at_home) as one:
            await until(held.is_set)
            change(at_home, "asked for")
            asked = asyncio.create_task(one.daemon.backup([], lambda *_: None))
            await until(lambda: one.daemon._work.uploads._next)
            monkeypatch.setattr(type(one.daemon._keeper.rules), "uploads", property(lambda _: False))
            one.daemon._gate()
            report = await asyncio.wait_for(asked, 30)
            assert [problem.code for problem in report.providers[0].problems] == ["uploads-held"]
            assert not report.cancelled
            go.set()

    asyncio.run(play())
