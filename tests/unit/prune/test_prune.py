"""Plan, checkpoint, sweep: with the real thing in memory, several storages and a clock that tests set."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

from chatkeep.config.amounts import Amount, Duration
from chatkeep.config.model import Retention
from chatkeep.daemon.backup.draft import Piece, encode_content
from chatkeep.daemon.prune.live import packs_of_state
from chatkeep.daemon.retention import Alarm, Reason
from chatkeep.daemon.state.pruning import CHECKPOINTS, Role
from chatkeep.daemon.vault.layers import Reference
from chatkeep.providers.base import Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.thinning import DAY, HOUR, KEEP, START, Cut, Home, days, kept

WEEK = 7 * DAY
FEW = dataclasses.replace(KEEP, daily=Amount(1), weekly=Amount(1), monthly=Amount(1))


def test_days_are_thinned_and_every_storage_alone_restores_what_is_left(home: Home) -> None:
    disk, _ = home.storages
    assert home.check() == list(range(20, 0, -1))
    before = len(disk.objects)
    plan = home.prune()
    assert plan.checkpoint is not None
    left = home.check()
    assert left[0] == 20
    assert len(left) < 12
    assert len(disk.objects) == before + 1, "something was deleted before its time"
    assert [result.objects for result in home.sweep()] == [0, 0]
    home.world.pass_(WEEK)
    results = home.sweep()
    assert all(result.objects > 10 and not result.waiting and result.problem is None for result in results)
    for storage in home.storages:
        assert home.check(storage) == left
        assert len(storage.own("/s/")) == len(left)
    assert home.plan_again() is None


def test_only_what_nobody_needs_goes_and_all_of_it_goes(home: Home) -> None:
    """A mutant that condemns too much fails to restore, one that condemns too little keeps packs."""
    packs = len(home.storages[0].own("/p/"))
    home.prune(FEW)
    home.world.pass_(WEEK)
    home.sweep(policy=FEW)
    disk, cloud = home.storages
    left = home.check(disk)
    assert disk.own("/d/") == set()
    with home.state() as state:
        rows = {name for name, _ in state.outbox.known_objects()}
        assert rows == {name for name in disk.objects if name.startswith("d/")} == set(cloud.own("d/"))
        assert state.pruning.condemned() == []
        assert [row.number for row in state.pruning.checkpoints()] == [1]
    assert len(disk.own("/p/")) < packs - 12
    days(home, 1)
    assert home.check(disk)[-len(left) :] == left


def test_older_checkpoints_go_when_all_that_they_condemned_is_gone(home: Home) -> None:
    disk, cloud = home.storages
    for _ in range(3):
        days(home, 3)
        home.prune()
        home.world.pass_(8 * DAY)
        home.sweep(disk)
    numbers = [sorted(int(name.split("/")[3][:12]) for name in storage.own("/c/")) for storage in (disk, cloud)]
    assert numbers == [[3], [1, 2, 3]]
    home.sweep(cloud)
    assert len(cloud.own("/c/")) == 1
    home.sweep(disk)
    with home.state() as state:
        assert [row.number for row in state.pruning.checkpoints()] == [3]
        assert state.pruning.condemned() == []


# -- when it may be deleted -------------------------------------------------------------------------------------------


def test_grace_runs_from_when_a_storage_has_the_checkpoint_by_its_own_clock(home: Home) -> None:
    disk, cloud = home.storages
    cloud.ahead = 3650 * DAY
    home.prune(send=[disk])
    home.world.pass_(6 * DAY)
    with home.state() as state:
        home.send(state, [cloud])
    home.world.pass_(DAY + 1)
    assert [result.objects > 0 for result in home.sweep()] == [True, False]
    home.ahead = 3650 * DAY  # nor does the clock of this device hurry it
    assert [result.objects > 0 for result in home.sweep()] == [False, False]
    home.ahead = -3650 * DAY  # nor hold it up
    home.world.pass_(6 * DAY)
    assert home.sweep(cloud)[0].objects > 0


def test_a_storage_that_tells_no_time_gets_that_of_this_device(home: Home) -> None:
    disk, _ = home.storages
    disk.ahead = None
    home.prune()
    home.world.pass_(WEEK - 2)
    assert home.sweep(disk)[0].objects == 0
    home.world.pass_(2)
    assert home.sweep(disk)[0].objects > 0


def test_a_clock_that_was_ahead_when_it_arrived_makes_nobody_wait_for_years(home: Home) -> None:
    disk, _ = home.storages
    disk.ahead = None
    made = home.prune(send=[])
    home.ahead = 3650 * DAY
    with home.state() as state:
        home.send(state, home.storages)
    home.ahead = 0
    assert made.checkpoint is not None
    home.world.pass_(WEEK)
    assert home.sweep(disk)[0].objects == 0
    home.world.pass_(WEEK)
    assert home.sweep(disk)[0].objects > 0


def test_nothing_is_deleted_where_something_that_lives_is_missing(home: Home) -> None:
    """The checkpoint is there, and everything before it but one pack."""
    disk, cloud = home.storages
    plan = home.prune()
    with home.state() as state:
        name = next(iter(disk.own("/p/")))
        with state._connection.transaction() as db:
            db.execute("UPDATE objects SET released=0 WHERE name=?", (name,))
            db.execute("DELETE FROM receipts WHERE name=? AND provider='disk'", (name,))
    home.world.pass_(WEEK)
    assert plan.waste.size
    assert [result.objects > 0 for result in home.sweep(disk, cloud)] == [False, True]


def test_a_backup_asks_only_when_something_may_be_due(home: Home) -> None:
    home.prune()
    disk, cloud = home.storages
    before = disk.calls
    for _ in range(5):
        home.world.pass_(DAY)
        assert home.sweep(disk, asked=False)[0].waiting > 0
    assert disk.calls == before, "a storage was asked before the grace could be over"
    home.world.pass_(2 * DAY)
    assert home.sweep(disk, asked=False)[0].objects > 0
    before = disk.calls
    assert home.sweep(disk, asked=False)[0].objects == 0
    assert disk.calls == before
    cloud.ahead = None
    assert home.sweep(cloud, asked=False)[0].objects > 0


def test_a_checkpoint_that_storage_changed_deletes_nothing(home: Home) -> None:
    home.prune()
    home.world.pass_(WEEK)
    disk, _ = home.storages
    (name,) = disk.own("/c/")
    body = bytearray(disk.objects[name])
    body[200] ^= 1
    disk.objects[name] = bytes(body)
    before = disk.own("/p/") | disk.own("/s/")
    (result,) = home.sweep(disk)
    assert result.problem is not None
    assert result.problem.code == "object-mismatch"
    assert disk.own("/p/") | disk.own("/s/") == before


def test_what_the_signed_list_does_not_name_is_not_deleted(home: Home) -> None:
    """A row that somebody added to this device's records deletes nothing."""
    home.prune()
    home.world.pass_(WEEK)
    disk, _ = home.storages
    with home.state() as state:
        live = [name for name, _ in state.outbox.known_objects() if "/s/" in name][-1]
        with state._connection.transaction() as db:
            db.execute("INSERT INTO condemned VALUES(?,1,1,1)", (live,))
    home.sweep(disk)
    assert live in disk.objects


