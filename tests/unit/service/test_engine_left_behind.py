"""A provider that is not required and stays away: the outbox does not fill for its sake, and it is brought up later."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from chatkeep.config.amounts import Size
from chatkeep.config.running import OutboxConfig
from chatkeep.daemon.service.engine import once
from chatkeep.daemon.service.engine.engine import Engine
from chatkeep.daemon.service.engine.report import Report
from chatkeep.daemon.service.engine.steps import unwatched
from chatkeep.daemon.service.errors import OutboxFull
from chatkeep.daemon.state import Outbox
from chatkeep.daemon.state.glance import Glance
from chatkeep.providers.base import StorageMissing, Unavailable
from chatkeep.providers.folder import FolderProvider
from tests.support.engines import MIB, Home, untroubled
from tests.support.trees import describe

LIMIT = 2 * MIB


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """`one` must have everything, `two` need not."""
    made = Home(tmp_path)
    made.limit(LIMIT)
    optional(made, "two")
    return made


def optional(home: Home, *names: str) -> None:
    providers = [dataclasses.replace(one, required=one.name not in names) for one in home.config.providers]
    home.config = dataclasses.replace(home.config, providers=tuple(providers))


class Away:
    """A storage that does not answer, for as long as it is `gone`; counts how often it was asked."""

    def __init__(self, home: Home, name: str) -> None:
        self.name, self.gone, self.fired = name, True, 0
        home.stores[name].before = self

    def __call__(self, _verb: str, _name: str) -> None:
        if self.gone:
            self.fired += 1
            raise Unavailable(provider=self.name)


def work(engine: Engine, home: Home, number: int) -> None:
    """A photo of about half a MiB, and everything sent that can be."""
    home.write(f"photo {number}", MIB // 2)
    made = engine.snapshot("chat")
    assert made.error is None, number
    assert made.made, number
    for name in home.stores:
        engine.upload(name)


def work_often(engine: Engine, home: Home, count: int) -> None:
    for number in range(count):
        work(engine, home, number)


def behind(home: Home) -> set[str]:
    with Glance(home.config.state_dir) as glance:
        return {name for name in home.stores if glance.provider(name).left_behind is not None}


def held(home: Home, name: str) -> set[str]:
    return {found.name for found in FolderProvider(name, home.room / name).list("d/")}


def test_it_does_not_stop_captures_and_is_brought_up_when_it_is_back(home: Home) -> None:
    away = Away(home, "two")
    with home.open() as engine:
        for number in range(8):  # 4 MiB: twice what may wait
            work(engine, home, number)
            assert engine.waiting()[1] <= LIMIT // 2 + MIB
        assert away.fired >= 8
        assert behind(home) == {"two"}
        assert held(home, "two") == set()
        assert engine.backlog()["two"] > 4 * MIB  # what left the outbox too
        figures = {one.name: one for one in engine.standing().providers}
        assert (figures["one"].left_behind_ns, figures["two"].waiting) == (None, engine.backlog()["two"])
        assert figures["two"].left_behind_ns is not None
        assert figures["two"].behind_ns is not None

        away.gone = False
        puts: list[str] = []
        home.stores["two"].before = lambda verb, name: puts.append(name) if verb == "put" else None
        sent = engine.upload("two")
        assert (sent.problems, sent.cancelled) == ((), False)
        assert engine.backlog() == {"one": 0, "two": 0}
        assert behind(home) == set()
        assert engine.waiting() == (0, 0)
        assert [int(name[-77:-65]) for name in puts if "/s/" in name] == list(range(1, 9))
        assert len(puts) == len(set(puts)) == sent.objects
        work(engine, home, 8)
    assert held(home, "two") == held(home, "one")
    assert describe(home.restore("from two", provider="two")) == describe(home.source)


def test_what_no_required_one_has_stays(home: Home) -> None:
    required, other = Away(home, "one"), Away(home, "two")
    other.gone = False
    with home.open() as engine:
        for number in range(9):
            home.write(f"photo {number}", MIB // 2)
            made = engine.snapshot("chat")
            for name in home.stores:
                engine.upload(name)
            if made.error is not None:
                break
        assert isinstance(made.error, OutboxFull)
        assert required.fired
        assert behind(home) == set()
        assert engine.backlog()["two"] == 0
        required.gone = False
        engine.upload("one")
        assert engine.waiting() == (0, 0)
        work(engine, home, number + 1)
    assert describe(home.restore("from one", provider="one")) == describe(home.source)


def test_killed_before_room_was_made_there_is_room_after_the_start(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that must have everything has it, so nobody sends to it again, and the other one stays away."""
    required, other = Away(home, "one"), Away(home, "two")
    with home.open() as engine:
        for number in range(9):
            home.write(f"photo {number}", MIB // 2)
            made = engine.snapshot("chat")
            if made.error is not None:
                break
        assert isinstance(made.error, OutboxFull)
        required.gone = False
        with monkeypatch.context() as killed:
            killed.setattr(Engine, "_let_go", lambda _: None)  # the fault: that is not reached
            assert engine.upload("one").problems == ()
        assert engine.waiting()[1] > LIMIT
    with home.open() as engine:
        assert engine.backlog()["one"] == 0
        assert [one.code for one in engine.upload("two").problems] == ["unavailable"]
        assert engine.snapshot("chat").error is None
        assert behind(home) == {"two"}
    assert other.fired


def test_of_providers_none_of_which_is_required_one_has_it(home: Home) -> None:
    optional(home, "one", "two")
    away = Away(home, "two")
    with home.open() as engine:
        for number in range(8):
            work(engine, home, number)
        assert away.fired
        assert behind(home) == {"two"}
        # Now the one that has everything is away: what it lacks is let go by nobody.
        Away(home, "one")
        away.gone = False
        before = engine.waiting()[1]
        home.write("photo 8", MIB // 2)
        assert engine.snapshot("chat").made == 1
        sent = engine.upload("two")
        assert [one.code for one in sent.problems] == ["unavailable"]  # what it lacks only the other has
        assert engine.waiting()[1] > before
        home.stores["one"].before = untroubled
        for name in home.stores:
            assert engine.upload(name).problems == ()
        assert engine.waiting() == (0, 0)
    for name in home.stores:
        assert describe(home.restore(f"from {name}", provider=name)) == describe(home.source)


def test_one_that_is_slow_is_stopped_before_its_files_go(home: Home) -> None:
    """Its upload reads the very files that are to leave."""
    reached, go = threading.Event(), threading.Event()

    def slow(verb: str, name: str) -> None:
        if verb == "put" and "/p/" in name and not reached.is_set():
            reached.set()
            assert go.wait(60)

    with home.open() as engine:
        work(engine, home, 0)
        home.stores["two"].before = slow
        home.write("photo 1", MIB // 2)
        engine.snapshot("chat")
        ends: list[object] = []
        thread = threading.Thread(target=lambda: ends.append(engine.upload("two")))
        thread.start()
        assert reached.wait(60)
        for number in range(2, 8):
            home.write(f"photo {number}", MIB // 2)
            made = engine.snapshot("chat")
            engine.upload("one")
            if made.error is not None:
                break
        assert isinstance(made.error, OutboxFull)  # nothing of what is on its way leaves
        go.set()
        thread.join(60)
        assert [(one.problems, one.cancelled) for one in ends] == [((), False)]  # type: ignore[attr-defined]
        assert engine.backlog()["two"] == 0
        assert behind(home) == set()
        assert engine.snapshot("chat").error is None
        for name in home.stores:
            assert engine.upload(name).problems == ()
    assert describe(home.restore("from two", provider="two")) == describe(home.source)


def test_cut_off_it_goes_on_where_it_was(home: Home) -> None:
    away = Away(home, "two")
    with home.open() as engine:
        for number in range(8):
            work(engine, home, number)
    away.gone = False
    sent: list[str] = []

    def breaks(verb: str, name: str) -> None:
        if verb == "put":
            sent.append(name)
            if len(sent) % 4 == 0:
                raise StorageMissing(provider="two")

    home.stores["two"].before = breaks
    for _ in range(20):
        with home.open() as engine:  # by another process each time
            if not engine.upload("two").problems:
                break
    assert behind(home) == set()
    assert len(sent) > 16
    repeated = [name for name in set(sent) if sent.count(name) > 1]
    assert len(repeated) == len(sent) // 4  # what was cut off, and nothing else
    assert held(home, "two") == held(home, "one")


def test_a_damaged_copy_is_not_copied(home: Home) -> None:
    """The one whole copy is nowhere: neither it nor what stands on it arrives, and that is told."""
    away = Away(home, "two")
    with home.open() as engine:
        for number in range(8):
            work(engine, home, number)
        pack = max((home.room / "one").rglob("p/*/*"), key=lambda path: path.stat().st_mtime_ns)
        pack.chmod(0o600)
        whole = pack.read_bytes()
        pack.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        away.gone = False
        sent = engine.upload("two")
        assert [one.code for one in sent.problems] == ["nowhere-whole"]
        assert behind(home) == {"two"}
        assert not any(pack.name in name for name in held(home, "two"))
        manifests = [name for name in held(home, "two") if "/s/" in name]
        assert 1 <= len(manifests) < 8
        pack.write_bytes(whole)  # somebody has a copy of that disk
        assert engine.upload("two").problems == ()
        assert behind(home) == set()
    assert held(home, "two") == held(home, "one")


def test_a_backup_without_a_daemon_does_the_same(home: Home) -> None:
    gone = (home.room / "two").rename(home.room / "elsewhere")
    limit = OutboxConfig(Size(LIMIT))
    config = dataclasses.replace(home.config, outbox=limit)

    def back_up() -> Report:
        return once.run(config, config.sources, unwatched, bool, lambda _: None, upload=True)

    for number in range(6):
        home.write(f"photo {number}", MIB // 2)
        report = back_up()
        assert report.sources[0].error is None
    assert behind(home) == {"two"}
    assert report.providers[1].waiting[1] > 2 * MIB
    assert report.waiting[1] <= LIMIT // 2
    gone.rename(home.room / "two")
    report = back_up()
    assert report.providers[1].waiting == (0, 0)
    assert report.providers[1].problems == ()
    assert behind(home) == set()
    assert held(home, "two") == held(home, "one")


def test_one_that_was_left_out_of_the_configuration_for_a_time(home: Home) -> None:
    """What left the outbox meanwhile nobody keeps for it; it gets that before anything else."""
    optional(home)
    both = home.config
    with home.open() as engine:
        work(engine, home, 0)
    home.config = dataclasses.replace(both, providers=both.providers[:1])
    two = home.stores.pop("two")
    with home.open() as engine:
        for number in range(1, 4):
            work(engine, home, number)
        assert engine.waiting() == (0, 0)
    home.config, home.stores["two"] = both, two
    with home.open() as engine:
        assert behind(home) == {"two"}
        work(engine, home, 4)
        assert behind(home) == set()
        assert engine.waiting() == (0, 0)
    assert held(home, "two") == held(home, "one")
    assert describe(home.restore("from two", provider="two")) == describe(home.source)


def test_one_that_was_filled_by_hand_is_looked_at_and_not_sent_to(home: Home) -> None:
    optional(home)
    both = home.config
    home.config = dataclasses.replace(both, providers=both.providers[:1])
    two = home.stores.pop("two")
    with home.open() as engine:
        for number in range(4):
            work(engine, home, number)
    shutil.copytree(home.room / "one", home.room / "two", dirs_exist_ok=True)
    home.config, home.stores["two"] = both, two
    with home.open() as engine:
        assert behind(home) == {"two"}
        assert engine.upload("two").problems == ()
        assert two.calls["put"] == 0
        assert behind(home) == set()
        figures = {one.name: one for one in engine.standing().providers}
        assert figures["two"].frontiers == figures["one"].frontiers


def test_killed_between_the_two_steps_nothing_is_missing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on record as left behind before the first object leaves."""
    Away(home, "two")
    cut: list[int] = []
    real = Outbox.release

    def killed(outbox: Outbox, providers: Sequence[str]) -> list[Path]:
        if list(providers) == ["one"]:
            cut.append(1)
            raise KeyboardInterrupt
        return real(outbox, providers)

    with home.open() as engine:
        monkeypatch.setattr(Outbox, "release", killed)
        with pytest.raises(KeyboardInterrupt):
            work_often(engine, home, 8)
        monkeypatch.setattr(Outbox, "release", real)
    assert cut == [1]
    assert behind(home) == {"two"}
    home.stores["two"].before = untroubled
    with home.open() as engine:
        work(engine, home, 8)
        assert behind(home) == set()
        assert engine.waiting() == (0, 0)
    assert held(home, "two") == held(home, "one")
