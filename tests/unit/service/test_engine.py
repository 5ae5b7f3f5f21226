"""The engine of a daemon: snapshots and uploads side by side, storage asked only for work, room in the outbox."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chatkeep.daemon.service.engine.engine import Engine
from chatkeep.daemon.service.errors import NotReady
from chatkeep.daemon.state import StateBusy
from chatkeep.providers.base import Unavailable
from chatkeep.providers.folder import FolderProvider
from tests.support.engines import MIB, PATIENCE, Home, until, untroubled
from tests.support.sources import fill
from tests.support.trees import describe


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


class Halt:
    """A step that stops its thread where `when` says so, until it is let go."""

    def __init__(self, when: Callable[[], bool]) -> None:
        self._when = when
        self.reached = threading.Event()
        self.go = threading.Event()
        self.steps: list[tuple[str, int, int | None]] = []

    def __call__(self, what: str, done: int, total: int | None) -> None:
        self.steps.append((what, done, total))
        if not self.reached.is_set() and self._when():
            self.reached.set()
            assert self.go.wait(PATIENCE)


def newest(engine: Engine, source: str = "chat") -> int:
    return next(one.seq for one in engine.standing().sources if one.name == source)


def test_a_snapshot_and_its_upload(home: Home) -> None:
    fill(home.source / "a.db", 50)
    home.write("photo", 3000)
    with home.open() as engine:
        made = engine.snapshot("chat")
        assert (made.error, made.made) == (None, 1)
        assert made.captured is not None
        assert made.captured.last_seq == 1
        waiting = engine.backlog()
        assert waiting["one"] == waiting["two"] > 3000
        steps: list[tuple[str, int, int | None]] = []
        sent = engine.upload("one", lambda *step: steps.append(step))
        assert (sent.bytes, sent.problems, sent.cancelled) == (waiting["one"], (), False)
        assert steps[-1] == ("to one", waiting["one"], waiting["one"])
        assert engine.waiting()[1] == waiting["one"]  # the other one still lacks it
        assert engine.upload("two").bytes == waiting["two"]
        assert engine.waiting() == (0, 0)
        assert list((home.config.state_dir / "outbox").glob("*[0-9a-f]")) == []
        assert engine.snapshot("chat").made == 0
    for name in home.stores:
        assert describe(home.restore(f"from {name}", provider=name)) == describe(home.source)


def test_messages_come_first_and_restore_while_the_rest_is_pending(home: Home) -> None:
    fill(home.source / "messages.db", 50)
    for number in range(5):
        home.write(f"video {number}", MIB, age=100.0 * number)
    with home.open() as engine, ThreadPoolExecutor(1) as pool:
        halt = Halt(lambda: newest(engine) == 1)
        snapshot = pool.submit(engine.snapshot, "chat", halt)
        try:
            assert halt.reached.wait(PATIENCE)
            assert engine.upload("one").problems == ()
            (first,) = home.snapshots()
            assert first.manifest.pending >= 3
            found = describe(home.restore("early", first))
            whole = describe(home.source)
            assert found[b"messages.db"] == whole[b"messages.db"]
            assert found[b"video 0"] == whole[b"video 0"]  # the newest
            assert b"video 4" not in found or found[b"video 4"] != whole[b"video 4"]
            assert not snapshot.done()
        finally:
            halt.go.set()
        done = snapshot.result(PATIENCE)
        assert done.made == newest(engine) > 3
        engine.upload("one")
    assert describe(home.restore("late")) == describe(home.source)


def test_one_snapshot_of_a_source_at_a_time_and_two_sources_side_by_side(tmp_path: Path) -> None:
    home = Home(tmp_path, more=("work",))
    home.write("a", 3 * MIB)
    home.write("b", 1000, source="work")
    with home.open() as engine, ThreadPoolExecutor(2) as pool:
        halt, second = Halt(lambda: True), Halt(bool)
        first = pool.submit(engine.snapshot, "chat", halt)
        try:
            assert halt.reached.wait(PATIENCE)
            assert engine.snapshot("work").made == 1
            waits = pool.submit(engine.snapshot, "chat", second)
            until(lambda: waits.running(), "the second snapshot is asked for")
            assert second.steps == []
        finally:
            halt.go.set()
        assert first.result(PATIENCE).made >= 1
        assert waits.result(PATIENCE).made == 0
        assert second.steps != []


def test_one_upload_to_a_provider_at_a_time_and_two_providers_side_by_side(home: Home) -> None:
    for number in range(3):
        home.write(str(number), MIB)
    with home.open() as engine, ThreadPoolExecutor(2) as pool:
        engine.snapshot("chat")
        total = engine.backlog()["one"]
        halt = Halt(lambda: True)
        first = pool.submit(engine.upload, "one", halt)
        try:
            assert halt.reached.wait(PATIENCE)
            assert engine.upload("two").bytes == total
            second = pool.submit(engine.upload, "one")
            until(lambda: second.running(), "the second upload is asked for")
        finally:
            halt.go.set()
        assert first.result(PATIENCE).bytes + second.result(PATIENCE).bytes == total
        assert sum(home.stores["one"].sent.values()) == total


def test_what_is_idle_asks_no_storage(home: Home) -> None:
    home.write("a", 1000)
    with home.open() as engine:
        assert not home.calls()
        engine.snapshot("chat")
        assert home.calls()["put"] == 0
        for name in home.stores:
            engine.upload(name)
        home.forget_calls()
        home.seconds += 100_000
        for _ in range(3):
            for name in home.stores:
                assert engine.upload(name).problems == ()
            engine.backlog()
            engine.sweep()
            engine.take_news()
            assert not engine.standing().full
        assert not home.calls()
        home.seconds += 1
        engine.snapshot("chat")  # there is work: storage is asked, once in a while
        asked = home.calls()
        assert asked["list"] > 0
        engine.snapshot("chat")
        home.write("b", 1000)
        engine.snapshot("chat")
        assert home.calls() == asked


def test_a_full_outbox_loses_nothing(home: Home) -> None:
    fill(home.source / "messages.db", 50)
    for number in range(6):
        home.write(f"{number}", MIB)
    home.limit(2 * MIB)
    with home.open() as engine:
        stopped = engine.snapshot("chat")
        assert stopped.error is not None
        assert stopped.error.code == "outbox-full"
        assert stopped.made == newest(engine) >= 1
        standing = engine.standing()
        assert standing.full
        assert (fault := standing.sources[0].fault) is not None
        assert fault.code == "outbox-full"
        again = engine.snapshot("chat")  # nothing is begun
        assert (again.made, again.error is not None) == (0, True)
        for _ in range(20):
            for name in home.stores:
                assert engine.upload(name).problems == ()
            assert not engine.standing().full
            if engine.snapshot("chat").error is None:
                break
        standing = engine.standing()
        assert standing.sources[0].complete
        assert standing.sources[0].fault is None
        for name in home.stores:
            engine.upload(name)
    assert describe(home.restore("out")) == describe(home.source)


def test_a_provider_that_is_away_lags_and_catches_up(home: Home) -> None:
    def away(verb: str, name: str) -> None:
        raise Unavailable(provider="two", reason="test")

    home.write("a", 1000)
    home.stores["two"].before = away
    with home.open() as engine:
        engine.snapshot("chat")
        assert engine.upload("one").problems == ()
        failed = engine.upload("two")
        assert [problem.code for problem in failed.problems] == ["unavailable"]
        home.write("b", 1000)
        engine.snapshot("chat")
        engine.upload("one")
        one, two = engine.standing().providers
        assert (one.waiting, one.behind_ns, one.fault, one.frontiers) == (0, None, None, {"chat": 2})
        assert one.acknowledged_ns == engine.standing().sources[0].taken_ns
        assert (two.acknowledged_ns, two.frontiers) == (None, {"chat": 0})
        assert two.waiting == engine.backlog()["two"] > 2000
        assert two.behind_ns is not None
        assert one.acknowledged_ns is not None
        assert two.behind_ns < one.acknowledged_ns  # of the first snapshot
        assert two.fault is not None
        assert (two.fault.code, two.fault.params) == ("unavailable", {"provider": "two"})
        home.stores["two"].before = untroubled
        assert engine.upload("two").problems == ()
        two = engine.standing().providers[1]
        assert (two.waiting, two.behind_ns, two.fault, two.frontiers) == (0, None, None, {"chat": 2})
        assert engine.waiting() == (0, 0)
    assert describe(home.restore("out", provider="two")) == describe(home.source)


def test_an_old_trouble_is_over_when_the_provider_answers_although_nothing_waits(home: Home) -> None:
    with home.open() as engine:
        engine._state.outbox.note_upload("one", 1, "unavailable")
        assert engine.standing().providers[0].fault is not None
        assert engine.upload("one").problems == ()
        assert engine.standing().providers[0].fault is None


def test_a_snapshot_that_is_cancelled_keeps_what_it_committed(home: Home) -> None:
    for number in range(4):
        home.write(str(number), MIB)
    with home.open() as engine:
        report = engine.snapshot("chat", cancelled=lambda: newest(engine) == 2)
        assert (report.captured, report.error, report.made) == (None, None, 2)
        assert engine.snapshot("chat").made >= 1
        assert engine.standing().sources[0].complete


def test_an_upload_that_is_cancelled_goes_on_where_it_was(home: Home) -> None:
    for number in range(4):
        home.write(str(number), MIB)
    with home.open() as engine:
        engine.snapshot("chat")
        total = engine.backlog()["one"]
        store = home.stores["one"]
        first = engine.upload("one", cancelled=lambda: store.calls["put"] >= 2)
        assert first.cancelled
        assert 0 < first.bytes < total
        second = engine.upload("one")
        assert first.bytes + second.bytes == total == sum(store.sent.values())


def test_the_records_are_of_one_engine_and_free_after_it(home: Home) -> None:
    with home.open() as engine:
        with pytest.raises(StateBusy):
            home.open()
        engine.close()
        for call in (engine.standing, lambda: engine.snapshot("chat"), lambda: engine.upload("one"), engine.sweep):
            with pytest.raises(NotReady):
                call()
    home.open().close()


def test_everything_at_once(tmp_path: Path) -> None:
    """Two sources, two providers, and whoever asks: in the end all of it is everywhere, and nothing was sent twice."""
    home = Home(tmp_path, more=("work",))
    over = threading.Event()
    failures: list[object] = []

    def repeat(work: Callable[[], object]) -> None:
        while not over.is_set():
            try:
                work()
            except BaseException as exc:
                failures.append(exc)
                raise

    def upload(name: str) -> None:
        if engine.backlog()[name]:
            result = engine.upload(name)
            failures.extend(result.problems)

    def further(before: int) -> bool:
        return newest(engine, "work") > before or bool(failures)

    with home.open(look_every=0.0) as engine, ThreadPoolExecutor(6) as pool:
        jobs: list[Callable[[], object]] = [engine.sweep, engine.standing]
        jobs += [functools.partial(engine.snapshot, name) for name in ("chat", "work")]
        jobs += [functools.partial(upload, name) for name in home.stores]
        running = [pool.submit(repeat, job) for job in jobs]
        try:
            for number in range(12):
                fill(home.source / "messages.db", 5, seed=number)
                home.write(f"{number}", MIB // 2, source="work")
                until(functools.partial(further, newest(engine, "work")), "another snapshot")
        finally:
            over.set()
        for job in running:
            job.result(PATIENCE)
        assert failures == []
        for source in ("chat", "work"):
            engine.snapshot(source)
        for name in home.stores:
            upload(name)
        assert engine.waiting() == (0, 0)
        news = engine.take_news()
        assert (news.notices, news.findings, news.renewed) == ([], [], [])
    for name, store in home.stores.items():
        assert all(store.stat(each).size == size for each, size in store.sent.items()), "sent more than once"
        for source in ("chat", "work"):
            snapshot = home.snapshots(name, source)[0]
            assert describe(home.restore(f"{source} from {name}", snapshot, name)) == describe(home.room / source)


def test_a_folder_takes_the_very_files_while_snapshots_go_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    adopted: set[int] = set()
    adopt = FolderProvider.adopt

    def adopting(self: FolderProvider, name: str, path: Path) -> bool:
        number = path.stat().st_ino
        done = adopt(self, name, path)
        if done:
            adopted.add(number)
        return done

    monkeypatch.setattr(FolderProvider, "adopt", adopting)
    for number in range(8):
        home.write(str(number), MIB, age=60.0 * number)
    with home.open_for_real() as engine, ThreadPoolExecutor(3) as pool:
        snapshot = pool.submit(engine.snapshot, "chat")

        def send(name: str) -> int:
            uploads = 0
            while not snapshot.done() or engine.backlog()[name]:
                sent = engine.upload(name)
                assert sent.problems == ()
                uploads += sent.objects > 0
            return uploads

        uploads = [pool.submit(send, name) for name in home.stores]
        assert snapshot.result(PATIENCE).made > 6
        assert max(each.result(PATIENCE) for each in uploads) > 1
        assert engine.waiting() == (0, 0)
    packs = [list((home.room / name).glob("d/*/p/*/*")) for name in home.stores]
    files = {path.stat().st_ino for found in packs for path in found}
    assert len(files) == len(packs[0]) + len(packs[1])  # two copies that are one would be no two copies
    assert files & adopted
    for name in home.stores:
        assert describe(home.restore(f"from {name}", provider=name)) == describe(home.source)