# -- storages that do not delete --------------------------------------------------------------------------------------


def test_a_storage_that_lets_nothing_be_deleted_is_asked_once_a_day(home: Home) -> None:
    plan = home.prune()
    disk, cloud = home.storages
    disk.deletes = False
    home.world.pass_(WEEK)
    results = home.sweep(asked=False)
    assert (results[0].held, results[0].held_bytes) == (
        sum(row.role is not Role.CHECKPOINT for row in plan.waste.rows),
        plan.waste.size,
    )
    assert results[0].problem is None
    assert results[1].held == 0
    assert disk.refusals == 1
    for _ in range(5):
        home.world.pass_(4 * HOUR)
        assert home.sweep(disk, asked=False)[0].held == results[0].held
    assert disk.refusals == 1, "it was asked in a loop"
    home.world.pass_(5 * HOUR)
    home.sweep(disk, asked=False)
    assert disk.refusals == 2
    disk.deletes = True
    (result,) = home.sweep(disk)
    assert (result.held, result.waiting) == (0, 0)
    assert home.check(disk) == home.check(cloud)


def test_an_object_lock_holds_single_objects(home: Home) -> None:
    plan = home.prune()
    disk, _ = home.storages
    packs = [row.name for row in plan.waste.rows if row.role is Role.PACK]
    disk.held = {packs[0]}
    home.world.pass_(WEEK)
    (result,) = home.sweep(disk)
    assert (result.held, disk.refusals) == (1, 1)
    assert not {row.name for row in plan.waste.rows if row.role is not Role.CHECKPOINT} - disk.held & disk.own("d/")
    manifests = [row.name for row in plan.waste.rows if row.role is Role.MANIFEST]
    assert not set(manifests) & disk.own("/s/")
    disk.held = set()
    assert home.sweep(disk)[0].held == 0
    assert packs[0] not in disk.objects


def test_while_a_manifest_is_held_its_packs_stay(home: Home) -> None:
    plan = home.prune()
    disk, _ = home.storages
    manifests = [row.name for row in plan.waste.rows if row.role is Role.MANIFEST]
    disk.held = set(manifests[:1])
    home.world.pass_(WEEK)
    before = disk.own("/p/")
    home.sweep(disk)
    assert disk.own("/p/") == before
    assert disk.own("/s/") & set(manifests) == disk.held


