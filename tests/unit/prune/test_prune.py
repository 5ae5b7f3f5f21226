"""Plan, checkpoint, sweep: with the real thing in memory, several storages and a clock that tests set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.thinning import DAY, Home, Storage, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def home(tmp_path: Path, world: World) -> Home:
    return Home.make(tmp_path / "home", world, Storage("disk", world), Storage("cloud", world))


def days(home: Home, count: int, per_day: int = 2) -> None:
    """Snapshots that each replace one file and add nothing."""
    for number in range(count * per_day):
        home.write("note", b"%d " % number * 500)
        home.write(f"photo-{number % 5}", b"photo %d" % number * 3000)
        home.back_up()
        home.world.pass_(DAY // per_day)


def test_a_month_is_thinned_and_every_storage_alone_restores_it(home: Home) -> None:
    days(home, 12)
    disk, _ = home.storages
    assert home.check() == list(range(24, 0, -1))
    before = len(disk.objects)
    plan = home.prune()
    assert plan.checkpoint is not None
    left = home.check()
    assert left[0] == 24
    assert len(left) < 14
    assert len(disk.objects) == before + 1, "something was deleted before its time"
    assert [result.objects for result in home.sweep()] == [0, 0]
    home.world.pass_(7 * DAY)
    results = home.sweep()
    assert all(result.objects > 10 and not result.waiting and result.problem is None for result in results)
    for storage in home.storages:
        assert home.check(storage) == left
        assert len(storage.own("/s/")) == len(left)
    assert home.plan_again() is None
