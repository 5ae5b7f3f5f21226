"""Key slots: what opens them, what must not, and that nothing runs or opens on the word of storage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from chatkeep.daemon.keys import slots
from chatkeep.daemon.keys.errors import (
    KeyRefused,
    KeysError,
    LabelRefused,
    NotMine,
    SignatureInvalid,
    SlotDamaged,
    SlotRefused,
    TextMalformed,
    TextVersion,
)
from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.keys.methods import AnyPlace, NewSlot, Params, PassphraseMethod, Place, RecoveryMethod, SlotKind
from chatkeep.daemon.keys.passphrase import Argon2Params
from chatkeep.daemon.keys.recovery import RecoveryKey
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import SlotFile, envelope_context, label_context
from chatkeep.daemon.keys.slots import OpenedSlot, create_slot, open_label, open_slot, seal_envelope
from chatkeep.daemon.keys.strict_json import encode_b64
from tests.support.flips import assert_all_refused

KEYS = EpochKeys(RootSecret(bytearray(b"r" * 32)))
FOREIGN = EpochKeys(RootSecret(bytearray(b"f" * 32)))
VAULT = b"v" * 16
NOW = 1_800_000_000_000_000_000


def recovery(digit: bytes = b"7") -> RecoveryMethod:
    return RecoveryMethod(RecoveryKey(bytearray(digit * 56)))


def weak() -> Argon2Params:
    return Argon2Params.fresh(65_536, 1, 1)


def passphrase(text: str = "correct horse") -> PassphraseMethod:
    return PassphraseMethod(lambda: text, weak)


SLOT_ID, RAW = create_slot(recovery(), KEYS, VAULT, 1, "paper", NOW)
SLOT = SlotFile.parse(RAW)


def forged(keys: EpochKeys = KEYS, second: Mapping[str, object] | None = None, **first: object) -> bytes:
    """The slot with fields changed, signed again by `keys`."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in RAW.split(b"\n")[:2]]
    lines = [lines[0] | first, lines[1] | dict(second or {})]
    vault_id = bytes.fromhex(str(lines[0]["vault"]))
    return sign_text("slot", vault_id, [json.dumps(line, separators=(",", ":")).encode() for line in lines], keys.sign)


def opens(raw: bytes) -> OpenedSlot:
    slot = SlotFile.parse(raw)
    opened = open_slot(slot, recovery())
    opened.open_envelope(slot.envelope, slot.epoch)
    open_label(slot, KEYS.open)
    return opened


def test_recovery_slot_opens_the_root_secret() -> None:
    assert (SLOT.slot_id, SLOT.vault_id, SLOT.epoch, SLOT.kind) == (SLOT_ID, VAULT, 1, "recovery-64")
    opened = open_slot(SLOT, recovery())
    assert opened.open_envelope(SLOT.envelope, 1).view() == KEYS.root.view()
    assert opened.file.pin == KEYS.sign.public
    assert open_label(SLOT, KEYS.open) == ("paper", NOW, None)


def test_file_is_the_documented_one() -> None:
    first, second, signature, end = RAW.split(b"\n")
    assert list(json.loads(first)) == ["v", "vault", "slot", "epoch", "pin", "kind", "pub", "salt", "params", "sealed"]
    assert list(json.loads(second)) == ["commit", "wrapped", "env"]
    assert signature.startswith(b"sig " + KEYS.sign.public.key_id.hex().encode() + b" ")
    assert end == b""


def test_key_schedule_is_the_documented_one() -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"chatkeep/v1/kek/recovery-64\0" + VAULT + SLOT_ID
    both = HKDF(SHA256(), 64, SLOT.salt, info).derive(b"7" * 56)
    assert both[32:] == SLOT.commitment
    bound = b"chatkeep/v1/slot\0" + RAW.split(b"\n")[0] + b"\n"
    seed = AESGCM(both[:32]).decrypt(bytes(12), SLOT.wrapped, bound)
    private = HybridPrivate.from_seed(HKDF(SHA256(), 32, None, b"chatkeep/v1/slot-kem\0").derive(seed))
    assert private.public == SLOT.public
    info = b"chatkeep/v1/slot-env\0" + VAULT + b"\0\0\0\1" + SLOT_ID
    assert private.open(SLOT.envelope, info) == KEYS.root.view()