# -- killed -----------------------------------------------------------------------------------------------------------


def test_killed_at_every_call_of_a_sweep_it_goes_on(home: Home) -> None:
    home.prune(FEW)
    disk, cloud = home.storages
    left = home.check(cloud)
    with home.state() as state:
        doomed = {row.name for row in state.pruning.condemned()}
    lives = disk.own("d/") - doomed
    home.world.pass_(WEEK)
    cuts = 0
    for fuse in itertools.count():
        disk.fuse = fuse
        try:
            home.sweep(disk, policy=FEW)
            break
        except Cut:
            cuts += 1
        assert lives <= disk.own("d/")
    assert cuts > 2 * len(doomed) // 3, "it was hardly ever killed"
    disk.fuse = -1
    assert home.check(disk) == left
    home.sweep(cloud, policy=FEW)
    assert disk.own("d/") == cloud.own("d/") == lives


def test_storage_that_fails_in_the_middle(home: Home) -> None:
    home.prune()
    home.world.pass_(WEEK)
    disk, _ = home.storages
    fault = Fault("delete", Unavailable(provider="disk"), about="/p/", skip=1)
    (result,) = home.sweep(FaultyProvider(disk, fault))  # type: ignore[arg-type]
    assert fault.fired == 1
    assert result.problem is not None
    assert result.objects > 0
    assert result.waiting > 0
    assert home.sweep(disk)[0].waiting == 0


# -- another policy ---------------------------------------------------------------------------------------------------


def test_a_wider_policy_takes_back_what_nobody_has_begun_to_delete(home: Home) -> None:
    every = home.check()
    home.prune(FEW)
    few = home.check()
    assert len(few) < len(every) // 2
    plan = home.prune(dataclasses.replace(KEEP, minimum=Amount(99)))
    assert plan.waste.revived
    assert home.check() == every
    home.world.pass_(2 * WEEK)
    assert [result.objects for result in home.sweep()] == [0, 0]
    assert home.check(home.storages[1]) == every


def test_what_one_storage_began_to_delete_is_not_taken_back(home: Home) -> None:
    home.prune(FEW)
    few = home.check()
    home.world.pass_(WEEK)
    disk, cloud = home.storages
    disk.deletes = False  # begun, though nothing is gone yet
    home.sweep(disk, policy=FEW)
    assert home.prune(dataclasses.replace(KEEP, minimum=Amount(99))).checkpoint is None
    assert home.check(cloud) == few


def test_again_with_the_same_policy_changes_nothing_and_going_on_keeps_thinning(home: Home) -> None:
    home.prune()
    assert home.plan_again() is None
    first = set(home.check())
    days(home, 4)
    home.prune()
    assert set(home.check()) - first != set()
    assert first - set(home.check()) != set()


# -- providers that lag -----------------------------------------------------------------------------------------------


def test_what_a_storage_lacks_stays_and_stands_for_nothing_there(home: Home) -> None:
    disk, cloud = home.storages
    days(home, 4, send=[disk])
    home.prune(send=[disk])
    left = kept(home, disk)
    assert left[:8] == list(range(28, 20, -1))
    assert left[8] == 20  # the policy holds for what the cloud has, as if there were nothing else
    assert len(left) > 8 + 3
    assert home.check(cloud) == list(range(20, 0, -1))
    with home.state() as state:
        home.send(state, [cloud])
    assert home.check(cloud) == home.check(disk) == left


def test_a_storage_that_is_away_gets_the_checkpoint_later_and_after_all_the_rest(home: Home) -> None:
    disk, cloud = home.storages
    cloud.away = True
    days(home, 2, send=[disk])
    home.prune(send=[disk])
    cloud.away = False
    home.world.pass_(WEEK)
    home.sweep()
    assert len(cloud.own("/s/")) == 20
    days(home, 1)
    order = [name for verb, name in cloud.verbs if verb == "put"]
    place = next(place for place, name in enumerate(order) if "/c/" in name)
    assert {int(name.split("/")[4][:12]) for name in order[:place] if "/s/" in name} == set(range(21, 25))
    assert home.check(cloud) == home.check(disk)


# -- what else is needed ----------------------------------------------------------------------------------------------


def test_the_brake_is_in_the_plan(home: Home) -> None:
    with home.state() as state:
        assert Alarm.MOST_SNAPSHOTS in home.plan(state, FEW).alarms
        assert Alarm.LAST_DAY not in home.plan(state, FEW).alarms
        none = Amount(0)
        everything = Retention(Duration(0), none, none, none, none, none, none)
        home.world.pass_(-HOUR)
        assert Alarm.LAST_DAY in home.plan(state, everything).alarms


