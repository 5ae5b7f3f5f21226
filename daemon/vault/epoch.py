"""Epoch records and device certificates (docs/format.md, sections 3, 4 and 6). Pure.

What a reader or a device trusts comes from here. A record counts only through its place in a chain: the first is known
by the vault id, each later one by the signature of the one before. So parsing gives a *claim*, which offers nothing to
act on; an `EpochRecord` is only ever what verifying a claim returned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from chatkeep.daemon.keys import strict_json as js
from chatkeep.daemon.keys.errors import KeyRefused, SignatureInvalid, TextMalformed, TextVersion, Unsealable
from chatkeep.daemon.keys.hybrid import OVERHEAD, PUBLIC_SIZE, HybridPublic
from chatkeep.daemon.keys.root import ROOT_SIZE, VERIFY_KEY_SIZE, EpochKeys, VerifyKey
from chatkeep.daemon.keys.signed import SplitText, sign_text, split_text
from chatkeep.daemon.vault.errors import AuthenticationFailed, ForkDetected, Malformed, UnsupportedVersion, WrongVault
from chatkeep.daemon.vault.labels import HASH_SIZE, ID_SIZE, TAG_SIZE, VAULT_ID
from chatkeep.daemon.vault.names import MAX_EPOCH, MAX_SEQ, EpochName

ENVELOPE_SIZE: Final = ROOT_SIZE + OVERHEAD

_MOST_LISTED: Final = 1024  # of slots, devices, or streams of a device; a record's length (256 KiB) allows fewer slots
_HEAD: Final = js.row(js.integer(1, MAX_SEQ), js.hexadecimal(HASH_SIZE))
_DEVICES: Final = js.table(
    ID_SIZE,
    js.nested(
        {
            "cert": js.hexadecimal(HASH_SIZE),
            "heads": js.table(ID_SIZE, _HEAD, _MOST_LISTED),
            "checkpoint": js.optional(_HEAD),
        }
    ),
    _MOST_LISTED,
)
_RECORD: Final[js.Spec] = {
    "v": js.exactly(1),
    "vault": js.hexadecimal(ID_SIZE),
    "epoch": js.integer(1, MAX_EPOCH),
    "hpke": js.b64(PUBLIC_SIZE),
    "sign": js.hexadecimal(VERIFY_KEY_SIZE),
    "checkpoint": js.hexadecimal(VERIFY_KEY_SIZE),
    "prev": js.optional(js.hexadecimal(HASH_SIZE)),
    "older": js.optional(js.b64(ROOT_SIZE + TAG_SIZE)),
    "slots": js.table(
        ID_SIZE, js.nested({"file": js.hexadecimal(HASH_SIZE), "env": js.b64(ENVELOPE_SIZE)}), _MOST_LISTED
    ),
    "devices": _DEVICES,
    "removed": _DEVICES,
}
_CERTIFICATE: Final[js.Spec] = {
    "v": js.exactly(1),
    "vault": js.hexadecimal(ID_SIZE),
    "device": js.hexadecimal(ID_SIZE),
    "epoch": js.integer(1, MAX_EPOCH),
    "key": js.hexadecimal(VERIFY_KEY_SIZE),
    "role": js.one_of("writer"),
}


def vault_id_of(sign: VerifyKey) -> bytes:
    """The id of the vault whose first epoch signs with this key: a vault certifies itself."""
    return hashlib.sha256(VAULT_ID + sign.raw).digest()[:ID_SIZE]


@dataclass(frozen=True, slots=True)
class ListedSlot:
    """A slot of an older epoch that stays: hash of its file, and the envelope of this epoch's root secret for it."""

    file: bytes
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """A manifest of a stream, or a checkpoint of a device, by its number and its hash."""

    seq: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """What a record says of a device of an older epoch.

    Attributes:
        certificate: hash of its certificate.
        heads: its newest manifest by stream id, at that time. Of a removed device: every stream that counts, and the
            last manifest of it that does.
        checkpoint: its newest checkpoint at that time, None if it had none. Of a removed device: the last that counts.
    """

    certificate: bytes
    heads: Mapping[bytes, Head]
    checkpoint: Head | None


