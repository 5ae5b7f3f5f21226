"""Key slots: each opens the root secret with one secret that a person holds (docs/format.md, section 5).

secret > key encryption key > slot seed > slot key pair > envelope > root secret. The seed stays for the slot's life, so
a later epoch reaches every slot through its public key, without anybody present.
"""

from __future__ import annotations

import hmac
import os
from typing import Any, Final, NamedTuple

import msgspec

from chatkeep.daemon.keys import strict_json as js
from chatkeep.daemon.keys.errors import KeysError, LabelRefused, NotMine, SlotDamaged, Unsealable
from chatkeep.daemon.keys.holding import OpeningKey
from chatkeep.daemon.keys.hybrid import HybridPrivate, HybridPublic
from chatkeep.daemon.keys.methods import NewSlot, SlotKind, SlotMethod
from chatkeep.daemon.keys.root import ROOT_SIZE, EpochKeys, RootSecret
from chatkeep.daemon.keys.secret import Sensitive, derive, label, random_secret, take_over, wipe
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import (
    ID_SIZE,
    LABEL_SIZE,
    SlotFile,
    envelope_context,
    label_context,
    wrap_context,
    write_params,
)
from chatkeep.daemon.keys.wrapping import unwrap, wrap

_LABEL_FRAME: Final = 13  # MessagePack: array 1, text header 2, time 9, synced 1


class SlotLabel(NamedTuple):
    """What is sealed in a slot for those who can read: its label, its time of enrolment (ns), and of a passkey whether
    a vendor copies it to other machines."""

    text: str
    time: int
    synced: bool | None = None


class OpenedSlot(Sensitive):
    """A slot whose secret was right. What its first line says is authentic: vault id, issuing epoch, `pin`."""

    __slots__ = ("_private", "file")

    def __init__(self, file: SlotFile, private: HybridPrivate) -> None:
        self.file: Final = file
        self._private: Final = private

    def open_envelope(self, envelope: bytes, epoch: int) -> RootSecret:
        """The root secret of `epoch`, from the slot file (the epoch that issued it) or from that epoch's record.

        What it returns is authentic only once the keys it gives are those of a verified record: anyone can seal to a
        public key.

        Raises:
            SlotDamaged: the envelope is not for this slot and epoch, or damaged.
        """
        try:
            context = envelope_context(self.file.vault_id, epoch, self.file.slot_id)
            root = take_over(self._private.open(envelope, context))
        except Unsealable as exc:
            raise SlotDamaged(reason="envelope", slot=self.file.slot_id.hex()) from exc
        if len(root) != ROOT_SIZE:
            raise SlotDamaged(reason="envelope", slot=self.file.slot_id.hex())
        return RootSecret(root)

    def wipe(self) -> None:
        """Lets go of the slot's private key."""
        self._private.wipe()


def open_slot(slot: SlotFile, method: SlotMethod) -> OpenedSlot:
    """Opens a slot.

    Raises:
        NotMine: a slot of another kind, or of another secret. The one error after which the next slot is tried.
        SlotRefused: it asks for a derivation out of bounds, which was not run.
        SlotDamaged: the secret is right, and the rest does not fit it.
        Whatever `method` raises when it is asked for the secret.
    """
    if slot.kind != method.kind:
        raise NotMine(reason="kind")
    if slot.params is not None:
        slot.params.check()
    secret = method.secret(slot)
    try:
        return _open(slot, secret)
    finally:
        wipe(secret)


def create_slot(
    method: SlotMethod, keys: EpochKeys, vault_id: bytes, epoch: int, text: str, now_ns: int
) -> tuple[bytes, bytes]:
    """Makes a slot of the epoch with these keys, and opens it again before it is returned.

    Args:
        text: the slot's label, for those who can read.
        now_ns: time of enrolment.

    Returns:
        The slot's id, and its file.

    Raises:
        LabelRefused: the label is too long.
        SlotDamaged: what was made does not open (reason `self-check`).
        Whatever `method` raises when it is asked for the secret.
    """
    _pack_label(SlotLabel(text, now_ns, synced=True))  # before anybody makes a passkey for it
    new = NewSlot(vault_id, os.urandom(ID_SIZE), method.fresh_params())
    labelled = SlotLabel(text, now_ns, method.synced)
    secret = method.secret(new)
    try:
        raw = _write(method.kind, new, epoch, secret, keys, _pack_label(labelled))
        _self_check(raw, secret, keys, labelled)
    finally:
        wipe(secret)
    return new.slot_id, raw


def seal_envelope(root: RootSecret, public: HybridPublic, vault_id: bytes, epoch: int, slot_id: bytes) -> bytes:
    """The envelope of the root secret of `epoch` for a slot: 1168 bytes."""
    return public.seal(root.view(), envelope_context(vault_id, epoch, slot_id))


