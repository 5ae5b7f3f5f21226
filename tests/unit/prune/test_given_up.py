"""What must live and is in no storage any more: told, and given up by a person alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator

import pytest

from chatkeep.config.amounts import Amount
from chatkeep.daemon.backup.anew import begin_anew
from chatkeep.daemon.prune.errors import PruneRefused
from chatkeep.providers import base
from tests.support.thinning import DAY, Home, days, kept
from tests.unit.prune.test_ways_out import FEW, NOTHING

WEEK = 7 * DAY
SIX = dataclasses.replace(FEW, minimum=Amount(6))


def manifest(home: Home, seq: int) -> str:
    return next(name for name in home.storages[0].own("/s/") if f"/{seq:012}-" in name)


def lose(home: Home, *names: str) -> None:
    for storage in home.storages:
        for name in names:
            del storage.objects[name]


def refused(home: Home, *, give_up: bool = False) -> str:
    with pytest.raises(PruneRefused) as caught:
        home.prune(give_up=give_up)
    return str(caught.value.params["reason"])


def told(home: Home) -> list[tuple[int, int]]:
    """What a plan would give up."""
    with home.state() as state:
        return [(gap.first, gap.last) for gap in home.plan(state, give_up=True).lost.gaps]


def test_a_gap_is_given_up_when_somebody_says_so_and_never_else(home: Home) -> None:
    lose(home, *(manifest(home, seq) for seq in (3, 8, 9)))
    before = dict(home.storages[0].objects)
    for _ in range(2):
        assert refused(home) == "lost"
    assert home.storages[0].objects == before
    plan = home.prune(SIX, give_up=True)
    assert [(gap.source, gap.first, gap.last) for gap in plan.lost.gaps] == [("chat", 8, 9), ("chat", 3, 3)]
    assert all(gap.clocks.keys() == {gap.first, gap.last} for gap in plan.lost.gaps)
    assert home.check() == [20, 19, 18, 17, 16, 15]
    assert told(home) == []
    home.prune(SIX)  # nobody needs to say it twice
    home.world.pass_(WEEK)
    assert [one.problem for one in home.sweep(policy=SIX)] == [None, None]
    days(home, 2)
    home.prune(FEW)
    assert home.check() == [24]


def test_only_what_was_found_is_kept_of_what_a_checkpoint_keeps(home: Home) -> None:
    home.prune(SIX)
    lose(home, manifest(home, 17), manifest(home, 15))
    assert refused(home) == "lost"
    assert sorted(told(home)) == [(15, 15), (17, 17)]
    home.prune(SIX, give_up=True)
    assert home.check() == [20, 19, 18, 16, 14, 13], "and two are taken back for them"


def test_damaged_everywhere_is_lost_and_damaged_at_one_is_not(home: Home) -> None:
    name = manifest(home, 5)
    disk, cloud = home.storages
    whole = disk.objects[name]
    disk.objects[name] = whole[:-1] + b"?"
    assert refused(home, give_up=True) == "storage"
    cloud.objects[name] = disk.objects[name]
    assert refused(home) == "lost"
    home.prune(SIX, give_up=True)
    home.prune(SIX)
    home.world.pass_(WEEK)
    home.sweep(policy=SIX)
    assert name not in disk.objects.keys() | cloud.objects.keys()
    assert home.check() == [20, 19, 18, 17, 16, 15]


def test_checkpoints_and_records_lost_together(home: Home) -> None:
    home.prune(SIX)
    home.world.pass_(WEEK)
    home.sweep(policy=SIX)
    left = home.check()
    shutil.rmtree(home.room / "state")
    lose(home, *home.storages[0].own("/c/"))
    assert refused(home) == "lost"
    assert told(home) == [(1, 14)]
    plan = home.prune(SIX, give_up=True)
    assert plan.checkpoint is not None
    assert home.check() == left


def test_of_a_stream_that_ended_the_gap_may_end_it_or_be_all_of_it(home: Home) -> None:
    home.prune(SIX)
    with home.state() as state:
        begin_anew(state, state.lineage.active(), [one.name for one in home.storages])
    days(home, 1)
    lost = [manifest(home, seq) for seq in (20, 19)]
    lose(home, *lost)
    assert refused(home) == "lost"
    home.prune(SIX, give_up=True)
    assert set(kept(home)) & {19, 20} == set()
    lose(home, *(name for name in home.storages[0].own("/s/") if name.startswith(lost[0].rpartition("/")[0])))
    assert refused(home) == "lost"
    home.prune(NOTHING, give_up=True)
    assert kept(home) == [2]
    home.prune(NOTHING)


def test_while_a_storage_is_away_nothing_is_given_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(home, manifest(home, 3))
    fired = []

    def away(prefix: str) -> Iterator[base.ObjectStat]:
        fired.append(prefix)
        raise base.Unavailable(provider="cloud")

    monkeypatch.setattr(home.storages[1], "list", away)
    assert refused(home, give_up=True) == "away"
    assert fired


def test_what_is_no_loss_is_not_given_up(home: Home) -> None:
    """A second manifest of one number, or a pack that is gone."""
    for storage in home.storages:
        for name in storage.own("/p/"):
            storage.objects[name] = storage.objects[name][:-9] + b"?" + storage.objects[name][-8:]
    lose(home, manifest(home, 3))
    with pytest.raises(Exception) as caught:
        home.prune(give_up=True)
    assert caught.value.code in ("unreadable", "prune-refused")  # type: ignore[attr-defined]
    assert not home.storages[0].own("/c/")
