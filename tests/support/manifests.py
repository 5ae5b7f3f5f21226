"""A vault's keys, a device of it, and manifests by that device."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.vault.blob import BlobRef
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.devices import RemovedDevice
from chatkeep.daemon.vault.epoch import DeviceCert, EpochRecord, create_record, vault_id_of
from chatkeep.daemon.vault.errors import UnknownKey, VaultLocked
from chatkeep.daemon.vault.manifest import COMPLETE, Manifest, NewPack, StackLayer, Statistics, seal_manifest
from chatkeep.daemon.vault.names import ManifestName


@dataclasses.dataclass(frozen=True)
class TestVault:
    """The keys of epoch 1 of a vault, its record, one device."""

    __test__ = False

    keys: EpochKeys
    record: EpochRecord
    credential: WriterCredential
    cert: DeviceCert

    @property
    def vault_id(self) -> bytes:
        return self.record.vault_id


def make_vault(root: bytes | None = None, device_id: bytes | None = None) -> TestVault:
    """A vault with one device. The device's keys are random."""
    keys = EpochKeys(RootSecret(bytearray(root or os.urandom(32))))
    vault_id = vault_id_of(keys.sign.public)
    record = create_record(keys, vault_id)
    return add_device(TestVault(keys, record, None, None), device_id)  # type: ignore[arg-type]


def add_device(vault: TestVault, device_id: bytes | None = None) -> TestVault:
    """The same vault, seen from another device."""
    credential = WriterCredential.generate(vault.record, device_id or os.urandom(16))
    cert = DeviceCert.create(vault.keys, vault.vault_id, 1, credential.device_id, credential.device_key.public)
    return TestVault(vault.keys, vault.record, credential, cert)


def make_manifest(vault: TestVault, **fields: Any) -> Manifest:
    """A small manifest of this device; `fields` replace its own."""
    usual: dict[str, Any] = {
        "time": 1_700_000_000_000_000_000,
        "clock": 1_700_000_000_000_000_000,
        "source_name": "chat",
        "source_path": b"/home/ana/chat",
        "host": "laptop",
        "id_key": bytes(vault.credential.id_key.view()),
        "epoch_record": vault.record.sha256,
        "flags": COMPLETE,
        "stack": (StackLayer(0, 1, 1, (BlobRef(b"p" * 32, 0, b"i" * 32),)),),
        "packs": (NewPack(b"p" * 32, 32768),),
        "databases": 1,
        "pending": 0,
        "busy": 0,
        "set_digest": b"d" * 32,
        "statistics": Statistics(3, 1000, 900, 800, 32768),
    }
    return Manifest(**(usual | fields))


def named(vault: TestVault, stream_id: bytes, seq: int, raw: bytes) -> ManifestName:
    """The name of an object of this device."""
    return ManifestName(vault.credential.device_id, stream_id, seq, hashlib.sha256(raw).digest())


def make_chain(vault: TestVault, stream_id: bytes, count: int) -> dict[ManifestName, bytes]:
    """Manifests 1 ... count of a stream, in order."""
    chain: dict[ManifestName, bytes] = {}
    prev = bytes(32)
    for seq in range(1, count + 1):
        raw = seal_manifest(make_manifest(vault, time=seq, clock=seq), stream_id, seq, prev, vault.credential)
        name = named(vault, stream_id, seq, raw)
        chain[name] = raw
        prev = name.sha256
    return chain


class Keys:
    """What a reader gets of an unlocked vault: the key of epoch 1 and the certificates of these devices."""

    def __init__(self, *seen_from: TestVault) -> None:
        self.vault_id = seen_from[0].vault_id
        self.devices = {vault.credential.device_id: vault.cert for vault in seen_from}
        self.removed: dict[bytes, RemovedDevice] = {}
        self.records: tuple[EpochRecord, ...] = (seen_from[0].record,)
        self.locked = False
        self._private = seen_from[0].keys.open

    def opener(self, epoch: int, key_id: bytes) -> HybridPrivate:
        if self.locked:
            raise VaultLocked
        if (epoch, key_id) != (1, self._private.public.key_id):
            raise UnknownKey(what="epoch", epoch=epoch, key=key_id.hex())
        return self._private