def open_label(slot: SlotFile, private: OpeningKey) -> SlotLabel:
    """A slot's label, with the `open` key of the epoch that issued it.

    Raises:
        SlotDamaged: not sealed to that key for this slot, or not a label.
    """
    try:
        padded = private.open(slot.sealed, label_context(slot.vault_id, slot.slot_id))
    except Unsealable as exc:
        raise SlotDamaged(reason="label", slot=slot.slot_id.hex()) from exc
    form = tuple[str, int, bool] if slot.kind == "webauthn-prf" else tuple[str, int]
    # The number may end in zero bytes as the padding does. MessagePack tells its own end: exactly one length decodes.
    least = len(padded.rstrip(b"\0"))
    for end in range(least, min(least + 9, len(padded)) + 1):
        try:
            found: tuple[Any, ...] = msgspec.msgpack.decode(padded[:end], type=form, strict=True)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        return SlotLabel(*found)
    raise SlotDamaged(reason="label", slot=slot.slot_id.hex())


def _write(kind: SlotKind, new: NewSlot, epoch: int, secret: bytearray, keys: EpochKeys, packed_label: bytes) -> bytes:
    vault_id, slot_id = new.vault_id, new.slot_id
    seed = random_secret(32)
    try:
        private = _slot_key(seed)
        salt = os.urandom(32)
        first = js.write_object(
            {
                "v": 1,
                "vault": vault_id.hex(),
                "slot": slot_id.hex(),
                "epoch": epoch,
                "pin": keys.sign.public.raw.hex(),
                "kind": kind,
                "pub": js.encode_b64(private.public.raw),
                "salt": js.encode_b64(salt),
                "params": write_params(new.params),
                "sealed": js.encode_b64(keys.open.public.seal(packed_label, label_context(vault_id, slot_id))),
            }
        )
        kek, commitment = _schedule(kind, secret, salt, vault_id, slot_id)
        # `salt` is fresh, so this key wraps this one seed.
        wrapped = wrap(kek, seed, wrap_context(first))
        wipe(kek)
    finally:
        wipe(seed)
    second = js.write_object(
        {
            "commit": commitment.hex(),
            "wrapped": js.encode_b64(wrapped),
            "env": js.encode_b64(seal_envelope(keys.root, private.public, vault_id, epoch, slot_id)),
        }
    )
    return sign_text("slot", vault_id, [first, second], keys.sign)


def _open(slot: SlotFile, secret: bytearray) -> OpenedSlot:
    kek, commitment = _schedule(slot.kind, secret, slot.salt, slot.vault_id, slot.slot_id)
    seed = bytearray()
    try:
        # First, and before anything is decrypted: AES-GCM alone lets one ciphertext open under two passphrases, with
        # which whoever plants slots could test many guesses at once.
        if not hmac.compare_digest(commitment, slot.commitment):
            raise NotMine(reason="secret")
        seed = unwrap(kek, slot.wrapped, wrap_context(slot.first_line))
        private = _slot_key(seed)
    except Unsealable as exc:
        raise SlotDamaged(reason="wrapped", slot=slot.slot_id.hex()) from exc
    finally:
        wipe(kek)
        wipe(seed)
    # A later epoch's envelope is sealed to `pub`: one that is not this slot's would hand the root secret to a stranger.
    if private.public != slot.public:
        raise SlotDamaged(reason="pub", slot=slot.slot_id.hex())
    return OpenedSlot(slot, private)


def _self_check(raw: bytes, secret: bytearray, keys: EpochKeys, labelled: SlotLabel) -> None:
    """A slot that does not open is found now, while its secret is known, and not on the day it is needed."""
    try:
        slot = SlotFile.parse(raw)
        opened = _open(slot, secret)
        root = opened.open_envelope(slot.envelope, slot.epoch)
        whole = hmac.compare_digest(root.view(), keys.root.view()) and open_label(slot, keys.open) == labelled
        root.wipe()
        opened.wipe()
    except KeysError as exc:
        raise SlotDamaged(reason="self-check") from exc
    if not whole:
        raise SlotDamaged(reason="self-check")


def _schedule(
    kind: SlotKind, secret: bytearray, salt: bytes, vault_id: bytes, slot_id: bytes
) -> tuple[bytearray, bytes]:
    """The key encryption key, for the caller to wipe, and the commitment to it."""
    both = derive(secret, label(f"kek/{kind}") + vault_id + slot_id, size=64, salt=salt)
    kek, commitment = both[:32], bytes(both[32:])
    wipe(both)
    return kek, commitment


def _slot_key(seed: bytearray) -> HybridPrivate:
    hybrid_seed = derive(seed, label("slot-kem"))
    try:
        return HybridPrivate.from_seed(hybrid_seed)
    finally:
        wipe(hybrid_seed)


def _pack_label(labelled: SlotLabel) -> bytes:
    try:
        packed = msgspec.msgpack.encode(labelled[:2] if labelled.synced is None else labelled)
    except UnicodeEncodeError as exc:  # half a character, from an argument that was not UTF-8
        raise LabelRefused(reason="encoding") from exc
    if len(packed) > LABEL_SIZE:
        size = len(labelled.text.encode())
        raise LabelRefused(reason="length", size=size, limit=LABEL_SIZE - _LABEL_FRAME)
    return packed.ljust(LABEL_SIZE, b"\0")
