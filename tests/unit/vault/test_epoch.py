"""Epoch records and device certificates: what is verified by what, and that nothing else counts."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from chatkeep.daemon.keys.errors import Unsealable
from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.vault.epoch import (
    DeviceCert,
    DeviceEntry,
    EpochClaim,
    EpochRecord,
    Head,
    ListedSlot,
    create_record,
    vault_id_of,
)
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    ForkDetected,
    Malformed,
    UnsupportedVersion,
    VaultError,
    WrongVault,
)
from tests.support.flips import assert_all_refused


def keys(fill: bytes) -> EpochKeys:
    return EpochKeys(RootSecret(bytearray(fill * 32)))


K1, K2, K3, FOREIGN = keys(b"1"), keys(b"2"), keys(b"3"), keys(b"f")
VAULT = vault_id_of(K1.sign.public)
R1 = create_record(K1, VAULT)
SLOT, DEVICE, GONE = b"s" * 16, b"d" * 16, b"g" * 16
STAYS = DeviceEntry(b"c" * 32, {b"1" * 16: Head(7, b"m" * 32), b"2" * 16: Head(1, b"o" * 32)}, Head(4, b"k" * 32))
CLOSED = DeviceEntry(b"z" * 32, {b"1" * 16: Head(3, b"x" * 32)}, None)
R2 = create_record(
    K2,
    VAULT,
    (R1, K1),
    slots={SLOT: ListedSlot(b"h" * 32, b"e" * 1168)},
    devices={DEVICE: STAYS, b"n" * 16: DeviceEntry(b"c" * 32, {}, None)},
    removed={GONE: CLOSED},
)


def resigned(record: EpochRecord, signer: SigningKey, **change: object) -> bytes:
    """The record with its fields changed, signed again: what an attacker with `signer` could make."""
    fields: dict[str, Any] = json.loads(record.raw.split(b"\n")[0]) | change
    return sign_text("epoch", bytes.fromhex(fields["vault"]), [json.dumps(fields).encode()], signer)


def entry(**change: object) -> dict[str, object]:
    return {"cert": "00" * 32, "heads": {}, "checkpoint": None} | change


def test_vault_id_is_the_documented_hash() -> None:
    assert hashlib.sha256(b"chatkeep/v1/vault\0" + K1.sign.public.raw).digest()[:16] == VAULT


def test_first_record_reads_back() -> None:
    read = EpochClaim.parse(R1.raw).as_first(VAULT)
    assert read == R1
    assert (read.epoch, read.prev, read.older, read.slots, read.devices, read.removed) == (1, None, None, {}, {}, {})
    assert read.matches(K1)
    assert not read.matches(K2)
    assert str(read.name) == f"epochs/00000001-{hashlib.sha256(R1.raw).hexdigest()}"


def test_second_record_reads_back() -> None:
    read = EpochClaim.parse(R2.raw).as_successor(R1.pin)
    assert read == R2
    assert read.prev == R1.sha256
    assert read.slots[SLOT] == ListedSlot(b"h" * 32, b"e" * 1168)
    assert read.devices == {DEVICE: STAYS, b"n" * 16: DeviceEntry(b"c" * 32, {}, None)}
    assert read.removed == {GONE: CLOSED}
    assert read.older is not None
    assert K2.unwrap_older(read.older, VAULT, 2).view() == K1.root.view()
    with pytest.raises(Unsealable):
        K3.unwrap_older(read.older, VAULT, 2)


def test_each_public_key_counts_in_matching() -> None:
    for field, value in (
        ("sign", FOREIGN.sign.public.raw.hex()),
        ("checkpoint", FOREIGN.sign.public.raw.hex()),
        ("hpke", json.loads(create_record(FOREIGN, vault_id_of(FOREIGN.sign.public)).raw.split(b"\n")[0])["hpke"]),
    ):
        raw = resigned(R2, K1.sign, **{field: value})
        assert not EpochClaim.parse(raw).as_successor(R1.pin).matches(K2)


def test_damage_anywhere_is_refused() -> None:
    assert_all_refused(R1.raw, lambda raw: EpochClaim.parse(raw).as_first(VAULT), VaultError)
    assert_all_refused(R2.raw, lambda raw: EpochClaim.parse(raw).as_successor(R1.pin), VaultError)


def test_swapped_first_epoch_is_of_another_vault() -> None:
    foreign = create_record(FOREIGN, vault_id_of(FOREIGN.sign.public))
    with pytest.raises(WrongVault):
        EpochClaim.parse(foreign.raw).as_first(VAULT)
    # Claiming our vault id does not help: the id is the hash of the key.
    forged = resigned(foreign, FOREIGN.sign, vault=VAULT.hex())
    with pytest.raises(WrongVault):
        EpochClaim.parse(forged).as_first(VAULT)
    # Nor does our key, which the forger cannot sign with.
    forged = resigned(R1, FOREIGN.sign)
    with pytest.raises(AuthenticationFailed):
        EpochClaim.parse(forged).as_first(VAULT)


def test_self_signed_second_epoch_is_refused() -> None:
    forged = resigned(R2, FOREIGN.sign, sign=FOREIGN.sign.public.raw.hex())
    with pytest.raises(AuthenticationFailed):
        EpochClaim.parse(forged).as_successor(R1.pin)


def test_second_epoch_is_not_a_first_one() -> None:
    with pytest.raises(WrongVault):
        EpochClaim.parse(R2.raw).as_first(VAULT)


def test_only_the_next_number_follows() -> None:
    third = create_record(K3, VAULT, (R2, K2))
    assert EpochClaim.parse(third.raw).as_successor(R2.pin).epoch == 3
    with pytest.raises(AuthenticationFailed) as caught:
        EpochClaim.parse(third.raw).as_successor(R1.pin)
    assert caught.value.params["reason"] == "number"
    with pytest.raises(AuthenticationFailed):
        EpochClaim.parse(R1.raw).as_successor(R2.pin)
    # Renumbered and signed by the right epoch, it still follows another record than the pinned one.
    skipping = resigned(third, K1.sign, epoch=2)
    with pytest.raises(ForkDetected):
        EpochClaim.parse(skipping).as_successor(R1.pin)


def test_successor_of_another_record_is_a_fork() -> None:
    rival = resigned(R2, K1.sign, prev="00" * 32)
    with pytest.raises(ForkDetected):
        EpochClaim.parse(rival).as_successor(R1.pin)


def test_record_of_another_vault_does_not_follow() -> None:
    rival = resigned(R2, K1.sign, vault="00" * 16)
    with pytest.raises(WrongVault):
        EpochClaim.parse(rival).as_successor(R1.pin)


@pytest.mark.parametrize(
    "change",
    [
        {"prev": "00" * 32},
        {"older": "A" * 64},
        {"prev": "00" * 32, "older": "A" * 64},
        {"slots": {"00" * 16: {"file": "00" * 32, "env": "A" * 1558}}},
        {"removed": {"00" * 16: entry()}},
        {"devices": {"00" * 16: entry()}},
        {"epoch": 2},
        {"epoch": 0},
        {"epoch": 100_000_000},
        {"new": 1},
        {"v": "1"},
        {"hpke": "A" * 1622},
        {"sign": "01" + "00" * 31},
        {"checkpoint": "00" * 32},
        {"sign": "00" * 31},
    ],
)
def test_first_record_that_no_writer_makes_is_malformed(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        EpochClaim.parse(resigned(R1, K1.sign, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"prev": None},
        {"older": None},
        {"removed": {"00" * 16: None}},
        {"removed": {"00" * 16: [1, "00" * 32]}},
        {"removed": {"00" * 16: entry(heads={"00" * 16: [0, "00" * 32]})}},
        {"removed": {"00" * 16: entry(heads={"00" * 16: [10**12, "00" * 32]})}},
        {"removed": {"00" * 16: entry(heads={"00" * 16: None})}},
        {"removed": {"00" * 16: entry(heads={"00" * 15: [1, "00" * 32]})}},
        {"removed": {"00" * 16: entry(heads={f"{number:032x}": [1, "00" * 32] for number in range(1025)})}},
        {"devices": {"00" * 16: entry(heads=None)}},
        {"devices": {"00" * 16: entry(checkpoint=[0, "00" * 32])}},
        {"devices": {"00" * 16: entry(checkpoint=[1, "00" * 31])}},
        {"devices": {"00" * 16: entry(cert=None)}},
        {"devices": {"00" * 16: entry(head=None)}},
        {"devices": {"00" * 16: {"cert": "00" * 32, "heads": {}}}},
    ],
)
def test_later_record_that_no_writer_makes_is_malformed(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        EpochClaim.parse(resigned(R2, K1.sign, **change))


def test_device_that_stays_was_not_removed() -> None:
    with pytest.raises(Malformed) as caught:
        EpochClaim.parse(resigned(R2, K1.sign, removed={DEVICE.hex(): entry()}))
    assert caught.value.params["reason"] == "device-twice"


def test_duplicate_key_is_malformed() -> None:
    line = R1.raw.split(b"\n")[0].replace(b'"epoch":1,', b'"epoch":1,"epoch":1,')
    assert line.count(b'"epoch"') == 2
    with pytest.raises(Malformed):
        EpochClaim.parse(sign_text("epoch", VAULT, [line], K1.sign))


def test_later_format_is_told() -> None:
    with pytest.raises(UnsupportedVersion):
        EpochClaim.parse(resigned(R1, K1.sign, v=2))


CERT = DeviceCert.create(K1, VAULT, 1, DEVICE, SigningKey(b"k" * 32).public)
SIGNERS = {1: K1.sign.public, 2: K2.sign.public}


def certificate(signer: SigningKey, **change: object) -> bytes:
    fields = json.loads(CERT.raw.split(b"\n")[0]) | change
    return sign_text("device", bytes.fromhex(fields["vault"]), [json.dumps(fields).encode()], signer)


def test_certificate_reads_back() -> None:
    read = DeviceCert.read(CERT.raw, VAULT, SIGNERS)
    assert read == CERT
    assert (read.device_id, read.epoch, read.key) == (DEVICE, 1, SigningKey(b"k" * 32).public)
    assert read.sha256 == hashlib.sha256(CERT.raw).digest()


def test_damaged_certificate_is_refused() -> None:
    assert_all_refused(CERT.raw, lambda raw: DeviceCert.read(raw, VAULT, SIGNERS), VaultError)


def test_certificate_counts_only_from_the_epoch_it_names() -> None:
    with pytest.raises(AuthenticationFailed):
        DeviceCert.read(certificate(K2.sign), VAULT, SIGNERS)
    with pytest.raises(AuthenticationFailed):
        DeviceCert.read(certificate(K1.sign, epoch=2), VAULT, SIGNERS)
    with pytest.raises(AuthenticationFailed) as caught:
        DeviceCert.read(certificate(K3.sign, epoch=3), VAULT, SIGNERS)
    assert caught.value.params["reason"] == "epoch"
    assert DeviceCert.read(certificate(K2.sign, epoch=2), VAULT, SIGNERS).epoch == 2


def test_certificate_of_another_vault_is_refused() -> None:
    with pytest.raises(WrongVault):
        DeviceCert.read(certificate(K1.sign, vault="00" * 16), VAULT, SIGNERS)


def test_slot_signature_does_not_make_a_certificate() -> None:
    raw = sign_text("slot", VAULT, [CERT.raw.split(b"\n")[0]], K1.sign)
    with pytest.raises(AuthenticationFailed):
        DeviceCert.read(raw, VAULT, SIGNERS)


@pytest.mark.parametrize("key", ["01" + "00" * 31, "00" * 32, "ec" + "ff" * 30 + "7f", "ee" + "ff" * 31])
def test_small_order_device_key_is_refused_although_it_is_signed(key: str) -> None:
    with pytest.raises(Malformed) as caught:
        DeviceCert.read(certificate(K1.sign, key=key), VAULT, SIGNERS)
    assert caught.value.params["reason"] == "key-small-order"


def test_role_is_writer() -> None:
    with pytest.raises(Malformed):
        DeviceCert.read(certificate(K1.sign, role="owner"), VAULT, SIGNERS)
