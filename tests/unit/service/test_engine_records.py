"""What an engine finds out about its device and its records while it works, and what it does then."""

from __future__ import annotations

import contextlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.service.engine import capturing
from chatkeep.daemon.service.engine.sharing import Sharing
from chatkeep.daemon.state import State, StateDamaged
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.providers.base import Unavailable
from tests.support.engines import MIB, PATIENCE, Home, until, untroubled
from tests.support.sources import fill
from tests.support.trees import describe

LONG = 1000.0  # seconds; a look at storage is due


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def backed_up(home: Home) -> None:
    """One snapshot, everywhere."""
    home.write("first", 1000)
    with home.open() as engine:
        assert engine.snapshot("chat").made == 1
        for name in home.stores:
            assert engine.upload(name).problems == ()


def test_new_keys_are_used_once_they_are_seen(home: Home) -> None:
    backed_up(home)
    with home.open() as engine:
        home.write("a", 1000)
        engine.snapshot("chat")
        home.rotate()
        home.write("b", 1000)
        engine.snapshot("chat")  # storage was asked a moment ago
        assert engine.standing().epoch == 1
        home.seconds += LONG
        home.write("c", 1000)
        engine.snapshot("chat")
        assert engine.standing().epoch == engine.take_news().epoch == 2
        assert engine.take_news().epoch is None
        for name in home.stores:
            engine.upload(name)
    assert [one.header.epoch for one in home.snapshots()] == [2, 1, 1, 1]
    assert WriterCredential.load(home.config.state_dir / "chatkeep-writer").epoch == 2
    assert describe(home.restore("out")) == describe(home.source)


def test_new_keys_are_used_from_the_next_bounded_snapshot_on(home: Home) -> None:
    for number in range(5):
        home.write(f"video {number}", MIB)
    changed = threading.Event()

    def step(_what: str, done: int, _total: int | None) -> None:
        if done > 2 * MIB and not changed.is_set():
            home.rotate()
            home.seconds += LONG
            changed.set()

    with home.open() as engine:
        report = engine.snapshot("chat", step)
        assert changed.is_set()
        assert report.error is None
        assert report.captured is not None
        assert report.made == report.captured.snapshots == report.captured.last_seq >= 5
        assert report.captured.new_bytes == 5 * MIB
        assert engine.upload("one").problems == ()
    epochs = [one.header.epoch for one in home.snapshots()]
    assert epochs == sorted(epochs, reverse=True)
    assert set(epochs) == {1, 2}
    assert describe(home.restore("out")) == describe(home.source)


def test_a_device_that_was_removed_writes_nothing_more(home: Home) -> None:
    backed_up(home)
    with home.open() as engine:
        home.write("a", 1000)
        engine.snapshot("chat")
        home.rotate(remove=[home.device_id])
        home.seconds += LONG
        home.forget_calls()
        home.write("b", 1000)
        report = engine.snapshot("chat")
        assert report.error is not None
        assert (report.error.code, report.made) == ("device-removed", 0)
        assert [problem.code for problem in engine.upload("one").problems] == ["device-removed"]
        assert home.calls()["put"] == 0
        standing = engine.standing()
        assert standing.sources[0].fault is not None
        assert standing.providers[0].fault is not None
        assert standing.sources[0].fault.code == standing.providers[0].fault.code == "device-removed"


@pytest.mark.parametrize("rest", ["nothing", "a backlog"])
def test_a_copy_that_wrote_elsewhere_ends_the_chain_while_it_runs(home: Home, rest: str) -> None:
    backed_up(home)
    shutil.copytree(home.config.state_dir, home.room / "image")
    with home.open() as engine:
        assert engine.snapshot("chat").made == 0
        write_elsewhere(home)
        if rest == "a backlog":
            home.write("mine", 1000)
            assert engine.snapshot("chat").made == 1  # the other one's number, and it must not arrive
        home.seconds += LONG
        home.write("after", 1000)
        if rest == "a backlog":
            assert engine.upload("one").problems == ()
        report = engine.snapshot("chat")
        assert report.error is None
        news = engine.take_news()
        assert [notice.code for notice in news.notices] == ["state-copied"]
        assert news.renewed == []
        for name in home.stores:
            assert engine.upload(name).problems == ()
        assert engine.waiting() == (0, 0)
        outbox = home.config.state_dir / "outbox"
        assert [path for path in outbox.iterdir() if path.is_file()] == [], "what was given up takes room"
    reader = home.reader()
    assert len(list(reader.streams())) == 2  # none of them forked: `snapshots` says so
    assert describe(home.restore("out", home.snapshots()[0])) == describe(home.source)


