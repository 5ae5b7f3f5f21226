"""Checkpoints, their bytes: what is signed reads back, and nothing else does."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from chatkeep.daemon.keys.root import SigningKey, VerifyKey
from chatkeep.daemon.vault import checkpoint_codec as module
from chatkeep.daemon.vault.checkpoint import (
    Checkpoint,
    SnapshotId,
    StreamKept,
    VerifiedCheckpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    Malformed,
    ObjectMismatch,
    SelfCheckFailed,
    UnsupportedVersion,
    VaultError,
    WrongVault,
)
from chatkeep.daemon.vault.labels import SIG_CHECKPOINT
from chatkeep.daemon.vault.names import CheckpointName
from tests.support.checkpoints import NOW, checkpoint, kept, signed, snapshot
from tests.support.flips import flips
from tests.support.manifests import TestVault, make_vault

DEVICE = b"device-of-a-test"
A, B = b"a" * 16, b"b" * 16
EXAMPLE = checkpoint(
    7,
    kept(A, 9, 2, 5, 9),
    kept(B, 4),
    condemned_manifests=((A, snapshot(1)), (A, snapshot(8)), (B, snapshot(4))),
    condemned_packs=(b"p" * 32, b"q" * 32),
)


@pytest.fixture(scope="module")
def vault() -> TestVault:
    return make_vault(root=b"\x01" * 32, device_id=DEVICE)


def sign(vault: TestVault, made: Checkpoint) -> bytes:
    return signed(made, DEVICE, vault.record, vault.keys)[1]


def named(raw: bytes, number: int = 7, device_id: bytes = DEVICE) -> CheckpointName:
    return CheckpointName(device_id, number, hashlib.sha256(raw).digest())


def verify(vault: TestVault, raw: bytes, name: CheckpointName | None = None) -> VerifiedCheckpoint:
    return verify_checkpoint(raw, name or named(raw), vault.vault_id, {1: vault.record.checkpoint})


def resigned(vault: TestVault, unsigned: bytes) -> bytes:
    """The bytes under a true signature: what only the vault's own key can make, and a wrong writer would."""
    return unsigned + vault.keys.checkpoint.sign(SIG_CHECKPOINT + hashlib.sha256(unsigned).digest())


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def golden(vault: TestVault) -> bytes:
    """The signed part of EXAMPLE, written down from the page of the format."""

    def one(seq: int) -> bytes:
        return u64(seq) + hashlib.sha256(str(seq).encode()).digest()

    return b"".join(
        (
            b"CKCHKP\0\1",
            vault.vault_id + u32(1) + hashlib.sha256(vault.record.checkpoint.raw).digest()[:16] + DEVICE,
            u64(7) + b"b" * 32 + u64(NOW),
            u32(2),
            A + one(9) + u32(3) + one(2) + one(5) + one(9),
            B + one(4) + u32(0),
            u32(3) + A + one(1) + A + one(8) + B + one(4),
            u32(2) + b"p" * 32 + b"q" * 32,
            u32(0),
        )
    )


def test_the_bytes_are_those_of_the_format(vault: TestVault) -> None:
    raw = sign(vault, EXAMPLE)
    assert raw[:-64] == golden(vault)
    digest = hashlib.sha256(raw[:-64]).digest()
    vault.record.checkpoint.verify(raw[-64:], b"chatkeep/v1/sig/checkpoint\0" + digest, "checkpoint")
    # Ed25519 signs the same bytes the same way, so the whole object is settled by the root secret.
    assert hashlib.sha256(raw).hexdigest() == "b1550aec9522b6bd5a66fe51e6aacbd9c3769c64454f0a587df450b9d573c171"


def test_what_was_signed_reads_back(vault: TestVault) -> None:
    raw = sign(vault, EXAMPLE)
    found = verify(vault, raw)
    assert found == VerifiedCheckpoint(EXAMPLE, 1, DEVICE, named(raw), raw)
    assert raw.hex()[:40] not in repr(found)
    far = 999_999_999_999
    for made in (checkpoint(1), checkpoint(far, kept(A, far, 1, far))):
        raw = sign(vault, made)
        assert verify(vault, raw, named(raw, made.number)).checkpoint == made


def test_every_flipped_byte_is_refused_under_the_name_it_had_and_under_its_own(vault: TestVault) -> None:
    raw = sign(vault, EXAMPLE)
    name = named(raw)
    tried = 0
    for _, changed in flips(raw):
        with pytest.raises(ObjectMismatch):
            verify(vault, changed, name)
        with pytest.raises((AuthenticationFailed, Malformed, UnsupportedVersion, WrongVault)):
            verify(vault, changed)
        tried += 1
    assert tried == len(raw)


