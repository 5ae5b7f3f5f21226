"""The names of objects (docs/format.md, section 1). Pure.

Each name is a value whose `str()` is what a provider is given; `parse` is its exact inverse. Parsing is strict, since
names come from storage: one object has one spelling, so that a listing cannot show the same object twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from chatkeep.daemon.vault.errors import Malformed
from chatkeep.daemon.vault.labels import HASH_SIZE, ID_SIZE

MAX_EPOCH: Final = 99_999_999  # eight digits
MAX_SEQ: Final = 999_999_999_999  # twelve digits

VAULTS: Final = "vault/"
EPOCHS: Final = "epochs/"
SLOTS: Final = "slots/"
DEVICES: Final = "devices/"

_fromhex: Final = bytes.fromhex


@dataclass(frozen=True, slots=True)
class VaultName:
    """The marker of a vault."""

    vault_id: bytes

    def __str__(self) -> str:
        return VAULTS + _id(self.vault_id)


@dataclass(frozen=True, slots=True)
class EpochName:
    """An epoch record; `sha256` is of the object."""

    epoch: int
    sha256: bytes

    def __str__(self) -> str:
        return f"{EPOCHS}{_number(self.epoch, MAX_EPOCH):08d}-{_hash(self.sha256)}"


@dataclass(frozen=True, slots=True)
class SlotName:
    """A key slot."""

    slot_id: bytes

    def __str__(self) -> str:
        return f"{SLOTS}{_id(self.slot_id)}.json"


@dataclass(frozen=True, slots=True)
class DeviceName:
    """A device certificate."""

    device_id: bytes

    def __str__(self) -> str:
        return f"{DEVICES}{_id(self.device_id)}.json"


@dataclass(frozen=True, slots=True)
class PackName:
    """A pack; `sha256` is of the object."""

    device_id: bytes
    sha256: bytes

    def __str__(self) -> str:
        return pack_prefix(self.device_id) + _hash(self.sha256)


@dataclass(frozen=True, slots=True)
class ManifestName:
    """A manifest; `seq` rises from 1 in a stream, `sha256` is of the object."""

    device_id: bytes
    stream_id: bytes
    seq: int
    sha256: bytes

    def __str__(self) -> str:
        return f"{stream_prefix(self.device_id, self.stream_id)}{_number(self.seq, MAX_SEQ):012d}-{_hash(self.sha256)}"


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """A checkpoint; `number` rises from 1 on a device, `sha256` is of the object."""

    device_id: bytes
    number: int
    sha256: bytes

    def __str__(self) -> str:
        return f"{checkpoints_prefix(self.device_id)}{_number(self.number, MAX_SEQ):012d}-{_hash(self.sha256)}"


ObjectName: TypeAlias = VaultName | EpochName | SlotName | DeviceName | PackName | ManifestName | CheckpointName


def device_prefix(device_id: bytes) -> str:
    """What all objects that a device may write or delete begin with."""
    return f"d/{_id(device_id)}/"


def pack_prefix(device_id: bytes) -> str:
    """What the packs of a device begin with."""
    return device_prefix(device_id) + "p/"


def streams_prefix(device_id: bytes) -> str:
    """What the manifests of a device begin with."""
    return device_prefix(device_id) + "s/"


def stream_prefix(device_id: bytes, stream_id: bytes) -> str:
    """What the manifests of a stream begin with."""
    return f"{streams_prefix(device_id)}{_id(stream_id)}/"


def checkpoints_prefix(device_id: bytes) -> str:
    """What the checkpoints of a device begin with."""
    return device_prefix(device_id) + "c/"


# [0-9], never \d: \d takes the digits of every script, and int() reads them.
_ID: Final = "([0-9a-f]{32})"
_HASH: Final = "([0-9a-f]{64})"
_GRAMMAR: Final[list[tuple[re.Pattern[str], Callable[..., ObjectName]]]] = [
    (re.compile(f"vault/{_ID}"), lambda vault: VaultName(_fromhex(vault))),
    (re.compile(f"epochs/([0-9]{{8}})-{_HASH}"), lambda n, digest: EpochName(int(n), _fromhex(digest))),
    (re.compile(rf"slots/{_ID}\.json"), lambda slot: SlotName(_fromhex(slot))),
    (re.compile(rf"devices/{_ID}\.json"), lambda device: DeviceName(_fromhex(device))),
    (re.compile(f"d/{_ID}/p/{_HASH}"), lambda device, digest: PackName(_fromhex(device), _fromhex(digest))),
    (
        re.compile(f"d/{_ID}/s/{_ID}/([0-9]{{12}})-{_HASH}"),
        lambda device, stream, seq, digest: ManifestName(
            _fromhex(device), _fromhex(stream), int(seq), _fromhex(digest)
        ),
    ),
    (
        re.compile(f"d/{_ID}/c/([0-9]{{12}})-{_HASH}"),
        lambda device, number, digest: CheckpointName(_fromhex(device), int(number), _fromhex(digest)),
    ),
]


def parse(text: str) -> ObjectName:
    """The name that `text` spells. Raises `Malformed` for anything but an exact spelling."""
    for pattern, build in _GRAMMAR:
        if match := pattern.fullmatch(text):
            name = build(*match.groups())
            break
    else:
        raise Malformed(what="name", reason="grammar", name=text)
    if 0 in (getattr(name, "epoch", 1), getattr(name, "seq", 1), getattr(name, "number", 1)):
        raise Malformed(what="name", reason="number", name=text)
    return name


def _id(value: bytes) -> str:
    return _checked(value, ID_SIZE).hex()


def _hash(value: bytes) -> str:
    return _checked(value, HASH_SIZE).hex()


def _checked(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise AssertionError(f"{len(value)} bytes for an identifier of {size}")
    return value


def _number(value: int, most: int) -> int:
    if not 1 <= value <= most:
        raise AssertionError(f"{value} is not a number from 1 to {most}")
    return value
