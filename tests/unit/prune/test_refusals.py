"""When nothing may be pruned."""

from __future__ import annotations

import pytest

from chatkeep.daemon.prune.clocks import APART, check_clocks
from chatkeep.daemon.prune.errors import PruneRefused
from chatkeep.daemon.vault import room
from chatkeep.daemon.vault.errors import SnapshotTooLarge, Unreadable
from chatkeep.providers.base import Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.thinning import START, Home, Storage, World


def refusal(home: Home) -> PruneRefused:
    with pytest.raises(PruneRefused) as caught:
        home.prune()
    return caught.value


def test_a_snapshot_that_storage_lost_stops_it(home: Home) -> None:
    for storage in home.storages:
        del storage.objects[next(name for name in storage.objects if "/s/" in name and "/000000000003-" in name)]
    found = refusal(home)
    assert (found.params["reason"], found.params["finding"]) == ("lost", "missing-object")


def test_a_damaged_copy_stops_it(home: Home) -> None:
    disk, _ = home.storages
    name = next(name for name in disk.objects if "/s/" in name)
    disk.objects[name] = disk.objects[name][:-1] + b"?"
    assert refusal(home).params["finding"] == "object-mismatch"


def test_a_layer_that_cannot_be_read_stops_it(home: Home) -> None:
    for storage in home.storages:
        for name in storage.own("/p/"):
            storage.objects[name] = storage.objects[name][:-9] + b"?" + storage.objects[name][-8:]
    with pytest.raises((Unreadable, PruneRefused)):  # nothing is judged that was not read
        home.prune()
    assert not home.storages[0].own("/c/")


def test_a_snapshot_for_which_there_is_no_memory_stops_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "most_memory", lambda: 100)
    with pytest.raises(SnapshotTooLarge):
        home.prune()
    assert not home.storages[0].own("/c/")


def test_records_that_are_older_than_storage_stop_it(home: Home) -> None:
    with home.state() as state, state._connection.transaction() as db:
        db.execute("UPDATE streams SET seq=7, head=?", (b"h" * 32,))
    assert refusal(home).params["reason"] == "behind"


def test_a_capsule_that_does_not_open_stops_it(home: Home) -> None:
    with home.state() as state, state._connection.transaction() as db:
        name = next(iter(home.storages[0].own("/p/")))
        db.execute("INSERT OR REPLACE INTO capsules VALUES(?,?,NULL)", (name, b"nonsense"))
    found = refusal(home)
    assert (found.params["reason"], found.params["object"]) == ("capsules", name)


def test_a_clock_that_is_another_stops_it() -> None:
    world = World()
    now = START / 10**9
    storages = [Storage("disk", world), Storage("cloud", world, None), Storage("far", world, int(APART * 10**9))]
    assert check_clocks(storages, lambda: now) == storages
    assert all(not storage.objects for storage in storages), "what was asked with stays"
    for ahead in (APART + 1, -APART - 1):
        storages[2].ahead = int(ahead * 10**9)
        with pytest.raises(PruneRefused) as caught:
            check_clocks(storages, lambda: now)
        assert caught.value.params == {"reason": "clock", "where": "far", "minutes": 10}
    fault = Fault("put", Unavailable(provider="far"), times=2)
    assert check_clocks([FaultyProvider(storages[2], fault), storages[0]], lambda: now) == [storages[0]]
    with pytest.raises(Unavailable):
        check_clocks([FaultyProvider(storages[2], fault)], lambda: now)
    assert fault.fired == 2
