"""Unlocking from nothing [7]: epoch records, key slots, device certificates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatkeep.daemon.cli.standalone.keys import (
    Hybrid,
    P,
    hkdf,
    key_id,
    point,
    sha,
    signer_of,
    signing_public,
    split_text,
    stretch,
    unseal,
    verify_text,
)
from chatkeep.daemon.cli.standalone.storage import Notes, Storage
from chatkeep.daemon.cli.standalone.strict import (
    NoKey,
    array,
    demand,
    hexes,
    integer,
    json_object,
    json_table,
    unb64,
    unhex,
)

MAX_TEXT, MAX_EPOCH_TEXT = 64 << 10, 256 << 10  # bytes of signed texts [4]
MAX_OBJECT = 64 << 20  # bytes of a pack, a manifest, a checkpoint
MAX_SEQ = 10**12 - 1  # twelve digits

EPOCH_KEYS = "v vault epoch hpke sign checkpoint prev older slots devices removed"
SLOT_KEYS = "v vault slot epoch pin kind pub salt params sealed"
DEVICE_KEYS = "v vault device epoch key role"


@dataclass
class Entry:
    """What an epoch record says of a device [4]: [number, hash] of the newest of each stream, and checkpoint."""

    certificate: str
    heads: dict[str, tuple[int, str]]
    checkpoint: tuple[int, str] | None


@dataclass
class Epoch:
    """A verified epoch record [4]. `key` is there once the vault is unlocked."""

    number: int
    sha: str
    public: bytes
    sign: bytes
    checkpoint: bytes
    prev: str | None
    older: bytes | None
    slots: dict[str, tuple[str, bytes]]  # hash of the slot's file, envelope
    devices: dict[str, Entry]
    removed: dict[str, Entry]
    key: Hybrid | None = None

    def entry(self, device: str) -> Entry | None:
        """What it says of a device, staying or removed."""
        return self.devices.get(device) or self.removed.get(device)


@dataclass
class Device:
    """A device that counts [6]. `entry` is what the newest epoch record says of it, `removed` whether it may write."""

    device: str
    key: bytes
    entry: Entry | None = None
    removed: bool = False


@dataclass
class Slot:
    """The two lines of a key slot [5], and the whole of it; nothing is verified before `Vault` has done so."""

    raw: bytes
    first: bytes
    outer: dict[str, Any]
    inner: dict[str, Any]


class Vault:
    """An unlocked vault: storage, the epochs with their keys, and the devices that count.

    `kind` is `recovery-64`, `passphrase` or `webauthn-prf` (then the secret is a passkey's answer), `note` hears of
    damage. Raises NoKey when no slot opens.
    """

    def __init__(self, storage: Storage, kind: str, secret: bytes, note: Callable[[str], None]) -> None:
        self.storage = storage
        self.notes = Notes(note)
        self.epochs: list[Epoch] = []
        self.devices: list[Device] = []
        self.vault = ""
        for name in storage.names("slots"):
            with self.notes.noting(f"slots/{name}"):
                if self._open_slot(name, kind, secret):
                    self.devices = list(self._devices())
                    return
        raise NoKey("this opens no slot of a vault here")

    @property
    def id(self) -> bytes:
        """The vault id."""
        return bytes.fromhex(self.vault)

    def named(self, name: str, limit: int = MAX_OBJECT) -> bytes:
        """A whole object whose name carries its hash [1]."""
        raw = self.storage.get(name, 0, limit + 1)
        demand(len(raw) <= limit, "it is longer than any object")
        demand(name.endswith(f"-{sha(raw).hex()}"), "it is not what its name says: damaged")
        return raw

    def open_capsule(self, n: int, key: bytes, capsule: bytes, label: bytes, bound: bytes) -> bytes:
        """What was sealed to the key of epoch n, if that is the key of this id."""
        demand(1 <= n <= len(self.epochs), "it is sealed to an epoch that this vault has not")
        hybrid = self.epochs[n - 1].key
        if hybrid is None or hybrid.id != key:
            raise ValueError("it is sealed to another key")
        return hybrid.open(capsule, label + bound)

    def record_key(self, n: int, key: bytes, label: bytes, commit: bytes) -> AESGCM:
        """The cipher of a pack or manifest, from the key in its capsule, if that is the committed one [10, 13]."""
        keys = hkdf(key, label + self.id + n.to_bytes(4, "big"), 64)
        demand(keys[32:] == commit, "its key is not the committed one")
        return AESGCM(keys[:32])

    def _open_slot(self, name: str, kind: str, secret: bytes) -> bool:
        """Opens a slot with its secret, and with the slot all epochs [5, 7]. False: it is another's."""
        slot = read_slot(self.storage, name)
        if slot.outer["kind"] != kind:
            return False
        demand(slot.outer["v"] == 1 and f"{slot.outer['slot']}.json" == name, "it is not the slot of its name")
        self.vault = hexes(slot.outer["vault"], 16)
        bound = self.id + unhex(slot.outer["slot"], 16)
        if kind == "passphrase":
            cost = json_object(slot.outer["params"], "m t p salt")
            work = [integer(cost[key]) for key in ("m", "t", "p")]
            secret = stretch(secret, unb64(cost["salt"], 32), *work)
        elif kind == "webauthn-prf":
            passkey_question(slot)
        else:
            json_object(slot.outer["params"], "")
        keys = hkdf(secret, f"kek/{kind}\0".encode() + bound, 64, unb64(slot.outer["salt"], 32))
        if keys[32:] != unhex(slot.inner["commit"], 32):
            return False  # told from damage by the commitment
        seed = unseal(keys[:32], unb64(slot.inner["wrapped"], 48), P + b"slot\0" + slot.first)
        pair = Hybrid(hkdf(seed, b"slot-kem\0"))
        demand(pair.public == unb64(slot.outer["pub"], 1216), "its public key is another's")
        self._open_epochs(slot, pair)
        return True

    def _open_epochs(self, slot: Slot, pair: Hybrid) -> None:
        """Finds the epochs that the slot belongs to, and opens their keys from the newest down to the first [7]."""
        pin, slot_id = unhex(slot.outer["pin"], 32), slot.outer["slot"]
        self.epochs = self._chain(integer(slot.outer["epoch"], 1), pin)
        verify_text(slot.raw, "slot", self.id, pin, 2)
        newest = self.epochs[-1]
        envelope = unb64(slot.inner["env"], 1168)
        if newest.number != slot.outer["epoch"]:  # a slot that stays is listed, with an envelope of its own
            demand(slot_id in newest.slots, "it was removed from the vault")
            listed, envelope = newest.slots[slot_id]
            demand(listed == sha(slot.raw).hex(), "it is not the slot that stays")
        info = b"slot-env\0" + self.id + newest.number.to_bytes(4, "big") + bytes.fromhex(slot_id)
        root = pair.open(envelope, info)
        for epoch in reversed(self.epochs):
            epoch.key = Hybrid(hkdf(root, b"open\0"))
            own = (epoch.key.public, signing_public(hkdf(root, b"sign\0")), signing_public(hkdf(root, b"checkpoint\0")))
            demand(own == (epoch.public, epoch.sign, epoch.checkpoint), "its keys are not those of the epoch")
            if epoch.older is not None:
                bound = P + b"older\0" + self.id + epoch.number.to_bytes(4, "big")
                root = unseal(hkdf(root, b"older\0"), epoch.older, bound)

    def _chain(self, number: int, pin: bytes) -> list[Epoch]:
        """Records 1 to the newest, through the one of this number and sign key, for which a slot vouches.

        Where two records follow one, nobody can tell which slots and devices count: the reader stays before them.
        """
        found: dict[str, Epoch] = {}
        for name in self.storage.names("epochs"):  # in the order of their numbers
            if re.fullmatch("[0-9]{8}-[0-9a-f]{64}", name):
                with self.notes.noting(f"epochs/{name}"):
                    epoch = self._epoch(name, found)
                    if epoch:
                        found[epoch.sha] = epoch
        vouched = [epoch for epoch in found.values() if (epoch.number, epoch.sign) == (number, pin)]
        demand(
            len(vouched) == 1, f"{'no' if not vouched else 'more than one'} record of epoch {number} is of its vault"
        )
        chain = [vouched[0]]
        while chain[0].prev is not None:
            chain.insert(0, found[chain[0].prev])  # `_epoch` saw it there
        while True:
            after = [epoch for epoch in found.values() if epoch.prev == chain[-1].sha]
            if len(after) != 1:
                break
            chain.append(after[0])
        if after:
            self.notes.add(f"epochs: two records of epoch {after[0].number} fit: a fork. Nothing from there on counts")
        return chain

    def _epoch(self, name: str, found: dict[str, Epoch]) -> Epoch | None:
        """A record that is the first of this vault or follows one of those found [4]; None for another vault's."""
        raw, number = self.named(f"epochs/{name}", MAX_EPOCH_TEXT), int(name[:8])
        before = [it for it in found.values() if it.number == number - 1 and key_id(it.sign).hex() == signer_of(raw)]
        if before:
            verify_text(raw, "epoch", self.id, before[0].sign)
        line = json_object(split_text(raw, 1)[0], EPOCH_KEYS)
        if line["vault"] != self.vault:
            return None
        epoch = parse_epoch(line, sha(raw).hex())
        demand((line["v"], epoch.number) == (1, number), "it is not the record of its name")
        if number == 1:
            demand(sha(P + b"vault\0" + epoch.sign)[:16] == self.id, "it did not found this vault")
            verify_text(raw, "epoch", self.id, epoch.sign)
        else:
            follows = any(it.sha == epoch.prev for it in before)
            demand(follows, "it does not follow a record of this vault")
        return epoch

    def _devices(self) -> Iterator[Device]:
        """The devices that count [6]: those that the newest record lists, and those that its epoch issued."""
        newest, found = self.epochs[-1], set[str]()
        for name in self.storage.names("devices"):
            with self.notes.noting(f"devices/{name}"):
                device = self._device(name)
                found.add(device.device)
                yield device
        for listed in sorted((newest.devices.keys() | newest.removed.keys()) - found):
            self.notes.add(f"devices/{listed}.json: no whole certificate of this device is there")

    def _device(self, name: str) -> Device:
        raw = self.storage.get(f"devices/{name}", 0, MAX_TEXT + 1)
        demand(len(raw) <= MAX_TEXT, "it is too long")
        signers = [epoch for epoch in self.epochs if key_id(epoch.sign).hex() == signer_of(raw)]
        demand(bool(signers), "no epoch of this vault signed it")
        verify_text(raw, "device", self.id, signers[0].sign)
        line = json_object(split_text(raw, 1)[0], DEVICE_KEYS)
        right = (1, self.vault, name, signers[0].number, "writer")
        demand(
            (line["v"], line["vault"], f"{line['device']}.json", line["epoch"], line["role"]) == right, "not its own"
        )
        newest = self.epochs[-1]
        device = Device(hexes(line["device"], 16), point(unhex(line["key"], 32)), newest.entry(line["device"]))
        device.removed = device.device in newest.removed
        if device.entry:
            demand(device.entry.certificate == sha(raw).hex(), "it is not the certificate that counts")
        else:
            demand(signers[0] is newest, "it does not count any more")
        return device


def read_slot(storage: Storage, name: str) -> Slot:
    """The key slot of this name, its lines taken apart."""
    raw = storage.get(f"slots/{name}", 0, MAX_TEXT + 1)
    demand(len(raw) <= MAX_TEXT, "it is too long")
    lines = split_text(raw, 2)[0].splitlines(keepends=True)
    return Slot(raw, lines[0], json_object(lines[0], SLOT_KEYS), json_object(lines[1], "commit wrapped env"))


def passkey_question(slot: Slot) -> tuple[bytes, bytes]:
    """The credential that opens a passkey's slot, and what its PRF is evaluated at [5]."""
    asked = json_object(slot.outer["params"], "rp_id cred salt")
    demand(asked["rp_id"] == "localhost", "it asks for a passkey of somebody else's")
    place = unhex(slot.outer["vault"], 16) + unhex(slot.outer["slot"], 16)
    return unb64(asked["cred"], 16, 1023), sha(P + b"prf\0" + place + unb64(asked["salt"], 32))


def parse_epoch(line: dict[str, Any], digest: str) -> Epoch:
    """The line of an epoch record, every field checked [4]."""
    number = integer(line["epoch"], 1, 10**8 - 1)
    first = number == 1
    demand((line["prev"] is None, line["older"] is None) == (first, first), "only the first epoch has none before it")
    slots = {}
    for slot, listed in json_table(line["slots"]).items():
        row = json_object(listed, "file env")
        slots[slot] = hexes(row["file"], 32), unb64(row["env"], 1168)
    devices = {device: parse_entry(entry) for device, entry in json_table(line["devices"]).items()}
    removed = {device: parse_entry(entry) for device, entry in json_table(line["removed"]).items()}
    demand(not first or not (slots or devices or removed), "there is nothing that could stay in the first epoch")
    demand(not devices.keys() & removed.keys(), "a device both stays and is removed")
    return Epoch(
        number=number,
        sha=digest,
        public=unb64(line["hpke"], 1216),
        sign=point(unhex(line["sign"], 32)),
        checkpoint=point(unhex(line["checkpoint"], 32)),
        prev=None if first else hexes(line["prev"], 32),
        older=None if first else unb64(line["older"], 48),
        slots=slots,
        devices=devices,
        removed=removed,
    )


def parse_entry(entry: Any) -> Entry:
    """A device entry [4]."""
    row = json_object(entry, "cert heads checkpoint")
    heads = {stream: parse_head(head) for stream, head in json_table(row["heads"]).items()}
    checkpoint = None if row["checkpoint"] is None else parse_head(row["checkpoint"])
    return Entry(hexes(row["cert"], 32), heads, checkpoint)


def parse_head(head: Any) -> tuple[int, str]:
    """A number of at most twelve digits, and the hash of what has it."""
    number, digest = array(head, 2)
    return integer(number, 1, MAX_SEQ), hexes(digest, 32)