def write_elsewhere(home: Home) -> None:
    """The copy of the state directory is used on another machine: snapshot 2 is its."""
    away = home.room / "real"
    home.config.state_dir.rename(away)
    shutil.copytree(home.room / "image", home.config.state_dir)
    home.write("elsewhere", 1000)
    with home.open() as engine:
        assert engine.snapshot("chat").made == 1
        for name in home.stores:
            assert engine.upload(name).problems == ()
    shutil.rmtree(home.config.state_dir)
    away.rename(home.config.state_dir)
    (home.source / "elsewhere").unlink()


def test_what_a_provider_that_was_away_knows_is_asked_before_anything_is_sent_to_it(home: Home) -> None:
    backed_up(home)
    shutil.copytree(home.config.state_dir, home.room / "image")
    write_elsewhere(home)

    def away(verb: str, name: str) -> None:
        raise Unavailable(provider="two", reason="test")

    shutil.rmtree(home.room / "one" / "d")  # only `two` knows
    home.stores["two"].before = away
    home.write("mine", 1000)
    with home.open() as engine:
        assert engine.snapshot("chat").error is None
        home.stores["two"].before = untroubled
        home.forget_calls()
        assert [problem.code for problem in engine.upload("two").problems] == ["state-copied"]
        assert home.stores["two"].calls["put"] == 0
        assert engine.snapshot("chat").error is None
        assert [notice.code for notice in engine.take_news().notices] == ["state-copied"]
        assert engine.upload("two").problems == ()
    assert describe(home.restore("out", home.snapshots("two")[0], "two")) == describe(home.source)


def test_records_that_are_gone_wait_for_a_person(home: Home) -> None:
    backed_up(home)
    for path in home.config.state_dir.iterdir():
        if path.name != "chatkeep-writer":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with home.open() as engine:
        report = engine.snapshot("chat")
        assert report.error is not None
        assert report.error.code == "state-lost"
        home.forget_calls()
        assert [problem.code for problem in engine.upload("one").problems or [report.error]] == ["state-lost"]
        assert engine.snapshot("chat", anew=True).made == 1
        assert [notice.code for notice in engine.take_news().notices] == ["state-lost"]
        for name in home.stores:
            assert engine.upload(name).problems == ()
    assert describe(home.restore("out", home.snapshots()[0])) == describe(home.source)


def test_what_rots_in_the_outbox_is_given_up_and_sent_anew(home: Home) -> None:
    fill(home.source / "a.db", 50)
    with home.open() as engine:
        engine.snapshot("chat")
        pack = max(outbox_files(home), key=lambda path: path.stat().st_size)
        body = bytearray(pack.read_bytes())
        body[100] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(body)
        result = engine.upload("one")
        assert [problem.code for problem in result.problems] == ["outbox-damaged"]
        assert engine.take_news().renewed == ["chat"]
        assert outbox_files(home) == []
        assert engine.snapshot("chat").made == 1
        for name in home.stores:
            assert engine.upload(name).problems == ()
    assert describe(home.restore("out")) == describe(home.source)


def test_what_somebody_removed_from_the_outbox_is_found_at_the_start(home: Home) -> None:
    fill(home.source / "a.db", 50)
    with home.open() as engine:
        engine.snapshot("chat")
    for path in outbox_files(home):
        path.unlink()
    with home.open() as engine:
        assert engine.take_news().renewed == ["chat"]
        assert engine.snapshot("chat").made == 1
        engine.upload("one")
    assert describe(home.restore("out")) == describe(home.source)


def outbox_files(home: Home) -> list[Path]:
    return [path for path in (home.config.state_dir / "outbox").iterdir() if path.is_file()]