def test_a_file_that_is_half_sealed_keeps_its_packs(home: Home) -> None:
    """Its pieces are in no layer yet: only this device's records refer to them."""
    home.write("note", b"first")
    home.back_up()
    home.budget = 1
    home.write("video", bytes(range(256)) * (4 << 12))
    home.back_up()
    home.budget = 256 << 20
    with home.state() as state:
        stream = state.stream("chat").stream
        pieces = [Piece(5, Reference(b"p" * 32, 3, b"i" * 32)), Piece(7, None)]
        assert packs_of_state(state.pruning) - {b"p" * 32} == packs_of_state(state.pruning)
        with state._connection.transaction() as db:
            raw = encode_content(pieces)
            db.execute("INSERT INTO partials VALUES(?,?,?,?)", (stream, b"half", b"x", raw))
            db.execute("INSERT INTO runs VALUES(NULL,?,1,512,x'00',?,0,?)", (stream, b"r" * 32, b"i" * 32))
        assert {b"p" * 32, b"r" * 32} <= packs_of_state(state.pruning)
        assert bytes(32) not in packs_of_state(state.pruning)


def test_known_blobs_of_condemned_packs_are_forgotten(home: Home) -> None:
    with home.state() as state:
        packs = {sha256 for sha256, _, _ in state.pruning.objects().values()}
        with state._connection.transaction() as db:
            db.executemany("INSERT INTO known VALUES(?,?,0)", [(sha256, sha256) for sha256 in packs])
    plan = home.prune(FEW)
    with home.state() as state:
        left = {pack for (pack,) in state._connection.rows("SELECT pack FROM known")}
    assert plan.waste.packs
    assert left == packs - set(plan.waste.packs)


def test_a_checkpoint_lost_in_the_outbox_is_made_again(home: Home) -> None:
    home.prune(FEW, send=[])
    with home.state() as state:
        (item,) = state.outbox.queue("disk")
        assert item.stream == CHECKPOINTS
        item.path.unlink()
        assert state.outbox.recover() == [CHECKPOINTS]
        state.abandon(CHECKPOINTS)
    assert len(kept(home)) == 20
    plan = home.prune(FEW)
    assert plan.checkpoint is not None
    assert plan.checkpoint.number == 2
    assert len(home.check()) < 10
    home.world.pass_(WEEK)
    assert all(result.waiting == 0 for result in home.sweep(policy=FEW))
    assert home.storages[0].own("d/") == home.storages[1].own("d/")
    assert home.check(home.storages[0]) == home.check()


def test_clocks_in_the_future_are_kept_and_spoil_nothing(home: Home) -> None:
    home.ahead = 1500 * DAY
    days(home, 1)
    home.ahead = 0
    days(home, 5)
    with home.state() as state:
        plan = home.plan(state)
    verdicts = {facts.name.seq: verdict for one in plan.streams for facts, verdict in one.judged()}
    assert [seq for seq, verdict in verdicts.items() if Reason.CLOCK in verdict.reasons] == [21, 22]
    assert any(not verdict.kept for seq, verdict in verdicts.items() if seq > 22)
    assert START < verdicts[25].time < home.world.now


def test_two_devices_prune_each_their_own(home: Home, tmp_path: Path) -> None:
    other = home.join(tmp_path / "other")
    days(other, 4)
    home.prune()
    assert other.check() == list(range(8, 0, -1))
    other.prune()
    home.world.pass_(WEEK)
    home.sweep()
    other.sweep()
    for device in (home, other):
        for storage in home.storages:
            assert device.check(storage) == device.check()


def test_a_checkpoint_that_one_storage_never_got_and_the_other_acted_on(home: Home) -> None:
    """Lost in the outbox before the cloud had it; the disk has begun to delete, and is away when the next is made."""
    disk, cloud = home.storages
    home.prune(FEW, send=[disk])
    with home.state() as state:
        state.abandon(CHECKPOINTS)
    home.world.pass_(WEEK)
    assert home.sweep(disk, policy=FEW)[0].objects > 0
    assert len(kept(home, cloud)) == 20
    disk.away = True
    wide = dataclasses.replace(KEEP, minimum=Amount(99))
    plan = home.prune(wide)
    assert plan.waste.begun
    assert not plan.waste.revived
    assert home.check(cloud) == [facts.name.seq for one in plan.streams for facts in one.snapshots][::-1]
    disk.away = False
    with home.state() as state:
        home.send(state, home.storages)
    home.world.pass_(WEEK)
    assert all(result.waiting == 0 for result in home.sweep(policy=wide))
    assert disk.own("d/") == cloud.own("d/")
    assert home.check(disk) == home.check(cloud)