@dataclass(frozen=True, slots=True)
class EpochPin:
    """All that is needed to recognise the next epoch: what a locked device keeps of the one it seals to."""

    vault_id: bytes
    epoch: int
    sha256: bytes
    sign: VerifyKey


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """A verified epoch record.

    Attributes:
        public: what packs and manifests of this epoch are sealed to.
        sign, checkpoint: verify what the epoch's keys of these names signed.
        prev: hash of the record before; None for the first.
        older: the root secret of the epoch before, wrapped; None for the first.
        slots, devices: of older epochs, that stay. Those issued in this epoch are not listed.
        removed: devices that were removed, with the last of theirs that counts. None of them is in `devices`.
        raw, sha256: the object and its hash.
    """

    vault_id: bytes
    epoch: int
    public: HybridPublic
    sign: VerifyKey
    checkpoint: VerifyKey
    prev: bytes | None
    older: bytes | None
    slots: Mapping[bytes, ListedSlot]
    devices: Mapping[bytes, DeviceEntry]
    removed: Mapping[bytes, DeviceEntry]
    raw: bytes
    sha256: bytes

    @property
    def name(self) -> EpochName:
        """Where it is in storage."""
        return EpochName(self.epoch, self.sha256)

    @property
    def pin(self) -> EpochPin:
        """What recognises the next record."""
        return EpochPin(self.vault_id, self.epoch, self.sha256, self.sign)

    def matches(self, keys: EpochKeys) -> bool:
        """Whether these are the epoch's keys: all three public keys are the record's."""
        return (
            keys.open.public == self.public
            and keys.sign.public == self.sign
            and keys.checkpoint.public == self.checkpoint
        )


class EpochClaim:
    """What a record says of itself, well formed and **not verified**. To be used for finding its place, no more."""

    __slots__ = ("_record", "_text")

    def __init__(self, record: EpochRecord, text: SplitText) -> None:
        self._record = record
        self._text = text

    @classmethod
    def parse(cls, raw: bytes) -> EpochClaim:
        """Reads a record.

        Raises:
            UnsupportedVersion: of a later format.
            Malformed: anything else that no writer makes, keys that give no security included.
        """
        with translated("epoch"):
            text = split_text("epoch", raw, 1)
            fields = js.parse_object(text.lines[0], _RECORD, "epoch")
            return cls(_record(fields, raw), text)

    @property
    def vault_id(self) -> bytes:
        """The vault it claims to be of."""
        return self._record.vault_id

    @property
    def epoch(self) -> int:
        """The number it claims."""
        return self._record.epoch

    @property
    def prev(self) -> bytes | None:
        """The hash of the record it claims to follow."""
        return self._record.prev

    @property
    def sign(self) -> VerifyKey:
        """The signing key it claims."""
        return self._record.sign

    @property
    def name(self) -> EpochName:
        """The name it must have in storage."""
        return self._record.name

    def as_first(self, vault_id: bytes) -> EpochRecord:
        """The verified record, if it is the first of this vault.

        Raises:
            WrongVault: it is not this vault's first.
            AuthenticationFailed: the signature does not match.
        """
        record = self._record
        if record.epoch != 1 or record.vault_id != vault_id or vault_id_of(record.sign) != vault_id:
            raise WrongVault(what="epoch", vault=vault_id.hex())
        with translated("epoch", name=str(record.name)):
            self._text.verify(vault_id, record.sign)
        return record

    def as_successor(self, pin: EpochPin) -> EpochRecord:
        """The verified record, if it is the next one after `pin`.

        Raises:
            WrongVault: of another vault.
            ForkDetected: signed by the pinned epoch, and following another record than the pinned one.
            AuthenticationFailed: not signed by the pinned epoch, or not the number after it.
        """
        record = self._record
        name = str(record.name)
        if record.vault_id != pin.vault_id:
            raise WrongVault(what="epoch", name=name, vault=pin.vault_id.hex())
        # Exactly the next number: a skipped epoch would be a removal that this reader never hears of.
        if record.epoch != pin.epoch + 1:
            raise AuthenticationFailed(what="epoch", reason="number", name=name)
        with translated("epoch", name=name):
            self._text.verify(pin.vault_id, pin.sign)
        if record.prev != pin.sha256:
            raise ForkDetected(what="epoch", reason="epoch", names=[name])
        return record


def create_record(
    keys: EpochKeys,
    vault_id: bytes,
    previous: tuple[EpochRecord, EpochKeys] | None = None,
    slots: Mapping[bytes, ListedSlot] | None = None,
    devices: Mapping[bytes, DeviceEntry] | None = None,
    removed: Mapping[bytes, DeviceEntry] | None = None,
) -> EpochRecord:
    """Makes the record of the epoch with these keys: the first, or the one after `previous`, whose keys sign it."""
    epoch = 1 if previous is None else previous[0].epoch + 1
    older = None if previous is None else keys.wrap_older(previous[1].root, vault_id, epoch)
    fields = {
        "v": 1,
        "vault": vault_id.hex(),
        "epoch": epoch,
        "hpke": js.encode_b64(keys.open.public.raw),
        "sign": keys.sign.public.raw.hex(),
        "checkpoint": keys.checkpoint.public.raw.hex(),
        "prev": None if previous is None else previous[0].sha256.hex(),
        "older": None if older is None else js.encode_b64(older),
        "slots": {
            slot_id.hex(): {"file": slot.file.hex(), "env": js.encode_b64(slot.envelope)}
            for slot_id, slot in (slots or {}).items()
        },
        "devices": _write_entries(devices),
        "removed": _write_entries(removed),
    }
    signer = keys.sign if previous is None else previous[1].sign
    claim = EpochClaim.parse(sign_text("epoch", vault_id, [js.write_object(fields)], signer))
    # What was made is read as every reader will read it before anyone relies on it.
    return claim.as_first(vault_id) if previous is None else claim.as_successor(previous[0].pin)