def test_records_that_are_damaged_are_moved_aside_when_they_are_opened(home: Home) -> None:
    backed_up(home)
    (home.config.state_dir / "state.db").write_bytes(b"no database" * 1000)
    with home.open() as engine:
        (notice,) = engine.take_news().notices
        assert notice.code == "state-moved-aside"
        assert Path(str(notice.params["path"])).read_bytes().startswith(b"no database")
        report = engine.snapshot("chat")
        assert report.error is not None
        assert report.error.code == "state-lost"


def test_records_that_turn_out_to_be_damaged_are_moved_aside_when_it_ends(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(home)
    engine = home.open()

    def rotten(*_: object) -> None:
        raise StateDamaged(path="state.db", reason="malformed", for_good=True)

    with monkeypatch.context() as patch:
        patch.setattr(capturing, "back_up", rotten)
        with pytest.raises(StateDamaged):
            engine.snapshot("chat")
    with pytest.raises(StateDamaged):
        engine.standing()
    moved = engine.close()
    assert moved is not None
    assert Path(str(moved.params["path"])).exists()
    with home.open() as another:
        report = another.snapshot("chat")
        assert report.error is not None
        assert report.error.code == "state-lost"


def test_a_trouble_with_the_records_is_raised_and_is_no_report(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise StateDamaged(path="state.db", reason="locked", for_good=False)

    with home.open() as engine:
        monkeypatch.setattr(State, "note_backup", refused)
        with pytest.raises(StateDamaged):
            engine.snapshot("chat")
        assert engine.standing().sources[0].seq == 1  # it stands, and the engine goes on
        assert engine.close() is None


def test_who_is_sent_to_is_not_asked_what_it_has(home: Home) -> None:
    """What arrives meanwhile would pass for another copy's."""
    home.write("a", 1000)
    halted, go = threading.Event(), threading.Event()

    def halt(verb: str, _name: str) -> None:
        if verb == "put":
            halted.set()
            assert go.wait(PATIENCE)

    with home.open() as engine, ThreadPoolExecutor(1) as pool:
        engine.snapshot("chat")
        home.stores["one"].before = halt
        upload = pool.submit(engine.upload, "one")
        try:
            assert halted.wait(PATIENCE)
            for store in home.stores.values():
                store.listed.clear()
            engine.look(now=True)
            lineage = {name: store.asked_for("d/") for name, store in home.stores.items()}
            assert lineage["one"] == 0 < lineage["two"]
        finally:
            go.set()
        assert upload.result(PATIENCE).problems == ()
        assert engine.take_news().notices == []


def test_an_upload_lets_go_for_what_is_done_alone_and_goes_on(home: Home) -> None:
    for number in range(4):
        home.write(str(number), MIB)
    epochs: list[int] = []

    def watch(verb: str, _name: str) -> None:
        if verb == "put":
            if not epochs:
                begun.set()
                until(lambda: engine._sharing.wanted, "somebody wants to be alone")
            epochs.append(engine.standing().epoch)

    begun = threading.Event()
    with home.open() as engine, ThreadPoolExecutor(2) as pool:
        engine.snapshot("chat")
        total = engine.backlog()["one"]
        home.stores["one"].before = watch
        upload = pool.submit(engine.upload, "one")
        assert begun.wait(PATIENCE)
        home.rotate()
        look = pool.submit(engine.look, now=True)
        look.result(PATIENCE)
        assert (upload.result(PATIENCE).bytes, upload.result().cancelled) == (total, False)
        assert epochs == [1] + [2] * (len(epochs) - 1)
        assert sum(home.stores["one"].sent.values()) == total


def test_keys_are_not_exchanged_in_the_middle_of_a_snapshot(home: Home) -> None:
    home.write("a", 3 * MIB)
    halted, go = threading.Event(), threading.Event()

    def halt(*_: object) -> None:
        halted.set()
        assert go.wait(PATIENCE)

    with home.open() as engine, ThreadPoolExecutor(2) as pool:
        snapshot = pool.submit(engine.snapshot, "chat", halt)
        try:
            assert halted.wait(PATIENCE)
            home.rotate()
            look = pool.submit(engine.look, now=True)
            until(lambda: engine._sharing.wanted, "the new keys wait")
            assert engine.standing().epoch == 1
            assert not look.done()
        finally:
            go.set()
        look.result(PATIENCE)
        assert snapshot.result(PATIENCE).error is None
        assert engine.standing().epoch == 2
        assert engine.upload("one").problems == ()
    assert describe(home.restore("out")) == describe(home.source)


def test_a_look_that_takes_long_is_made_less_often(home: Home) -> None:
    def slow(_verb: str, _name: str) -> None:
        home.seconds += 10

    backed_up(home)
    with home.open() as engine:
        for store in home.stores.values():
            store.before = slow
        home.forget_calls()
        engine.look()
        asked = home.calls()
        took = 10 * asked.total()
        for seconds, is_due in ((90 * took, False), (11 * took, True)):
            home.seconds += seconds
            engine.snapshot("chat")
            assert (home.calls() != asked) is is_due


@pytest.mark.parametrize("waits_for", ["a snapshot", "an upload", "a look", "storage"])
def test_every_wait_can_be_cancelled(home: Home, waits_for: str) -> None:
    """And asks for it again and again, which is how it shows that it is alive."""
    home.write("a", 1000)
    asked = [0]
    lock: threading.Lock | None = None

    def stop() -> bool:
        asked[0] += 1
        return asked[0] > 2

    with home.open() as engine, contextlib.ExitStack() as stack:
        if waits_for == "a snapshot":
            lock = engine._sources["chat"][1]
        elif waits_for == "an upload":
            assert engine.snapshot("chat").made == 1
            lock = engine._places["one"].lock
        elif waits_for == "a look":
            lock = engine._looks._mutex
        if lock is not None:
            stack.enter_context(lock)
        if waits_for == "an upload":
            assert engine.upload("one", cancelled=stop).cancelled
        else:
            report = engine.snapshot("chat", cancelled=stop)
            assert (report.captured, report.error, report.made) == (None, None, 0)
        assert asked[0] == 3
        stack.close()
        engine.snapshot("chat")
        assert engine.standing().sources[0].complete


# -- who may work beside whom -----------------------------------------------------------------------------------------


def test_who_wants_to_be_alone_goes_first_and_waits_for_the_others() -> None:
    sharing, order = Sharing(), list[str]()
    inside, leave, wants = threading.Event(), threading.Event(), threading.Event()

    def together() -> None:
        with sharing.together():
            inside.set()
            assert leave.wait(PATIENCE)
            order.append("first")

    def alone() -> None:
        assert inside.wait(PATIENCE)
        wants.set()
        with sharing.alone():
            order.append("alone")

    def later() -> None:
        assert wants.wait(PATIENCE)
        until(lambda: sharing.wanted, "somebody wants to be alone")
        leave_soon = threading.Timer(0.05, leave.set)
        leave_soon.start()
        with sharing.together():
            order.append("later")
        leave_soon.join()

    with ThreadPoolExecutor(3) as pool:
        for job in [pool.submit(each) for each in (together, alone, later)]:
            job.result(PATIENCE)
    assert order == ["first", "alone", "later"]
    assert not sharing.wanted


def test_who_waits_can_be_told_to_stop() -> None:
    sharing = Sharing()
    with sharing.together():
        with pytest.raises(Cancelled), sharing.alone(lambda: True):
            raise AssertionError("beside another")
        assert not sharing.wanted
        with sharing.together():
            pass
    with sharing.alone(), pytest.raises(Cancelled), sharing.together(lambda: True):
        raise AssertionError("beside who is alone")


def test_another_disk_in_the_place_of_one_that_failed_is_sent_nothing(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    home, foreign = Home(tmp_path / "here", ("one",)), Home(tmp_path / "there", ("one",))
    home.write("a", 1000)
    folder = home.room / "one"
    with home.open() as engine:
        engine.snapshot("chat")
        assert not engine.upload("one").problems
        home.write("b", 1000)
        engine.snapshot("chat")
        folder.rename(home.room / "away")
        assert [problem.code for problem in engine.upload("one").problems] == ["storage-missing"]
        (foreign.room / "one").rename(folder)  # no time passes: a look is not due
        before = engine.backlog()["one"]
        assert before
        result = engine.upload("one")
        assert result.problems
        assert result.objects == 0
        assert engine.backlog()["one"] == before
        folder.rename(foreign.room / "one")
        (home.room / "away").rename(folder)
        assert not engine.upload("one").problems
        assert engine.backlog()["one"] == 0
    assert [one.header.seq for one in home.snapshots()] == [2, 1]