def test_passphrase_slot_opens_the_root_secret() -> None:
    method = passphrase()
    _, raw = create_slot(method, KEYS, VAULT, 1, "", NOW)
    slot = SlotFile.parse(raw)
    assert isinstance(slot.params, Argon2Params)
    assert (slot.params.m, slot.params.t, slot.params.p) == (65_536, 1, 1)
    assert open_slot(slot, passphrase()).open_envelope(slot.envelope, 1).view() == KEYS.root.view()
    with pytest.raises(NotMine) as caught:
        open_slot(slot, passphrase("wrong horse"))
    assert caught.value.params["reason"] == "secret"


def test_wrong_secret_and_wrong_kind_are_soft() -> None:
    with pytest.raises(NotMine) as caught:
        open_slot(SLOT, recovery(b"8"))
    assert caught.value.params["reason"] == "secret"

    def never() -> str:
        raise AssertionError("asked for a passphrase that no slot needs")

    with pytest.raises(NotMine) as caught:
        open_slot(SLOT, PassphraseMethod(never))
    assert caught.value.params["reason"] == "kind"


def test_damage_anywhere_is_refused_and_never_soft() -> None:
    # A damaged slot must not be told as "not your key": NotMine is not among these.
    assert_all_refused(RAW, opens, TextMalformed, TextVersion, SignatureInvalid, KeyRefused)


def test_white_space_is_signed_too() -> None:
    with pytest.raises(SignatureInvalid):
        SlotFile.parse(RAW.replace(b'"v":1', b'"v": 1', 1))


def test_first_line_is_bound_to_the_secret_whoever_signs_it() -> None:
    # Storage signs with a key of its own and says that it is the vault's: a reader would follow the wrong chain.
    raw = forged(FOREIGN, pin=FOREIGN.sign.public.raw.hex())
    assert SlotFile.parse(raw).pin == FOREIGN.sign.public
    with pytest.raises(SlotDamaged) as caught:
        opens(raw)
    assert caught.value.params["reason"] == "wrapped"
    with pytest.raises(SlotDamaged):
        opens(forged(epoch=2))
    with pytest.raises(SlotDamaged):
        opens(forged(pub=encode_b64(FOREIGN.open.public.raw)))


def test_slot_of_another_vault_or_id_is_another_secrets() -> None:
    for raw in (forged(vault="00" * 16), forged(slot="00" * 16), forged(salt=encode_b64(bytes(32)))):
        with pytest.raises(NotMine):
            opens(raw)


def test_public_key_that_is_not_the_seeds_is_refused() -> None:
    # A faulty writer, which knows the secret: a later epoch would hand its root secret to a stranger.
    class Slipped:
        public = FOREIGN.open.public

    fired = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "_slot_key", lambda seed: fired.append(seed) or Slipped())  # type: ignore[func-returns-value]
        patch.setattr(slots, "_self_check", lambda *of: fired.append(of))
        _, raw = create_slot(recovery(), KEYS, VAULT, 1, "", NOW)
    assert len(fired) == 2
    with pytest.raises(SlotDamaged) as caught:
        open_slot(SlotFile.parse(raw), recovery())
    assert caught.value.params["reason"] == "pub"


def test_slot_that_does_not_open_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fired = []

    def faulty(*arguments: Any) -> bytes:
        fired.append(True)
        return seal_envelope(FOREIGN.root, SLOT.public, VAULT, 1, bytes(16))

    monkeypatch.setattr(slots, "seal_envelope", faulty)
    with pytest.raises(SlotDamaged) as caught:
        create_slot(recovery(), KEYS, VAULT, 1, "", NOW)
    assert caught.value.params["reason"] == "self-check"
    assert fired