@dataclass(frozen=True, slots=True)
class DeviceCert:
    """A verified device certificate: `key` verifies the manifests of this device."""

    vault_id: bytes
    device_id: bytes
    epoch: int
    key: VerifyKey
    raw: bytes
    sha256: bytes

    @classmethod
    def create(cls, keys: EpochKeys, vault_id: bytes, epoch: int, device_id: bytes, key: VerifyKey) -> DeviceCert:
        """Certifies a device in an epoch, with that epoch's keys."""
        fields = {
            "v": 1,
            "vault": vault_id.hex(),
            "device": device_id.hex(),
            "epoch": epoch,
            "key": key.raw.hex(),
            "role": "writer",
        }
        raw = sign_text("device", vault_id, [js.write_object(fields)], keys.sign)
        return cls.read(raw, vault_id, {epoch: keys.sign.public})

    @classmethod
    def read(cls, raw: bytes, vault_id: bytes, signers: Mapping[int, VerifyKey]) -> DeviceCert:
        """Reads and verifies a certificate. `signers` are the sign keys of the vault's verified epochs, by number.

        Raises:
            UnsupportedVersion: of a later format.
            Malformed: anything else that no writer makes, a key of small order included.
            WrongVault: of another vault.
            AuthenticationFailed: not signed by the epoch it names, or that epoch is not one of the vault's.
        """
        with translated("device"):
            text = split_text("device", raw, 1)
            fields = js.parse_object(text.lines[0], _CERTIFICATE, "device")
            if fields["vault"] != vault_id:
                raise WrongVault(what="device", vault=vault_id.hex())
            signer = signers.get(fields["epoch"])
            if signer is None:
                raise AuthenticationFailed(what="device", reason="epoch", epoch=fields["epoch"])
            text.verify(vault_id, signer)
            return cls(
                vault_id,
                fields["device"],
                fields["epoch"],
                VerifyKey(fields["key"]),
                raw,
                hashlib.sha256(raw).digest(),
            )


@contextmanager
def translated(what: str, **params: object) -> Generator[None]:
    """Says in words of this package what reading a text or opening sealed bytes found; `params` are added."""
    try:
        yield
    except TextVersion as exc:
        raise UnsupportedVersion(what=what, version=exc.params["version"], **params) from exc
    except TextMalformed as exc:
        raise Malformed(**(exc.params | {"what": what} | params)) from exc
    except KeyRefused as exc:
        raise Malformed(what=what, reason=f"key-{exc.params['reason']}", **params) from exc
    except (SignatureInvalid, Unsealable) as exc:
        raise AuthenticationFailed(what=what, reason=exc.code, **params) from exc


def _record(fields: dict[str, Any], raw: bytes) -> EpochRecord:
    first = fields["epoch"] == 1
    links = [fields["prev"] is None, fields["older"] is None]
    # The first epoch has nothing before it: a link, or a slot or device that stays, would be of a vault that never was.
    if links != [first, first] or (first and (fields["slots"] or fields["devices"] or fields["removed"])):
        raise Malformed(what="epoch", reason="links")
    if fields["devices"].keys() & fields["removed"].keys():
        # One reader would let it write, another would not.
        raise Malformed(what="epoch", reason="device-twice")
    return EpochRecord(
        vault_id=fields["vault"],
        epoch=fields["epoch"],
        public=HybridPublic(fields["hpke"]),
        sign=VerifyKey(fields["sign"]),
        checkpoint=VerifyKey(fields["checkpoint"]),
        prev=fields["prev"],
        older=fields["older"],
        slots={slot_id: ListedSlot(slot["file"], slot["env"]) for slot_id, slot in fields["slots"].items()},
        devices=_read_entries(fields["devices"]),
        removed=_read_entries(fields["removed"]),
        raw=raw,
        sha256=hashlib.sha256(raw).digest(),
    )


def _read_entries(found: Mapping[bytes, Any]) -> dict[bytes, DeviceEntry]:
    return {
        device_id: DeviceEntry(
            entry["cert"],
            {stream_id: Head(*head) for stream_id, head in entry["heads"].items()},
            None if entry["checkpoint"] is None else Head(*entry["checkpoint"]),
        )
        for device_id, entry in found.items()
    }


def _write_entries(devices: Mapping[bytes, DeviceEntry] | None) -> dict[str, object]:
    return {
        device_id.hex(): {
            "cert": entry.certificate.hex(),
            "heads": {stream_id.hex(): _head_row(head) for stream_id, head in entry.heads.items()},
            "checkpoint": None if entry.checkpoint is None else _head_row(entry.checkpoint),
        }
        for device_id, entry in (devices or {}).items()
    }


def _head_row(head: Head) -> list[object]:
    return [head.seq, head.sha256.hex()]
