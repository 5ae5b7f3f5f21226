"""What unlocking gives: one object that reads, another that also says what lives, a third that certifies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.holding import HashSigningKey, OpeningKey
from chatkeep.daemon.keys.root import EpochKeys
from chatkeep.daemon.keys.secret import Sensitive
from chatkeep.daemon.vault.chain import Chain
from chatkeep.daemon.vault.devices import Devices, RemovedDevice
from chatkeep.daemon.vault.epoch import DeviceCert, EpochRecord
from chatkeep.daemon.vault.errors import UnknownKey, VaultLocked


class UnlockedVault(Sensitive):
    """What reads a vault: it can open packs and manifests and knows whose signatures count. It can sign nothing.

    Attributes:
        vault_id: the vault.
        records: the verified epoch records, 1 to the newest.
        devices: certificates of the devices that write, by device id.
        removed: devices that were removed, by device id.
        findings: what was met in storage and does not count: damage or an attack, to be shown.
        slot_id: the slot that opened.
    """

    def __init__(
        self,
        chain: Chain,
        private: Mapping[int, OpeningKey],
        devices: Devices,
        findings: tuple[ChatkeepError, ...],
        slot_id: bytes,
    ) -> None:
        self.records: Final[tuple[EpochRecord, ...]] = tuple(chain.records)
        self.vault_id: Final = self.head.vault_id
        self.devices: Final[Mapping[bytes, DeviceCert]] = devices.writing
        self.removed: Final[Mapping[bytes, RemovedDevice]] = devices.removed
        self.findings: Final = findings
        self.slot_id: Final = slot_id
        self._private = dict(private)
        self._wiped = False

    @property
    def head(self) -> EpochRecord:
        """The newest epoch record."""
        return self.records[-1]

    def opener(self, epoch: int, key_id: bytes) -> OpeningKey:
        """The private key that opens what says it is sealed to this key of this epoch.

        Raises:
            UnknownKey: the vault has no such key.
            VaultLocked: the keys were wiped.
        """
        if self._wiped:
            raise VaultLocked
        private = self._private.get(epoch)
        if private is None or private.public.key_id != key_id:
            raise UnknownKey(what="epoch", epoch=epoch, key=key_id.hex())
        return private

    def wipe(self) -> None:
        """Lets go of every key. Twice is once."""
        for private in self._private.values():
            private.wipe()
        self._private.clear()
        self._wiped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.wipe()


class Pruner(Sensitive):
    """What says which snapshots of a vault live: it reads, and signs checkpoints. It can certify nobody.

    Attributes:
        vault: reads.
        checkpoint: signs checkpoints of the newest epoch.
        record: the newest epoch's.
    """

    def __init__(self, vault: UnlockedVault, checkpoint: HashSigningKey, record: EpochRecord) -> None:
        self.vault: Final = vault
        self.checkpoint: Final = checkpoint
        self.record: Final = record

    def wipe(self) -> None:
        """Wipes all keys, those of `vault` included. Twice is once."""
        self.checkpoint.wipe()
        self.vault.wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.wipe()


class Enrolment(Sensitive):
    """What adds slots and devices to a vault: the newest epoch's keys, `sign` and root secret included.

    Apart from `UnlockedVault`, so that whoever is only to read cannot be handed what certifies.
    """

    def __init__(self, vault: UnlockedVault, keys: EpochKeys) -> None:
        self.vault: Final = vault
        self.keys: Final = keys

    def wipe(self) -> None:
        """Wipes all keys, those of `vault` included."""
        self.keys.wipe()
        self.vault.wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.wipe()