def test_envelope_opens_for_its_slot_and_epoch_only() -> None:
    opened = open_slot(SLOT, recovery())
    second = seal_envelope(FOREIGN.root, SLOT.public, VAULT, 2, SLOT_ID)
    assert opened.open_envelope(second, 2).view() == FOREIGN.root.view()
    refused = [
        (second, 1),
        (SLOT.envelope, 2),
        (seal_envelope(FOREIGN.root, SLOT.public, b"w" * 16, 2, SLOT_ID), 2),
        (seal_envelope(FOREIGN.root, SLOT.public, VAULT, 2, bytes(16)), 2),
        (seal_envelope(FOREIGN.root, FOREIGN.open.public, VAULT, 2, SLOT_ID), 2),
        (SLOT.public.seal(b"31 bytes are not a root secret.", envelope_context(VAULT, 2, SLOT_ID)), 2),
    ]
    for envelope, epoch in refused:
        with pytest.raises(SlotDamaged):
            opened.open_envelope(envelope, epoch)


def test_terabyte_slot_is_refused_before_anybody_is_asked() -> None:
    params = {"m": 1 << 30, "t": 1, "p": 1, "salt": encode_b64(bytes(32))}
    asked = []
    method = PassphraseMethod(lambda: asked.append(True) or "x", weak)  # type: ignore[func-returns-value]
    slot = SlotFile.parse(forged(kind="passphrase", params=params))
    with pytest.raises(SlotRefused) as caught:
        open_slot(slot, method)
    assert caught.value.params == {"reason": "m", "value": 1 << 30}
    assert not asked


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("recovery-64", {"m": 1}),
        ("recovery-64", None),
        ("recovery-64", []),
        ("passphrase", {}),
        ("passphrase", {"m": 65536, "t": 1, "p": 1}),
        ("passphrase", {"m": 65536, "t": 1, "p": 1, "salt": "AA"}),
        ("passphrase", {"m": 65536, "t": 1, "p": 1, "salt": encode_b64(bytes(32)), "x": 1}),
        ("passphrase", {"m": 65536.0, "t": 1, "p": 1, "salt": encode_b64(bytes(32))}),
        ("passphrase", {"m": 1 << 40, "t": 1, "p": 1, "salt": encode_b64(bytes(32))}),
        ("passphrase", {"m": -1, "t": 1, "p": 1, "salt": encode_b64(bytes(32))}),
        ("recovery", {}),
    ],
)
def test_parameters_that_no_writer_makes_are_malformed(kind: str, params: object) -> None:
    with pytest.raises(TextMalformed):
        SlotFile.parse(forged(kind=kind, params=params))


@pytest.mark.parametrize("field", ["vault", "slot", "pin", "pub", "salt", "sealed", "epoch"])
def test_field_of_another_length_is_malformed(field: str) -> None:
    value = json.loads(RAW.split(b"\n")[0])[field]
    wrong = 1 << 32 if field == "epoch" else value[:-2]
    lines = [json.dumps(json.loads(RAW.split(b"\n")[0]) | {field: wrong}).encode(), RAW.split(b"\n")[1]]
    with pytest.raises(TextMalformed) as caught:
        SlotFile.parse(sign_text("slot", VAULT, lines, KEYS.sign))
    assert caught.value.params["key"] == field


@pytest.mark.parametrize("field", ["commit", "wrapped", "env"])
def test_field_of_the_second_line_is_checked_too(field: str) -> None:
    for wrong in ({field: json.loads(RAW.split(b"\n")[1])[field][:-2]}, {"new": 1}):
        with pytest.raises(TextMalformed):
            SlotFile.parse(forged(second=wrong))


