"""Somebody has a recovery key of the vault: what he reads before and after it is removed, and what stays lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import generate
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import seal_envelope
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.create import Way, add_slot
from chatkeep.daemon.vault.epoch import DeviceEntry, EpochRecord, ListedSlot, create_record
from chatkeep.daemon.vault.errors import AuthenticationFailed, ForkDetected, SlotRemoved, UnknownKey
from chatkeep.daemon.vault.follow import follow
from chatkeep.daemon.vault.manifest import VerifiedManifest, open_manifest, verify_manifest
from chatkeep.daemon.vault.names import ManifestName, SlotName, parse
from chatkeep.daemon.vault.rotate import plan_rotation, rotate
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.daemon.vault.unlocked import UnlockedVault
from tests.support.sources import Clock
from tests.support.whole import Device


class Scene:
    """A device with a snapshot; the owner's recovery key, and one that was stolen together with all that it opens."""

    def __init__(self, top: Path) -> None:
        self.source = top / "chat"
        self.source.mkdir()
        self.device = Device.make(top / "state", Clock())
        self.provider = self.device.provider
        self.owner = RecoveryMethod(self.device.recovery)
        self.stolen = RecoveryMethod(generate())
        with unlock_newest([self.provider], self.provider, self.owner, None).enrolment as enrolment:
            self.slot = add_slot([self.provider], enrolment, Way(self.stolen, "on paper"), 1)
            self.first: EpochRecord = enrolment.vault.head
        self.change()
        # The thief unlocks while he can, and keeps everything.
        self.kept: UnlockedVault = unlock(self.provider, self.stolen)
        with unlock_newest([self.provider], self.provider, self.stolen, None).enrolment as enrolment:
            self.root = bytes(enrolment.keys.root.view())

    def change(self) -> None:
        (self.source / str(len(list(self.source.iterdir())))).write_bytes(random.Random(1).randbytes(5000))
        self.device.back_up(self.source)

    def remove(self) -> EpochRecord:
        """The owner removes the stolen key, and the device follows."""
        with unlock_newest([self.provider], self.provider, self.owner, None).enrolment as enrolment:
            plan = plan_rotation([self.provider], enrolment.vault, [self.slot])
            record = rotate([self.provider], enrolment, plan)
        followed = follow([self.provider], self.device.credential)
        assert followed.moved
        self.device.credential = followed.credential
        return record

    def read(self, vault: UnlockedVault) -> list[int]:
        """The snapshots whose manifests open with the keys of `vault`."""
        opened = []
        for verified in self.verified():
            try:
                private = vault.opener(verified.header.epoch, verified.header.key_id)
                open_manifest(verified, private)
            except (UnknownKey, AuthenticationFailed):
                continue
            opened.append(verified.header.seq)
        return sorted(opened)

    def verified(self) -> list[VerifiedManifest]:
        """All manifests, with signatures that are right."""
        cert = self.kept.devices[self.device.credential.device_id]
        found = [(parse(text), raw) for text, raw in self.provider.objects.items() if "/s/" in text]
        return [verify_manifest(raw, name, cert) for name, raw in found if isinstance(name, ManifestName)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_until_it_is_removed_it_reads_everything(scene: Scene) -> None:
    scene.change()
    assert scene.read(unlock(scene.provider, scene.stolen)) == [1, 2]


def test_removed_it_reads_nothing_new_although_everything_was_kept(scene: Scene) -> None:
    scene.remove()
    scene.change()
    with pytest.raises(SlotRemoved):
        unlock(scene.provider, scene.stolen)
    assert scene.read(scene.kept) == [1]  # what was sealed before stays readable to him
    assert scene.read(unlock(scene.provider, scene.owner)) == [1, 2]


def test_nor_with_any_envelope_or_capsule_that_storage_has(scene: Scene) -> None:
    """The private key of his slot against the envelopes of the new record; the old keys against the new capsules."""
    record = scene.remove()
    scene.change()
    assert scene.slot not in record.slots
    old = [scene.kept.opener(1, scene.first.public.key_id)]
    with EpochKeys(RootSecret(bytearray(scene.root))) as keys:
        assert keys.open.public == scene.first.public  # he has what there was to have
        assert keys.sign.public != record.sign
        assert keys.checkpoint.public != record.checkpoint
    newest = max(scene.verified(), key=lambda verified: verified.header.seq)
    assert newest.header.epoch == 2
    for private in old:
        with pytest.raises((UnknownKey, AuthenticationFailed)):
            open_manifest(newest, private)


def rival(scene: Scene) -> EpochRecord:
    """A second epoch that the thief signs with the root secret he kept: of his own keys, for the owner's slot."""
    (name,) = [name for name in scene.provider.objects if name.startswith("slots/") and scene.slot.hex() not in name]
    slot = SlotFile.parse(scene.provider.objects[name])
    keys = EpochKeys(RootSecret.generate())
    envelope = seal_envelope(keys.root, slot.public, slot.vault_id, 2, slot.slot_id)
    entry = DeviceEntry(unlock(scene.provider, scene.owner).devices[scene.device.credential.device_id].sha256, {}, None)
    return create_record(
        keys,
        slot.vault_id,
        (scene.first, EpochKeys(RootSecret(bytearray(scene.root)))),
        {slot.slot_id: ListedSlot(slot.sha256, envelope)},
        {scene.device.credential.device_id: entry},
    )


def test_a_rival_epoch_beside_the_true_one_is_a_fork(scene: Scene) -> None:
    forged = rival(scene)
    scene.remove()
    scene.provider.put(str(forged.name), forged.raw)
    with pytest.raises(ForkDetected):  # nobody chooses for the owner whose keys count
        unlock(scene.provider, scene.owner)


def test_a_device_that_followed_the_true_epoch_never_takes_a_rival(scene: Scene) -> None:
    """With or without the true record beside it."""
    forged = rival(scene)
    true = scene.remove()
    pinned = scene.device.credential
    scene.provider.put(str(forged.name), forged.raw)
    hide: list[Callable[[], object]] = [lambda: None, lambda: scene.provider.delete(str(true.name))]
    for act in hide:
        act()
        followed = follow([scene.provider], pinned)
        assert (followed.credential, followed.moved) == (pinned, False)


def test_who_has_not_seen_the_true_epoch_takes_a_rival_from_storage_that_hides_it(scene: Scene) -> None:
    """The limit: old root secret and storage together deceive a fresh machine, and a device that did not follow yet."""
    forged = rival(scene)
    before = scene.device.credential
    true = scene.remove()
    scene.provider.delete(str(true.name))
    scene.provider.put(str(forged.name), forged.raw)
    assert unlock(scene.provider, scene.owner).head == forged
    followed = follow([scene.provider], before)
    assert followed.moved
    assert followed.credential.public == forged.public


def test_his_old_slot_file_in_storage_again_opens_nothing(scene: Scene) -> None:
    name = str(SlotName(scene.slot))
    old = scene.provider.objects[name]
    scene.remove()
    scene.provider.delete(name)
    scene.provider.put(name, old)
    with pytest.raises(SlotRemoved):
        unlock(scene.provider, scene.stolen)