def test_every_length_but_the_right_one_is_refused_also_when_it_is_signed(vault: TestVault) -> None:
    raw = sign(vault, EXAMPLE)
    unsigned = raw[:-64]
    for length in range(len(raw)):
        with pytest.raises((Malformed, AuthenticationFailed)):
            verify(vault, raw[:length])
    for length in range(len(unsigned)):
        with pytest.raises(Malformed):
            verify(vault, resigned(vault, unsigned[:length]))
    for more in (b"\0", bytes(4), bytes(64), raw):
        with pytest.raises((Malformed, AuthenticationFailed)):
            verify(vault, raw + more)
        with pytest.raises(Malformed) as caught:
            verify(vault, resigned(vault, unsigned + more))
        assert caught.value.params["reason"] == "too-long"


def test_every_flip_that_the_vault_itself_signed_is_refused_or_says_something_else(vault: TestVault) -> None:
    """No two spellings of one checkpoint: each byte of the lists is either wrong or means something."""
    raw = sign(vault, EXAMPLE)
    read = refused = 0
    for _, changed in flips(raw[:-64]):
        try:
            found = verify(vault, (again := resigned(vault, changed)), named(again))
        except VaultError:
            refused += 1
        else:
            assert found.checkpoint != EXAMPLE
            read += 1
    assert (read > 100, refused > 100, read + refused) == (True, True, len(raw) - 64)


Change = Callable[[Checkpoint], Checkpoint]


def change(**fields: Any) -> Change:
    return lambda made: dataclasses.replace(made, **fields)


def rows(*streams: StreamKept) -> Change:
    return lambda made: dataclasses.replace(made, streams=streams, condemned_manifests=())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (change(number=0, prev=bytes(32)), "number"),
        (change(number=10**12), "number"),
        (change(number=1), "previous"),
        (change(prev=bytes(32)), "previous"),
        (change(time=1 << 63), "number"),
        (change(time=-1), "number"),
        (rows(kept(B, 9), kept(A, 9)), "order"),
        (rows(kept(A, 9), kept(A, 9)), "order"),
        (rows(kept(A, 9, 5, 2)), "order"),
        (rows(kept(A, 9, 5, 5)), "order"),
        (rows(StreamKept(A, snapshot(9), (snapshot(5), SnapshotId(5, b"z" * 32)))), "order"),
        (rows(kept(A, 9, 10)), "number"),
        (rows(kept(A, 0)), "number"),
        (rows(kept(A, 9, 0, 5)), "number"),
        (rows(kept(A, 10**12)), "number"),
        (rows(StreamKept(A, snapshot(9), (SnapshotId(9, b"z" * 32),))), "through"),
        (change(condemned_manifests=((A, snapshot(8)), (A, snapshot(1)))), "order"),
        (change(condemned_manifests=((A, snapshot(8)), (A, snapshot(8)))), "order"),
        (change(condemned_manifests=((A, snapshot(5)),)), "condemned"),
        (change(condemned_manifests=((A, snapshot(10)),)), "condemned"),
        (change(condemned_manifests=((A, snapshot(0)),)), "condemned"),
        (change(condemned_manifests=((b"c" * 16, snapshot(1)),)), "condemned"),
        (change(condemned_packs=(b"q" * 32, b"p" * 32)), "order"),
        (change(condemned_packs=(b"p" * 32, b"p" * 32)), "order"),
    ],
)
def test_lists_that_contradict_one_another_are_neither_signed_nor_read(
    vault: TestVault, monkeypatch: pytest.MonkeyPatch, changed: Change, reason: str
) -> None:
    wrong = changed(EXAMPLE)
    with pytest.raises(Malformed) as caught:
        sign(vault, wrong)
    assert caught.value.params["reason"] == reason
    if not 0 <= wrong.time < 1 << 64:
        return  # no bytes say that
    # A writer without rules, and the reader with them.
    with monkeypatch.context() as without:
        without.setattr("chatkeep.daemon.vault.checkpoint_codec.check_rules", lambda _: None)
        record = vault.record
        unsigned = module.encode(wrong, record.vault_id, 1, record.checkpoint.key_id, DEVICE)
    raw = resigned(vault, unsigned)
    with pytest.raises(Malformed) as caught:
        verify(vault, raw, CheckpointName(DEVICE, min(max(wrong.number, 1), 10**12 - 1), hashlib.sha256(raw).digest()))
    # Number 0 has no name, and 10^12 none either: those do not come as far as the rules.
    assert caught.value.params["reason"] in {reason, "name"}
    assert caught.value.params["name"]


def test_a_rival_of_a_kept_snapshot_may_be_condemned(vault: TestVault) -> None:
    rival = dataclasses.replace(EXAMPLE, condemned_manifests=((A, SnapshotId(5, b"z" * 32)),))
    assert verify(vault, sign(vault, rival)).checkpoint == rival