def test_keys_that_give_no_security_are_refused() -> None:
    with pytest.raises(KeyRefused):
        SlotFile.parse(forged(pin="01" + "00" * 31))
    with pytest.raises(KeyRefused):
        SlotFile.parse(forged(pub=encode_b64(SLOT.public.raw[:1184] + bytes(32))))


def test_later_version_is_told() -> None:
    with pytest.raises(TextVersion):
        SlotFile.parse(forged(v=2))


def test_passphrase_is_asked_for_once_and_again_after_wiping() -> None:
    asked = []

    def ask() -> str:
        asked.append(True)
        return "correct horse"

    method = PassphraseMethod(ask, weak)
    slot = NewSlot(VAULT, SLOT_ID, weak())
    assert method.secret(slot) == method.secret(slot)
    assert len(asked) == 1
    method.wipe()
    method.secret(slot)
    assert len(asked) == 2


def test_secret_is_wiped_after_use(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept:
        kind: SlotKind = "recovery-64"
        synced = None
        given: list[bytearray]

        def __init__(self) -> None:
            self.given = []

        def fresh_params(self) -> Params:
            return None

        def among(self, slots: Sequence[AnyPlace]) -> Iterator[AnyPlace]:
            return iter(slots)

        def secret(self, slot: Place) -> bytearray:
            self.given.append(bytearray(b"7" * 56))
            return self.given[-1]

    method = Kept()
    create_slot(method, KEYS, VAULT, 1, "", NOW)
    open_slot(SLOT, method)
    with pytest.raises(NotMine):
        open_slot(SlotFile.parse(forged(vault="00" * 16)), method)
    assert method.given == [bytearray(56)] * 3


@pytest.mark.parametrize(
    ("text", "time"),
    [("", 0), ("paper", 1), ("x", 256), ("t\u00e4\u00df\u00fcr", 1 << 32), ("\0", 1 << 56), ("n" * 115, 2**63 - 1)],
)
def test_label_comes_back_also_when_it_ends_in_zero_bytes(text: str, time: int) -> None:
    _, raw = create_slot(recovery(), KEYS, VAULT, 1, text, time)
    slot = SlotFile.parse(raw)
    assert open_label(slot, KEYS.open) == (text, time, None)
    assert len(slot.sealed) == 1264


def test_label_that_does_not_fit_is_refused() -> None:
    for text, reason in (("n" * 117, "length"), ("\u00e9" * 60, "length"), ("\udcff", "encoding")):
        with pytest.raises(LabelRefused) as caught:
            create_slot(recovery(), KEYS, VAULT, 1, text, NOW)
        assert caught.value.params["reason"] == reason


@pytest.mark.parametrize(
    "content", [bytes(128), b"\xff" * 128, b"\x92\xa1x\xa1y".ljust(128, b"\0"), b"", b"\x92", b"\x92\xa2\xe3x\x01"]
)
def test_label_that_is_none_is_damage(content: bytes) -> None:
    sealed = KEYS.open.public.seal(content.ljust(128, b"\0"), label_context(VAULT, SLOT_ID))
    slot = SlotFile.parse(forged(sealed=encode_b64(sealed)))
    with pytest.raises(SlotDamaged):
        open_label(slot, KEYS.open)


def test_label_is_for_those_who_can_read() -> None:
    with pytest.raises(SlotDamaged):
        open_label(SLOT, FOREIGN.open)


def test_no_secret_in_the_file_or_its_errors() -> None:
    assert b"7777777" not in RAW
    assert b"paper" not in RAW
    with pytest.raises(KeysError) as caught:
        open_slot(SLOT, recovery(b"8"))
    assert "8888" not in repr(caught.value.params)


def test_two_slots_of_one_secret_share_nothing() -> None:
    other = SlotFile.parse(create_slot(recovery(), KEYS, VAULT, 1, "paper", NOW)[1])
    for field in ("slot_id", "salt", "public", "commitment", "wrapped", "envelope", "sealed"):
        assert getattr(other, field) != getattr(SLOT, field)
