"""A locked device and the next epoch: what it accepts, and all that it does not."""

from __future__ import annotations

import hashlib
import json

import pytest

from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import DeviceEntry, EpochRecord, create_record
from chatkeep.daemon.vault.errors import DeviceRemoved
from chatkeep.daemon.vault.follow import follow
from chatkeep.daemon.vault.names import EPOCHS, EpochName
from chatkeep.providers.base import Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.memory_provider import MemoryProvider
from tests.support.vaults import Epochs

DEVICE = b"d" * 16


class Followable(Epochs):
    """Epochs, and a device pinned to the first."""

    def __init__(self) -> None:
        self.storage = MemoryProvider()
        super().__init__(self.storage)
        self.credential = WriterCredential.generate(self.records[0], DEVICE)

    def step(self, *, stays: bool = True) -> EpochRecord:
        """A next record that lists the device, or does not; stored."""
        keys = EpochKeys(RootSecret.generate())
        devices = {DEVICE: DeviceEntry(b"c" * 32, {}, None)} if stays else {}
        record = create_record(keys, self.vault_id, (self.records[-1], self.keys[-1]), {}, devices)
        self.keys.append(keys)
        self.records.append(record)
        self.put(record)
        return record

    def hide(self, *epochs: int) -> None:
        for epoch in epochs:
            del self.storage.objects[str(self.records[epoch - 1].name)]

    def plant(self, epoch: int, raw: bytes) -> None:
        self.storage.objects[str(EpochName(epoch, hashlib.sha256(raw).digest()))] = raw


def test_nothing_new_is_no_move() -> None:
    made = Followable()
    found = follow([made.storage], made.credential)
    assert (found.credential, found.moved, found.findings) == (made.credential, False, ())


def test_several_steps_at_once() -> None:
    made = Followable()
    made.step()
    third = made.step()
    found = follow([made.storage], made.credential)
    assert found.moved
    assert found.findings == ()
    moved = found.credential
    assert (moved.pin, moved.public, moved.checkpoint) == (third.pin, third.public, third.checkpoint)
    assert moved.device_id == DEVICE
    assert moved.device_key.public == made.credential.device_key.public
    assert moved.id_key.view() == made.credential.id_key.view()
    made.credential.wipe()
    assert moved.device_key.sign(b"still its own")
    assert not follow([made.storage], moved).moved


def test_epoch_that_the_pinned_one_did_not_sign_is_refused() -> None:
    # Whatever else fits: number, hash of the record before, the vault's id. Only the signature is another's.
    made = Followable()
    record = made.step()
    fields = json.loads(record.raw.split(b"\n")[0])
    made.hide(2)
    with EpochKeys(RootSecret.generate()) as attacker:
        fields["hpke"] = fields["hpke"][:-8] + "AAAAAAA" + fields["hpke"][-1]
        fields["sign"] = attacker.sign.public.raw.hex()
        made.plant(2, sign_text("epoch", made.vault_id, [json.dumps(fields).encode()], attacker.sign))
    found = follow([made.storage], made.credential)
    assert not found.moved
    assert [one.code for one in found.findings] == ["authentication-failed"]


def test_skipped_epoch_is_not_followed() -> None:
    made = Followable()
    made.step()
    made.step()
    made.hide(2)
    found = follow([made.storage], made.credential)
    assert not found.moved
    assert [one.params["reason"] for one in found.findings] == ["unlinked"]


def test_older_epochs_do_not_lead_back() -> None:
    made = Followable()
    made.step()
    moved = follow([made.storage], made.credential).credential
    made.hide(2)
    found = follow([made.storage], moved)
    assert (found.credential, found.moved, found.findings) == (moved, False, ())


def test_fork_keeps_the_device_before_it() -> None:
    made = Followable()
    second = made.step()
    third = made.step()
    rival = create_record(EpochKeys(RootSecret.generate()), made.vault_id, (second, made.keys[1]))
    made.put(rival)
    found = follow([made.storage], made.credential)
    assert found.moved
    assert found.credential.pin == second.pin
    (fork,) = found.findings
    assert fork.code == "fork-detected"
    assert fork.params["names"] == sorted([str(third.name), str(rival.name)])


def test_fork_at_two_providers_is_one() -> None:
    made = Followable()
    made.step()
    other = MemoryProvider("other")
    rival = create_record(EpochKeys(RootSecret.generate()), made.vault_id, (made.records[0], made.keys[0]))
    other.put(str(rival.name), rival.raw)
    found = follow([made.storage, other], made.credential)
    assert not found.moved
    assert [one.code for one in found.findings] == ["fork-detected"]


def test_record_after_another_record_is_a_fork() -> None:
    # Signed by the pinned key, and naming another record before it: the vault has had two firsts.
    made = Followable()
    record = made.step()
    made.hide(2)
    fields = json.loads(record.raw.split(b"\n")[0]) | {"prev": "00" * 32}
    made.plant(2, sign_text("epoch", made.vault_id, [json.dumps(fields).encode()], made.keys[0].sign))
    found = follow([made.storage], made.credential)
    assert not found.moved
    assert [one.code for one in found.findings] == ["fork-detected"]


def test_device_that_is_left_out_stops() -> None:
    made = Followable()
    made.step(stays=False)
    with pytest.raises(DeviceRemoved) as caught:
        follow([made.storage], made.credential)
    assert caught.value.params == {"device": DEVICE.hex(), "epoch": 2}


def test_device_that_a_later_epoch_lists_again_stays_removed() -> None:
    made = Followable()
    made.step()
    made.step(stays=False)
    made.step()
    with pytest.raises(DeviceRemoved) as caught:
        follow([made.storage], made.credential)
    assert caught.value.params["epoch"] == 3


@pytest.mark.parametrize("verb", ["list", "get"])
def test_provider_that_fails_is_passed_over(verb: str) -> None:
    made = Followable()
    made.step()
    fault = Fault("list" if verb == "list" else "get", Unavailable(provider="one"), about=EPOCHS, times=None)
    broken = FaultyProvider(made.storage, fault)
    assert not follow([broken], made.credential).moved
    assert fault.fired
    if verb == "list":
        assert follow([broken, made.storage], made.credential).moved


def test_damaged_copy_is_made_up_for_by_another() -> None:
    made = Followable()
    record = made.step()
    damaged = MemoryProvider("damaged")
    damaged.objects[str(record.name)] = record.raw[:-5]
    found = follow([damaged, made.storage], made.credential)
    assert found.moved
    assert not follow([damaged], made.credential).moved
    assert [one.code for one in follow([damaged], made.credential).findings] == ["object-mismatch"]


def test_another_vault_in_the_same_storage_is_no_news() -> None:
    made = Followable()
    other = Epochs(made.storage, seed=9)
    other.rotate()
    other.rotate()
    found = follow([made.storage], made.credential)
    assert (found.moved, found.findings) == (False, ())


def test_endless_listing_is_told_and_ends() -> None:
    made = Followable()
    for number in range(1100):
        made.storage.objects[str(EpochName(2, number.to_bytes(32, "big")))] = b""
    found = follow([made.storage], made.credential)
    assert not found.moved
    assert [one.params["reason"] for one in found.findings] == ["too-many"]
