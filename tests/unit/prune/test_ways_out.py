"""What could lose data at a prune, or keep from pruning for ever."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from chatkeep.config.amounts import Amount, Duration
from chatkeep.config.model import Retention, Source
from chatkeep.daemon.backup.anew import begin_anew, heal, stands_on
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.prune.errors import PruneRefused
from chatkeep.daemon.state.outbox import NOTHING_LOST
from chatkeep.daemon.sync.errors import LackingWhatLives
from tests.support.thinning import DAY, NONE, Home, days, kept

WEEK = 7 * DAY
ONE = Amount(1)
NOTHING = Retention(Duration(0), NONE, NONE, NONE, NONE, NONE, NONE, Duration(7 * 86_400))
FEW = dataclasses.replace(NOTHING, minimum=ONE)


class Enough(Exception):
    """One snapshot was made."""


def enough() -> None:
    raise Enough


def ended(home: Home) -> None:
    """The streams end; what the storages have of them is known."""
    with home.state() as state:
        begin_anew(state, state.lineage.active(), [one.name for one in home.storages])


def test_records_from_before_the_last_prune_prune_nothing(home: Home) -> None:
    """Another prune by them would hide from every backup that they are old."""
    shutil.copytree(home.room / "state", home.room / "image")
    assert home.prune(FEW).checkpoint is not None
    shutil.rmtree(home.room / "state")
    (home.room / "image").rename(home.room / "state")
    with pytest.raises(PruneRefused) as caught:
        home.prune(FEW)
    assert caught.value.params["reason"] == "records"


def test_a_storage_that_lacks_what_lives_deletes_nothing(home: Home) -> None:
    """Left out of the configuration for some days, and taken in again: it never gets what came between."""
    disk, cloud = home.storages
    before = cloud.own("/s/")
    home.storages = [disk]
    days(home, 6)
    home.storages = [disk, cloud]
    days(home, 1)
    home.prune(FEW)
    home.world.pass_(WEEK)
    at_disk, at_cloud = home.sweep(policy=FEW)
    assert (at_disk.problem, at_cloud.objects) == (None, 0)
    assert at_disk.objects > 0
    assert isinstance(at_cloud.problem, LackingWhatLives)
    assert before <= cloud.own("/s/")
    calls = cloud.calls
    home.sweep(cloud, asked=False, policy=FEW)
    assert cloud.calls == calls, "asked again at once"
    for name in disk.own("d/"):
        cloud.put(name, disk.objects[name])
    assert home.sweep(cloud, policy=FEW)[0].problem is None
    assert cloud.own("d/") == disk.own("d/")
    assert home.check(cloud) == home.check(disk)


def test_what_waits_is_sent_when_a_capsule_fails(home: Home) -> None:
    """What is sealed and whole is not given up: the source may not have it any more."""
    (home.source / "gone").write_bytes(os.urandom(20_000))
    home.back_up(send=[])
    (home.source / "gone").unlink()
    waiting = home.back_up(send=[]).last_seq
    with home.state() as state:
        needed = stands_on(state, state.stream("chat").stream)
        made = state.pruning.objects().items()
        name = next(name for name, (sha256, _, waits) in made if sha256 in needed and not waits)
        with state._connection.transaction() as db:
            db.execute("INSERT OR REPLACE INTO capsules VALUES(?,?,'unsealable')", (name, b"x"))
        assert heal(state, [one.name for one in home.storages]) == ["chat"]
        assert state.outbox.recover() == []
        home.send(state, home.storages)
        assert state.outbox.waiting() == (0, 0)
    assert kept(home, home.storages[1])[:2] == [waiting, waiting - 1]
    home.back_up()
    assert len(home.read()[0].streams()) == 2


def test_what_waits_before_what_is_lost_is_sent(home: Home) -> None:
    for _ in range(3):
        home.write("note", os.urandom(500))
        home.back_up(send=[])
    with home.state() as state:
        lost = next(item for item in state.outbox.queue("disk") if item.seq == 22 and not item.is_manifest)
        lost.path.unlink()
        (stream,) = state.outbox.recover()
        assert (state.outbox.lost_from(stream), state.outbox.lost_from(b"another")) == (22, NOTHING_LOST)
        begin_anew(state, [stream], ["disk", "cloud"], {stream: state.outbox.lost_from(stream)})
        assert state.outbox.recover() == []
        home.send(state, home.storages)
    assert home.check() == list(range(21, 0, -1))


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("where", [1, 2], ids=["one", "all"])
def test_a_checkpoint_that_storage_lost_is_sent_again(home: Home, where: int, damaged: bool) -> None:
    home.prune()
    home.world.pass_(WEEK)
    home.sweep()
    left = home.check()
    days(home, 2)
    for storage in home.storages[:where]:
        (name,) = storage.own("/c/")
        if damaged:
            storage.objects[name] = storage.objects[name][:-1] + b"?"
        else:
            del storage.objects[name]
    home.prune(FEW)
    assert len(home.check()) < len(left)
    home.world.pass_(WEEK)
    assert [one.problem for one in home.sweep(policy=FEW)] == [None, None]
    assert [len(one.own("/s/")) for one in home.storages] == [1, 1]


def test_two_checkpoints_of_one_number_are_made_one(home: Home, tmp_path: Path) -> None:
    """Two that use copies of the same records, each at another storage."""
    disk, cloud = home.storages
    twin = dataclasses.replace(home, room=tmp_path / "twin")
    shutil.copytree(home.room, twin.room)
    cloud.away = True
    home.prune(FEW)
    cloud.away, disk.away = False, True
    twin.prune(dataclasses.replace(FEW, minimum=Amount(3)))
    disk.away = False
    assert len({*disk.own("/c/"), *cloud.own("/c/")}) == 2
    plan = home.prune(FEW)
    assert plan.checkpoint is not None
    assert plan.checkpoint.number == 2
    assert home.check() == [20]
    with home.state() as state:
        again = home.plan(state, FEW)
    assert again.checkpoint is None
    home.world.pass_(WEEK)
    home.sweep(policy=FEW)
    assert [one.own("/s/") for one in home.storages] == [disk.own("/s/")] * 2
    assert home.check(cloud) == home.check(disk) == [20]
    with pytest.raises(PruneRefused) as caught:
        twin.prune(FEW)
    assert caught.value.params["reason"] == "records"


def test_of_streams_that_ended_the_newest_whole_snapshot_stays(home: Home) -> None:
    """The one after it ended before it was whole: no other has everything."""
    ended(home)
    for name in ("film", "song"):
        home.write(name, os.urandom(100_000))
    for _ in range(2):
        with home.state() as state:
            state.known.clear()
            writer = Writer(home.credential, state, clock=home.clock, budget=1, between=enough)
            with pytest.raises(Enough):
                back_up(writer, Source(home.source, name="chat"))
            home.send(state, home.storages)
        home.world.pass_(DAY)
        ended(home)
    home.prune(NOTHING)
    assert 20 in kept(home)
