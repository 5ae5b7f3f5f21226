"""The histories of a vault as commands show them: of machines that write, that were removed, that were pruned."""

from __future__ import annotations

from typing import cast

import pytest

from chatkeep.daemon.cli.errors import SeveralSnapshots
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.reading import OpenVault, weight
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.vault.checkpoint import SnapshotId, StreamKept
from chatkeep.daemon.vault.devices import RemovedDevice
from chatkeep.daemon.vault.epoch import DeviceEntry, Head, create_record
from chatkeep.daemon.vault.manifest import seal_manifest
from chatkeep.daemon.vault.names import ManifestName
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlocked import UnlockedVault
from tests.support.manifests import Keys, TestVault, add_device, make_manifest, make_vault, named
from tests.support.memory_provider import MemoryProvider
from tests.support.pruned import STREAM, PrunedVault

HOUR = 3_600_000_000_000


class Unlocked(Keys):
    """With what a command looks at besides."""

    findings = ()


def history(device: TestVault, host: str, count: int, begin: int) -> dict[ManifestName, bytes]:
    """Snapshots of the source `chat`, an hour apart."""
    made: dict[ManifestName, bytes] = {}
    prev = bytes(32)
    for seq in range(1, count + 1):
        time = begin + seq * HOUR
        raw = seal_manifest(
            make_manifest(device, time=time, clock=time, host=host), STREAM, seq, prev, device.credential
        )
        name = named(device, STREAM, seq, raw)
        made[name], prev = raw, name.sha256
    return made


def opened(old_host: str, new_host: str, known: int) -> OpenVault:
    """A machine that was removed, of whose five snapshots `known` count, and the one that came after it."""
    old = make_vault()
    new = add_device(old)
    before, after = history(old, old_host, 5, 0), history(new, new_host, 3, 100 * HOUR)
    provider = MemoryProvider()
    provider.objects = {str(name): raw for name, raw in (before | after).items()}
    unlocked = Unlocked(new)
    last = next(name for name in before if name.seq == known)
    entry = DeviceEntry(old.cert.sha256, {STREAM: Head(last.seq, last.sha256)}, None)
    unlocked.removed = {old.credential.device_id: RemovedDevice(old.cert, entry)}
    record = create_record(
        EpochKeys(RootSecret.generate()),
        old.vault_id,
        (old.record, old.keys),
        devices={new.credential.device_id: DeviceEntry(new.cert.sha256, {}, None)},
        removed={old.credential.device_id: entry},
    )
    unlocked.records = (old.record, record)
    return of(provider, unlocked)


def of(provider: MemoryProvider, unlocked: Keys) -> OpenVault:
    return OpenVault(VaultReader([provider], unlocked), cast("UnlockedVault", unlocked))


def test_a_removed_machines_history_stands_beside_the_others_under_its_host() -> None:
    vault = opened("laptop", "desktop", 4)
    seqs = {one.label: [snapshot.header.seq for snapshot in one] for one in vault.histories}
    assert seqs == {"chat@desktop": [3, 2, 1], "chat@laptop": [4, 3, 2, 1]}
    snapshot, label = vault.find("latest", "chat@laptop")
    assert (snapshot.header.seq, label) == (4, "chat@laptop")
    snapshot, label = vault.find("chat@laptop:2", None)
    assert (snapshot.manifest.host, snapshot.header.seq) == ("laptop", 2)
    assert vault.findings() == []


def test_a_machine_that_was_enrolled_anew_goes_on_with_its_history() -> None:
    vault = opened("laptop", "laptop", 5)
    assert [one.label for one in vault.histories] == ["chat", "chat"]
    snapshot, _ = vault.find("latest", "chat")
    assert snapshot.manifest.time == 103 * HOUR
    with pytest.raises(SeveralSnapshots):
        vault.find("2", "chat")
    assert vault.find("5", "chat")[0].manifest.time == 5 * HOUR


def test_what_was_pruned_is_not_shown_and_not_told() -> None:
    made = PrunedVault(make_vault(), 6)
    made.prune(5, 2, 5, sweep=False)
    unlocked = Unlocked(made.vault)
    vault = of(made.provider, unlocked)
    assert [one.header.seq for history in vault.histories for one in history] == [6, 5, 2]
    assert (vault.findings(), weight(vault.findings())) == ([], Exit.DONE)
    made.drop(2)
    vault = of(made.provider, unlocked)
    assert [one.header.seq for history in vault.histories for one in history] == [6, 5]
    assert weight(vault.findings()) is Exit.INTEGRITY


def test_after_a_fork_both_of_one_number_can_be_named() -> None:
    """Two copies of one machine pruned, and each keeps its own number 3."""
    made = PrunedVault(make_vault(), 4)
    raw = seal_manifest(make_manifest(made.vault), STREAM, 3, made.name(2).sha256, made.vault.credential)
    rival = named(made.vault, STREAM, 3, raw)
    made.put({str(rival): raw})
    through = SnapshotId(4, made.name(4).sha256)
    for third in (made.name(3), rival):
        name, signed = made.sign(made.say(StreamKept(STREAM, through, (SnapshotId(3, third.sha256), through))))
        made.put({str(name): signed})
    vault = of(made.provider, Unlocked(made.vault))
    with pytest.raises(SeveralSnapshots) as caught:
        vault.find("3", None)
    shown = cast("list[str]", caught.value.params["candidates"])
    assert len(shown) == 2
    assert vault.find(rival.sha256.hex()[:12], None)[0].name == rival
    assert weight(vault.findings()) is Exit.INTEGRITY
