"""A vault copied to another provider without any key: order, what is left out, what is refused, cut off at any put."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.service import mirroring
from chatkeep.daemon.service.mirroring import Asked, MirrorPlan
from chatkeep.daemon.sync.mirror import CopyResult, copy
from chatkeep.daemon.sync.upload import Pace
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.checkpoint import SnapshotId
from chatkeep.daemon.vault.create import add_device
from chatkeep.daemon.vault.errors import MissingObject, NoVault, WrongVault
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.daemon.verify.scrub import scrub
from chatkeep.providers.base import Provider, StorageMissing, Unavailable
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.wrap import Patience
from tests.support.engines import Home
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.manifests import make_vault
from tests.support.memory_provider import MemoryProvider
from tests.support.pruned import PrunedVault
from tests.support.vaults import made_vault

NOTHING = Asked()
ONCE = Pace(threads=2, patience=Patience(attempts=1))


def mirrored(sources: Sequence[Provider], target: Provider, asked: Asked = NOTHING) -> tuple[MirrorPlan, CopyResult]:
    plan = mirroring.plan(sources, target, asked)
    return plan, copy(plan.items, sources, target, known=plan.known, pace=ONCE)


def codes(problems: Sequence[ChatkeepError]) -> list[str]:
    return sorted(problem.code for problem in problems)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryProvider, Home]:
    """A vault of two devices with three snapshots each, in memory."""
    home = Home(tmp_path_factory.mktemp("original"), ("one",))
    with home.open() as engine:
        for number in range(3):
            home.write(f"photo {number}", 100_000)
            assert engine.snapshot("chat").made == 1
        engine.upload("one")
    folder = FolderProvider("one", home.room / "one")
    second = Home(tmp_path_factory.mktemp("second"), ("one",))
    with unlock_newest([folder], folder, RecoveryMethod(home.recovery), None).enrolment as enrolment:
        credential = add_device([folder], enrolment)
    # The other machine's storage is this one's.
    second.config.state_dir.joinpath("chatkeep-writer").unlink()
    credential.save(second.config.state_dir / "chatkeep-writer")
    credential.wipe()
    second.stores = dict(home.stores)
    with second.open() as engine:
        for number in range(3):
            second.write(f"song {number}", 100_000)
            assert engine.snapshot("chat").made == 1
        assert engine.upload("one").problems == ()
    memory = MemoryProvider("one")
    memory.objects = {found.name: folder.get(found.name) for found in folder.list("")}
    return memory, home


def copy_of(provider: MemoryProvider, name: str) -> MemoryProvider:
    made = MemoryProvider(name)
    made.objects = dict(provider.objects)
    return made


def of_kind(objects: Sequence[str], pattern: str) -> set[str]:
    return {name for name in objects if re.match(pattern, name)}


def require_order(there: set[str], all_of: set[str]) -> None:
    """What a reader relies on, of a copy that was cut off."""
    kinds = [r"epochs/|devices/", r"d/\w+/p/", r"d/\w+/s/", r"d/\w+/c/", r"slots/", r"vault/"]
    for number, kind in enumerate(kinds):
        if of_kind(list(there), kind):
            for earlier in kinds[:number]:
                assert of_kind(list(all_of), earlier) <= there, (kind, earlier)
    for name in of_kind(list(there), kinds[2]):
        stream, _, last = name.rpartition("/")
        earlier_ones = {one for one in all_of if one.startswith(stream + "/") and one.rpartition("/")[2] < last}
        assert earlier_ones <= there


def test_everything_and_nothing_else(original: tuple[MemoryProvider, Home]) -> None:
    source, home = original
    source = copy_of(source, "one")
    source.objects["notes"] = b"somebody's"
    source.objects[f"d/{'ab' * 16}/p/{'cd' * 32}"] = b"of nobody"
    target = MemoryProvider("two")
    plan, result = mirrored([source], target)
    assert (result.problems, result.findings, result.cancelled) == ([], [], False)
    assert plan.strangers == 1
    assert target.objects == original[0].objects
    assert result.objects == len(target.objects)
    assert len(of_kind(list(target.objects), "devices/")) == 2
    assert scrub(target).findings == ()
    reader = VaultReader([target], unlock(target, RecoveryMethod(home.recovery)))
    assert len(reader.streams()) == 2
    again = mirroring.plan([source], target, Asked())
    assert again.lacking() == []
    puts = len([verb for verb, _ in target.verbs if verb == "put"])
    assert copy(again.items, [source], target, known=again.known, pace=ONCE).objects == 0
    assert len([verb for verb, _ in target.verbs if verb == "put"]) == puts


def test_cut_off_at_any_put_it_passes_for_no_vault_and_goes_on(original: tuple[MemoryProvider, Home]) -> None:
    source, home = original
    every = set(source.objects)
    for cut in range(len(every)):
        target = MemoryProvider("two")
        fault = Fault("put", StorageMissing(provider="two"), skip=cut, times=None)
        _, result = mirrored([source], FaultyProvider(target, fault))
        assert fault.fired
        assert codes(result.problems) == ["storage-missing"]
        require_order(set(target.objects), every)
        if not any(name.startswith("slots/") for name in target.objects):
            with pytest.raises(NoVault):
                unlock(target, RecoveryMethod(home.recovery))
        assert not any(name.startswith("vault/") for name in target.objects)
        if cut % 5 == 0:
            _, result = mirrored([source], target)
            assert result.problems == []
            assert result.objects == len(every) - cut
            assert target.objects == source.objects


def test_a_damaged_copy_is_taken_from_another_provider(original: tuple[MemoryProvider, Home]) -> None:
    """Every second object is lost or damaged at one provider, and the others at the other."""
    whole, _ = original
    one, other = copy_of(whole, "one"), copy_of(whole, "other")
    hashed = sorted(name for name in whole.objects if name.startswith(("d/", "epochs/")))
    for number, name in enumerate(hashed):
        holder = (one, other)[number % 2]
        if number % 4 < 2:
            body = holder.objects[name]
            holder.objects[name] = body[:-1] + bytes([body[-1] ^ 1])
        else:
            del holder.objects[name]
    target = MemoryProvider("two")
    _, result = mirrored([one, other], target)
    assert result.problems == []
    assert target.objects == whole.objects
    assert len(result.findings) >= len(hashed) // 4 - 1  # each damaged copy that was asked for is told


def test_what_no_provider_has_whole_is_told_and_not_copied(original: tuple[MemoryProvider, Home]) -> None:
    whole, _ = original
    source = copy_of(whole, "one")
    pack = next(name for name in whole.objects if "/p/" in name)
    source.objects[pack] = source.objects[pack][:-1] + b"?"
    target = MemoryProvider("two")
    _, result = mirrored([source], target)
    assert codes(result.problems) == ["nowhere-whole"]
    assert result.problems[0].params["object"] == pack
    assert target.objects == {name: body for name, body in whole.objects.items() if name != pack}


def test_a_slot_that_was_changed_is_not_copied(original: tuple[MemoryProvider, Home]) -> None:
    whole, home = original
    one, other = copy_of(whole, "one"), copy_of(whole, "other")
    slot = next(name for name in whole.objects if name.startswith("slots/"))
    one.objects[slot] = one.objects[slot].replace(b'"epoch"', b'"epocx"')
    target = MemoryProvider("two")
    plan, result = mirrored([one, other], target)
    assert result.problems == []
    assert target.objects[slot] == whole.objects[slot]
    assert plan.findings
    alone = MemoryProvider("three")
    plan, _ = mirrored([one], alone)
    assert slot not in alone.objects
    assert plan.findings
    with pytest.raises(ChatkeepError):
        unlock(alone, RecoveryMethod(home.recovery))


def test_another_vault_at_the_target_is_refused(original: tuple[MemoryProvider, Home]) -> None:
    source, _ = original
    target = MemoryProvider("two")
    made_vault(target).credential.wipe()
    before = dict(target.objects)
    with pytest.raises(WrongVault):
        mirroring.plan([source], target, Asked())
    assert target.objects == before
    with pytest.raises(NoVault):
        mirroring.plan([MemoryProvider("empty")], MemoryProvider("three"), Asked())


def test_a_source_that_was_rolled_back_is_refused(original: tuple[MemoryProvider, Home]) -> None:
    source, home = original
    folder = FolderProvider("one", home.room / "one")
    vault = unlock(folder, RecoveryMethod(home.recovery))
    pin = vault.records[-1].pin
    later = type(pin)(pin.vault_id, 2, os.urandom(32), pin.sign)
    with pytest.raises(MissingObject):
        mirroring.plan([source], MemoryProvider("two"), Asked(pin.vault_id, later))


def test_one_source_is_away(original: tuple[MemoryProvider, Home]) -> None:
    source, _ = original
    gone = Fault("stat", Unavailable(provider="other"), times=None)
    other = FaultyProvider(copy_of(source, "other"), gone)
    target = MemoryProvider("two")
    plan = mirroring.plan([other, source], target, Asked())
    assert gone.fired
    assert [one.name for one in plan.sources] == ["one"]
    assert codes(plan.findings) == ["unavailable"]
    assert copy(plan.items, [source], target, pace=ONCE).problems == []
    assert target.objects == source.objects


def test_a_source_that_dies_costs_one_time_out(original: tuple[MemoryProvider, Home]) -> None:
    source, _ = original
    target = MemoryProvider("two")
    plan = mirroring.plan([source], target, Asked())
    dead = Fault("get", Unavailable(provider="other"), times=None)
    other = FaultyProvider(copy_of(source, "other"), dead)
    result = copy(plan.items, [other, source], target, known=plan.known, pace=ONCE)
    assert result.problems == []
    assert codes(result.findings) == ["unavailable"]
    assert dead.fired <= ONCE.threads
    assert target.objects == source.objects


def test_it_gives_way_and_can_be_cancelled(original: tuple[MemoryProvider, Home]) -> None:
    source, _ = original
    target = MemoryProvider("two")
    plan = mirroring.plan([source], target, Asked())
    asked: list[bool] = []

    def busy() -> bool:
        asked.append(len(target.objects) > 3)
        return len(target.objects) == 2 and len(asked) < 20

    naps: list[float] = []
    result = copy(
        plan.items,
        [source],
        target,
        known=plan.known,
        busy=busy,
        cancelled=lambda: len(target.objects) >= 6,
        pace=Pace(1, Patience(attempts=1), naps.append),
    )
    assert result.cancelled
    assert len(naps) >= 10
    assert len(target.objects) == 6


class TestWhatWasPruned:
    """A stream of eight snapshots of which a checkpoint keeps some."""

    def vault(self, *providers: str) -> PrunedVault:
        return PrunedVault(make_vault(), 8, *providers)

    @staticmethod
    def condemn(pruned: PrunedVault, *, sweep: bool) -> None:
        """A checkpoint lets all up to 6 go but 2 and 4."""
        going = tuple((pruned.stream.stream_id, SnapshotId(*astuple(pruned.head(seq)))) for seq in (1, 3, 5, 6))
        made = pruned.checkpoint(6, (2, 4), condemned_manifests=going)
        name, raw = pruned.sign(made)
        pruned.put({str(name): raw})
        if sweep:
            pruned.drop(1, 3, 5, 6)

    @pytest.mark.parametrize("named", [True, False])
    def test_is_not_brought_back_once_somebody_has_begun_to_delete_it(self, named: bool) -> None:
        pruned = self.vault("one", "other")
        if named:
            self.condemn(pruned, sweep=True)
        else:  # the checkpoint that condemned them is gone: its work is done
            pruned.prune(6, 2, 4)
        one, other = pruned.providers
        for seq in (1, 3):  # the other one has not deleted everything yet
            name = pruned.name(seq)
            other.objects[str(name)] = pruned.chain[name]
        target = MemoryProvider("two")
        plan, result = mirrored([one, other], target)
        assert result.problems == []
        there = {seq for seq in range(1, 9) if str(pruned.name(seq)) in target.objects}
        assert there == {2, 4, 7, 8}
        assert plan.let_go == 2
        assert pruned.walked(target) == pruned.walked(one)

    def test_is_copied_while_it_may_be_taken_back(self) -> None:
        pruned = self.vault()
        self.condemn(pruned, sweep=False)
        target = MemoryProvider("two")
        plan, result = mirrored(pruned.providers, target)
        assert result.problems == []
        assert (plan.let_go, target.objects) == (0, pruned.provider.objects)

    def test_is_not_copied_if_this_device_knows_that_it_goes(self) -> None:
        pruned = self.vault()
        self.condemn(pruned, sweep=False)
        target = MemoryProvider("two")
        plan, _ = mirrored(pruned.providers, target, Asked(doomed=[str(pruned.name(seq)) for seq in (1, 3, 5, 6)]))
        assert plan.let_go == 4
        assert {seq for seq in range(1, 9) if str(pruned.name(seq)) in target.objects} == {2, 4, 7, 8}

    def test_of_a_removed_device_only_what_counts(self) -> None:
        pruned = self.vault()
        pruned.rotate({pruned.stream.stream_id: pruned.head(5)}, None, remove=True)
        target = MemoryProvider("two")
        mirrored(pruned.providers, target)
        assert {seq for seq in range(1, 9) if str(pruned.name(seq)) in target.objects} == {1, 2, 3, 4, 5}
        assert pruned.walked(target) == pruned.walked(pruned.provider)


def test_a_folder_that_is_not_there_yet_can_be_looked_at(original: tuple[MemoryProvider, Home], tmp_path: Path) -> None:
    source, _ = original
    place = FolderProvider("two", tmp_path / "two")
    plan = mirroring.plan([source], place, Asked(new=True))
    assert len(plan.lacking()) == len(source.objects)
    assert not (tmp_path / "two").exists()
    with pytest.raises(StorageMissing):
        mirroring.plan([source], place, Asked())
