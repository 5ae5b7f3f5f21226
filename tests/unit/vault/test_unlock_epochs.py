"""Unlocking through several epochs, and what storage, removed slots and old keys must not achieve."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from chatkeep.daemon.keys.errors import NoSlotOpened, WrongRecoveryKey
from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import create_slot, seal_envelope
from chatkeep.daemon.keys.strict_json import encode_b64
from chatkeep.daemon.vault.chain import MOST_RECORDS
from chatkeep.daemon.vault.epoch import DeviceCert, EpochRecord, Head, create_record, vault_id_of
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    ForkDetected,
    Malformed,
    MissingObject,
    ObjectMismatch,
    SlotRemoved,
    VaultError,
    WrongVault,
)
from chatkeep.daemon.vault.names import DeviceName, EpochName, SlotName
from chatkeep.daemon.vault.unlock import unlock, unlock_to_enrol
from tests.support.memory_provider import MemoryProvider
from tests.support.vaults import NOW, STREAM, Epochs, recovery


def three_epochs() -> tuple[MemoryProvider, Epochs, bytes]:
    """Epochs 1 to 3 and a slot of the first that stayed."""
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    epochs.rotate([slot_id])
    epochs.rotate([slot_id])
    return provider, epochs, slot_id


def resign(provider: MemoryProvider, record: EpochRecord, signer: SigningKey, **change: object) -> str:
    """Replaces a record in storage by one with fields changed, signed by `signer`."""
    fields = json.loads(record.raw.split(b"\n")[0]) | change
    raw = sign_text("epoch", bytes.fromhex(fields["vault"]), [json.dumps(fields).encode()], signer)
    del provider.objects[str(record.name)]
    return plant(provider, record.epoch, raw)


def plant(provider: MemoryProvider, epoch: int, raw: bytes) -> str:
    name = str(EpochName(epoch, hashlib.sha256(raw).digest()))
    provider.objects[name] = raw
    return name


def test_slot_of_the_first_epoch_reads_all() -> None:
    provider, epochs, _ = three_epochs()
    vault = unlock(provider, recovery())
    assert vault.records == tuple(epochs.records)
    assert vault.findings == ()
    for record in epochs.records:
        sealed = record.public.seal(b"x", b"")
        assert vault.opener(record.epoch, record.public.key_id).open(sealed, b"") == b"x"
    with pytest.raises(VaultError):
        vault.opener(1, epochs.records[1].public.key_id)


@pytest.mark.parametrize("issued", [1, 2, 3])
def test_slot_of_any_epoch_reads_all(issued: int) -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slots: list[bytes] = []
    for epoch in (1, 2, 3):
        if epoch == issued:
            slots.append(epochs.add_slot(recovery()))
        if epoch < 3:
            epochs.rotate(slots)
    vault = unlock(provider, recovery())
    assert vault.records == tuple(epochs.records)
    assert unlock_to_enrol(provider, recovery()).keys.sign.public == epochs.records[-1].sign


def test_removed_slot_does_not_open() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    stays, goes = epochs.add_slot(recovery(1)), epochs.add_slot(recovery(2))
    epochs.rotate([stays])
    assert unlock(provider, recovery(1)).head.epoch == 2
    # Its file is still in storage, and its old envelope opens the old root secret: it must not count any more.
    with pytest.raises(SlotRemoved) as caught:
        unlock(provider, recovery(2))
    assert caught.value.params == {"slot": goes.hex(), "epoch": 2}


def test_secret_that_was_removed_and_enrolled_anew_opens() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    stays = epochs.add_slot(recovery(1))
    epochs.add_slot(recovery(2))
    epochs.rotate([stays])
    epochs.add_slot(recovery(2))
    vault = unlock(provider, recovery(2))
    assert vault.head.epoch == 2
    assert {finding.code for finding in vault.findings} <= {"slot-removed"}


def test_listed_slot_is_the_file_that_was_listed() -> None:
    # A slot of the same id and secret, issued again in epoch 1 by whoever kept its keys: not the listed file.
    provider, epochs, slot_id = three_epochs()
    real = os.urandom
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: slot_id if size == 16 else real(size))
        again, raw = create_slot(recovery(), epochs.keys[0], epochs.vault_id, 1, "", NOW)
    assert again == slot_id
    provider.objects[str(SlotName(slot_id))] = raw
    with pytest.raises(ObjectMismatch):
        unlock(provider, recovery())


@pytest.mark.parametrize("gone", [1, 2])
def test_withheld_record_below_is_told(gone: int) -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    epochs.rotate()
    epochs.rotate()
    epochs.add_slot(recovery())
    del provider.objects[str(epochs.records[gone - 1].name)]
    with pytest.raises(MissingObject) as caught:
        unlock(provider, recovery())
    assert caught.value.params["name"] == str(epochs.records[gone - 1].name)


def test_record_that_a_listing_misses_is_asked_for_by_name() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    epochs.rotate()
    epochs.rotate()
    epochs.add_slot(recovery())
    provider.unlisted = {str(record.name) for record in epochs.records[:2]}
    assert len(unlock(provider, recovery()).records) == 3


def test_withheld_link_above_is_a_finding() -> None:
    provider, epochs, _ = three_epochs()
    del provider.objects[str(epochs.records[1].name)]
    vault = unlock(provider, recovery())
    assert vault.head.epoch == 1
    (finding,) = vault.findings
    assert finding.params["reason"] == "unlinked"
    assert finding.params["name"] == str(epochs.records[2].name)


def test_planted_first_epoch_does_not_count() -> None:
    provider, epochs, _ = three_epochs()
    foreign = EpochKeys(RootSecret.generate())
    record = create_record(foreign, vault_id_of(foreign.sign.public))
    epochs.put(record)
    # Another vault's in the same storage is no finding; one that claims to be ours is.
    assert unlock(provider, recovery()).findings == ()
    resign(provider, record, foreign.sign, vault=epochs.vault_id.hex())
    vault = unlock(provider, recovery())
    assert vault.records == tuple(epochs.records)
    assert [finding.params["reason"] for finding in vault.findings] == ["pin"]
    del provider.objects[str(epochs.records[0].name)]
    with pytest.raises(AuthenticationFailed) as caught:
        unlock(provider, recovery())
    assert caught.value.params["reason"] == "pin"


def test_first_epoch_with_our_pin_and_another_key_is_refused() -> None:
    # Storage copies the sign key, which is public, and puts its own sealing key beside it.
    provider = MemoryProvider()
    epochs = Epochs(provider)
    epochs.add_slot(recovery())
    foreign = EpochKeys(RootSecret.generate())
    resign(provider, epochs.records[0], foreign.sign, hpke=encode_b64(foreign.open.public.raw))
    with pytest.raises(AuthenticationFailed):
        unlock(provider, recovery())


def test_planted_successor_does_not_count() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    foreign = EpochKeys(RootSecret.generate())
    raw = epochs.next_record(foreign, [slot_id]).raw
    fields = json.loads(raw.split(b"\n")[0])
    plant(provider, 2, sign_text("epoch", epochs.vault_id, [json.dumps(fields).encode()], foreign.sign))
    vault = unlock(provider, recovery())
    assert vault.head.epoch == 1
    assert [finding.params["reason"] for finding in vault.findings] == ["signature-invalid"]


def test_two_successors_are_a_fork() -> None:
    provider, epochs, slot_id = three_epochs()
    rival = epochs.next_record(EpochKeys(RootSecret.generate()), [slot_id])
    epochs.put(rival)
    assert unlock(provider, recovery()).head == rival  # one successor of epoch 3
    epochs.put(epochs.next_record(EpochKeys(RootSecret.generate()), [slot_id]))
    with pytest.raises(ForkDetected):
        unlock(provider, recovery())


def test_two_records_of_the_slots_own_epoch_are_a_fork() -> None:
    # Whoever kept the removed epoch's keys signs a second record with the same pin, and other slots and devices.
    provider = MemoryProvider()
    epochs = Epochs(provider)
    goes = epochs.add_slot(recovery(2))
    first_keys, first_record = epochs.keys[0], epochs.records[0]
    epochs.rotate()
    epochs.add_slot(recovery())
    epochs.records.pop()
    second_keys = epochs.keys.pop()
    assert (epochs.keys, epochs.records) == ([first_keys], [first_record])
    epochs.put(epochs.next_record(second_keys, [goes]))
    with pytest.raises(ForkDetected):
        unlock(provider, recovery())


def test_skipped_epoch_does_not_count() -> None:
    provider, epochs, slot_id = three_epochs()
    # A fourth record that follows the third, renumbered to five by the epoch's own key: a hole in the chain.
    record = epochs.next_record(EpochKeys(RootSecret.generate()), [slot_id])
    epochs.put(record)
    resign(provider, record, epochs.keys[-1].sign, epoch=5)
    vault = unlock(provider, recovery())
    assert vault.head.epoch == 3
    assert [finding.code for finding in vault.findings] == ["malformed"]  # its name says 4


def test_envelope_for_another_root_secret_is_refused() -> None:
    # Anyone can seal to the slot's public key, which is in the open.
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    record = epochs.rotate([slot_id])
    foreign = EpochKeys(RootSecret.generate())
    slot = next(iter(record.slots.values()))
    public = SlotFile.parse(epochs.slots[slot_id]).public
    forged = {
        slot_id.hex(): {
            "file": slot.file.hex(),
            "env": encode_b64(seal_envelope(foreign.root, public, epochs.vault_id, 2, slot_id)),
        }
    }
    resign(provider, record, epochs.keys[0].sign, slots=forged)
    with pytest.raises(AuthenticationFailed) as caught:
        unlock(provider, recovery())
    assert caught.value.params["what"] == "epoch-keys"


def test_envelope_of_an_earlier_epoch_is_refused() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    record = epochs.rotate([slot_id])
    slot = SlotFile.parse(epochs.slots[slot_id])
    replayed = {slot_id.hex(): {"file": slot.sha256.hex(), "env": encode_b64(slot.envelope)}}
    resign(provider, record, epochs.keys[0].sign, slots=replayed)
    with pytest.raises(AuthenticationFailed) as caught:
        unlock(provider, recovery())
    assert caught.value.params["what"] == "envelope"


def test_invented_past_is_refused() -> None:
    # `older` holding a root secret of the attacker's: it opens, and its keys are not those of the first record.
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    record = epochs.rotate([slot_id])
    invented = epochs.keys[1].wrap_older(RootSecret.generate(), epochs.vault_id, 2)
    resign(provider, record, epochs.keys[0].sign, older=encode_b64(invented))
    with pytest.raises(AuthenticationFailed) as caught:
        unlock(provider, recovery())
    assert caught.value.params == {"what": "epoch-keys", "epoch": 1}
    provider, epochs, _ = three_epochs()
    resign(provider, epochs.records[2], epochs.keys[1].sign, older=encode_b64(bytes(48)))
    with pytest.raises(AuthenticationFailed) as caught:
        unlock(provider, recovery())
    assert caught.value.params["what"] == "older"


def test_slot_that_names_a_later_epoch_than_there_is() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    epochs.add_slot(recovery())
    del provider.objects[str(epochs.records[0].name)]
    with pytest.raises(MissingObject) as caught:
        unlock(provider, recovery())
    assert caught.value.params["name"] == "epochs/00000001"


def test_chain_that_begins_with_another_vault_is_refused() -> None:
    # The keys of a first epoch, whose records and slots claim the id of another vault.
    provider = MemoryProvider()
    epochs = Epochs(provider)
    claimed = b"\1" * 16
    slot_id, raw = create_slot(recovery(), epochs.keys[0], claimed, 1, "", NOW)
    provider.put(str(SlotName(slot_id)), raw)
    fields = json.loads(epochs.records[0].raw.split(b"\n")[0]) | {"vault": claimed.hex()}
    plant(provider, 1, sign_text("epoch", claimed, [json.dumps(fields).encode()], epochs.keys[0].sign))
    with pytest.raises(WrongVault):
        unlock(provider, recovery(), claimed)


def test_damaged_records_beside_the_true_ones_are_findings() -> None:
    provider, epochs, _ = three_epochs()
    for epoch, raw in ((1, b"junk"), (2, epochs.records[1].raw[:-1]), (4, b"junk")):
        plant(provider, epoch, raw)
    provider.objects[str(EpochName(3, bytes(32)))] = epochs.records[2].raw
    vault = unlock(provider, recovery())
    assert vault.records == tuple(epochs.records)
    assert sorted(finding.code for finding in vault.findings) == [
        "malformed",
        "malformed",
        "malformed",
        "object-mismatch",
    ]


def test_too_many_records_are_refused_before_any_is_fetched() -> None:
    provider, _, _ = three_epochs()
    for number in range(MOST_RECORDS):
        provider.objects[str(EpochName(1, number.to_bytes(32, "big")))] = b""
    provider.verbs.clear()
    with pytest.raises(Malformed):
        unlock(provider, recovery())
    assert not [name for verb, name in provider.verbs if verb == "get" and name.startswith("epochs/")]


def test_devices_are_those_listed_and_those_of_the_newest_epoch() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    stays, goes, dropped = (epochs.add_device() for _ in range(3))
    record = epochs.rotate([slot_id], devices=[stays], removed=[goes])
    new = epochs.add_device()
    vault = unlock(provider, recovery())
    assert set(vault.devices) == {stays, new}
    assert vault.devices[new].epoch == 2
    assert vault.devices[stays].sha256 == record.devices[stays].certificate
    assert set(vault.removed) == {goes}
    assert vault.removed[goes].entry.heads == {STREAM: Head(5, b"h" * 32)}
    (finding,) = vault.findings
    assert finding.params["name"] == str(DeviceName(dropped))
    assert finding.params["reason"] == "not-listed"


def test_listed_device_without_its_certificate_is_a_finding() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    device = epochs.add_device()
    epochs.rotate([slot_id], devices=[device])
    del provider.objects[str(DeviceName(device))]
    vault = unlock(provider, recovery())
    assert vault.devices == {}
    assert isinstance(vault.findings[0], MissingObject)


def test_other_certificate_of_a_listed_device_does_not_count() -> None:
    # Signed by the keys of an epoch that is over: a leaked old root secret certifies nobody.
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    device = epochs.add_device()
    epochs.rotate([slot_id], devices=[device])
    rogue = DeviceCert.create(epochs.keys[0], epochs.vault_id, 1, device, SigningKey(b"e" * 32).public)
    provider.objects[str(DeviceName(device))] = rogue.raw
    vault = unlock(provider, recovery())
    assert vault.devices == {}
    assert vault.findings[0].params["reason"] == "not-listed"


def test_other_certificate_of_a_removed_device_does_not_count() -> None:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    device = epochs.add_device()
    epochs.rotate([slot_id], removed=[device])
    rogue = DeviceCert.create(epochs.keys[0], epochs.vault_id, 1, device, SigningKey(b"e" * 32).public)
    provider.objects[str(DeviceName(device))] = rogue.raw
    vault = unlock(provider, recovery())
    assert (vault.devices, vault.removed) == ({}, {})
    assert vault.findings[0].params["reason"] == "not-listed"


def test_newest_epochs_certificate_does_not_replace_a_listed_one() -> None:
    # Whoever has the newest keys adds devices under ids of their own; a listed one is who it was.
    provider = MemoryProvider()
    epochs = Epochs(provider)
    slot_id = epochs.add_slot(recovery())
    device = epochs.add_device()
    epochs.rotate([slot_id], devices=[device])
    rogue = DeviceCert.create(epochs.keys[1], epochs.vault_id, 2, device, SigningKey(b"e" * 32).public)
    provider.objects[str(DeviceName(device))] = rogue.raw
    vault = unlock(provider, recovery())
    assert vault.devices == {}
    assert vault.findings[0].params["reason"] == "not-listed"


def test_past_keys_open_and_do_not_sign() -> None:
    provider, epochs, _ = three_epochs()
    with unlock_to_enrol(provider, recovery()) as enrolment:
        assert enrolment.keys.sign.public == epochs.records[-1].sign
        assert enrolment.vault.opener(1, epochs.records[0].public.key_id)


def test_wrong_key_stays_wrong_with_several_epochs() -> None:
    provider, _, _ = three_epochs()
    with pytest.raises(WrongRecoveryKey):
        unlock(provider, recovery(3))
    with pytest.raises(NoSlotOpened):
        unlock(provider, recovery(3))
