"""Vaults for tests: real keys, quick passphrases, in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable

from chatkeep.daemon.keys.methods import PassphraseMethod, RecoveryMethod, SlotMethod
from chatkeep.daemon.keys.passphrase import Argon2Params
from chatkeep.daemon.keys.recovery import RecoveryKey
from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import create_slot, seal_envelope
from chatkeep.daemon.vault.create import CreatedVault, Way, create_vault
from chatkeep.daemon.vault.epoch import (
    DeviceCert,
    DeviceEntry,
    EpochRecord,
    Head,
    ListedSlot,
    create_record,
    vault_id_of,
)
from chatkeep.daemon.vault.names import DeviceName, SlotName
from chatkeep.providers.base import Provider

NOW = 1_800_000_000_000_000_000
STREAM = b"s" * 16
"""The one stream that a removed device of `Epochs` had, up to number 5."""


def recovery(digit: int = 7) -> RecoveryMethod:
    """By the recovery key whose random digits are all this one."""
    return RecoveryMethod(RecoveryKey(bytearray(b"%d" % digit * 56)))


def passphrase(text: str = "correct horse") -> PassphraseMethod:
    """By a passphrase, stretched as little as a reader allows (about 30 ms)."""
    return PassphraseMethod(lambda: text, lambda: Argon2Params.fresh(65_536, 1, 1))


def made_vault(*providers: Provider) -> CreatedVault:
    """A vault with one recovery slot."""
    return create_vault(providers, [Way(recovery(), "paper")], NOW)


class Epochs:
    """A vault of several epochs, written straight into storage: what a version that removes slots will write."""

    def __init__(self, provider: Provider, seed: int = 1) -> None:
        self.provider = provider
        self.keys = [EpochKeys(RootSecret(bytearray(seed.to_bytes(1, "big") * 32)))]
        self.vault_id = vault_id_of(self.keys[0].sign.public)
        self.records = [create_record(self.keys[0], self.vault_id)]
        self.slots: dict[bytes, bytes] = {}
        self.certs: dict[bytes, DeviceCert] = {}
        self.put(self.records[0])

    def put(self, record: EpochRecord) -> None:
        self.provider.put(str(record.name), record.raw)

    def add_slot(self, method: SlotMethod) -> bytes:
        """A slot of the newest epoch."""
        slot_id, raw = create_slot(method, self.keys[-1], self.vault_id, len(self.keys), "", NOW)
        self.slots[slot_id] = raw
        self.provider.put(str(SlotName(slot_id)), raw)
        return slot_id

    def add_device(self) -> bytes:
        """A device of the newest epoch."""
        device_id = os.urandom(16)
        key = SigningKey(os.urandom(32)).public
        cert = DeviceCert.create(self.keys[-1], self.vault_id, len(self.keys), device_id, key)
        self.certs[device_id] = cert
        self.provider.put(str(DeviceName(device_id)), cert.raw)
        return device_id

    def next_record(
        self, keys: EpochKeys, slots: Iterable[bytes] = (), devices: Iterable[bytes] = (), removed: Iterable[bytes] = ()
    ) -> EpochRecord:
        """The record after the newest, with what stays and what goes; not stored."""
        epoch = len(self.records) + 1
        listed = {}
        for slot_id in slots:
            slot = SlotFile.parse(self.slots[slot_id])
            envelope = seal_envelope(keys.root, slot.public, self.vault_id, epoch, slot_id)
            listed[slot_id] = ListedSlot(slot.sha256, envelope)
        return create_record(
            keys,
            self.vault_id,
            (self.records[-1], self.keys[-1]),
            listed,
            {device_id: DeviceEntry(self.certs[device_id].sha256, {}, None) for device_id in devices},
            {
                device_id: DeviceEntry(self.certs[device_id].sha256, {STREAM: Head(5, b"h" * 32)}, None)
                for device_id in removed
            },
        )

    def rotate(
        self, slots: Iterable[bytes] = (), devices: Iterable[bytes] = (), removed: Iterable[bytes] = ()
    ) -> EpochRecord:
        """Goes on to a new epoch."""
        keys = EpochKeys(RootSecret.generate())
        record = self.next_record(keys, slots, devices, removed)
        self.keys.append(keys)
        self.records.append(record)
        self.put(record)
        return record