def test_the_reserved_list_is_empty(vault: TestVault) -> None:
    unsigned = golden(vault)[:-4] + u32(1)
    with pytest.raises(Malformed) as caught:
        verify(vault, resigned(vault, unsigned))
    assert caught.value.params["reason"] == "reserved"


def test_a_count_is_not_believed_beyond_the_bytes_there_are(vault: TestVault) -> None:
    """Four billion of anything, in an object of some hundred bytes."""
    unsigned = golden(vault)
    head = 108
    places = [head, head + 4 + 56, head + 4 + 56 + 4 + 120 + 56]
    places.append(places[-1] + 4)
    places.append(places[-1] + 4 + 3 * 56)
    assert [unsigned[at : at + 4] for at in places] == [u32(2), u32(3), u32(0), u32(3), u32(2)]
    tracemalloc.start()
    for at in places:
        raw = resigned(vault, unsigned[:at] + b"\xff" * 4 + unsigned[at + 4 :])
        with pytest.raises(Malformed) as caught:
            verify(vault, raw)
        assert caught.value.params["reason"] == "too-short"
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_of_another_vault_device_number_epoch_or_key_it_is_refused(vault: TestVault) -> None:
    raw = sign(vault, EXAMPLE)
    own = {1: vault.record.checkpoint}
    other = make_vault(device_id=DEVICE)
    with pytest.raises(WrongVault):
        verify_checkpoint(raw, named(raw), other.vault_id, own)
    for name in (named(raw, 8), named(raw, device_id=b"another-device!!")):
        with pytest.raises(Malformed) as caught:
            verify(vault, raw, name)
        assert caught.value.params["reason"] == "name"
    keys: list[dict[int, VerifyKey]] = [{}, {2: vault.record.checkpoint}, {1: other.record.checkpoint}]
    for wrong in keys:
        with pytest.raises(AuthenticationFailed):
            verify_checkpoint(raw, named(raw), vault.vault_id, wrong)


def test_the_vaults_other_keys_sign_no_checkpoint(vault: TestVault) -> None:
    unsigned = golden(vault)
    message = SIG_CHECKPOINT + hashlib.sha256(unsigned).digest()
    for key in (vault.keys.sign, vault.credential.device_key):
        raw = unsigned + key.sign(message)
        with pytest.raises(AuthenticationFailed):
            verify(vault, raw)
    wrong_label = unsigned + vault.keys.checkpoint.sign(b"chatkeep/v1/sig/manifest\0" + message[-32:])
    with pytest.raises(AuthenticationFailed):
        verify(vault, wrong_label)


def test_a_later_version_is_told_from_damage(vault: TestVault) -> None:
    unsigned = golden(vault)
    with pytest.raises(UnsupportedVersion) as caught:
        verify(vault, resigned(vault, unsigned[:7] + b"\2" + unsigned[8:]))
    assert caught.value.params["version"] == 2


def test_what_does_not_read_back_is_not_handed_out(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[str] = []

    def flipped(self: SigningKey, message: bytes) -> bytes:
        faults.append("sign")
        return bytes(64)

    with monkeypatch.context() as broken:
        broken.setattr(SigningKey, "sign", flipped)
        with pytest.raises(SelfCheckFailed):
            sign_checkpoint(EXAMPLE, DEVICE, vault.record, vault.keys.checkpoint)
    assert faults == ["sign"]
    # Ids of a wrong length would be cut to size without a word.
    short = dataclasses.replace(EXAMPLE, condemned_packs=(b"p" * 31, b"q" * 32))
    with pytest.raises(SelfCheckFailed):
        sign(vault, short)
    with pytest.raises(AssertionError):
        sign_checkpoint(EXAMPLE, DEVICE, vault.record, make_vault().keys.checkpoint)


def test_one_that_is_too_long_is_not_signed(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(sign(vault, EXAMPLE))
    monkeypatch.setattr("chatkeep.daemon.vault.checkpoint_codec.MAX_CHECKPOINT", size)
    sign(vault, EXAMPLE)
    monkeypatch.setattr("chatkeep.daemon.vault.checkpoint_codec.MAX_CHECKPOINT", size - 1)
    with pytest.raises(Malformed) as caught:
        sign(vault, EXAMPLE)
    assert caught.value.params["reason"] == "too-long"


def test_a_great_many_kept_ones_are_read_at_once(vault: TestVault) -> None:
    ids = tuple(map(snapshot, itertools.islice(itertools.count(1, 7), 50_000)))
    many = checkpoint(2, StreamKept(A, ids[-1], ids))
    raw = sign(vault, many)
    assert len(raw) == 108 + 4 + 60 + 40 * 50_000 + 12 + 64
    assert verify(vault, raw, named(raw, 2)).checkpoint == many
