"""What the process that holds the keys does with them: it opens what belongs to the objects of its one vault, and signs
checkpoints of it. Nothing else, whoever asks.

A key that is opened is that of one object. The keys of the vault never leave.
"""

from __future__ import annotations

import hashlib
from typing import Final

from chatkeep.daemon.keys.hardened import LockedBuffer
from chatkeep.daemon.keys.hybrid import OVERHEAD, HybridPrivate
from chatkeep.daemon.keys.root import SigningKey
from chatkeep.daemon.keys.secret import Sensitive, label
from chatkeep.daemon.service.wire import ENTRY_SIZE, EPOCH, SEED_SIZE, Opening, Unreadable
from chatkeep.daemon.vault.labels import (
    CHECKPOINT_MAGIC,
    ID_SIZE,
    MANIFEST,
    MANIFEST_CAPSULE,
    MANIFEST_HEADER,
    MANIFEST_MAGIC,
    MAX_CHECKPOINT,
    PACK,
    PACK_CAPSULE,
    PACK_PUBLIC,
    SIG_CHECKPOINT,
    SIGNATURE_SIZE,
)

MOST_OPENING: Final = 4096  # bytes of a request; the longest that is answered has 1500

# Of keys.slot_file, which is not imported: what takes apart what storage returned has no place beside the keys.
_SLOT_LABEL: Final = label("slot-label")
_SEALED_LABEL: Final = 128 + OVERHEAD


class NotOurs(Exception):
    """It is no object of this vault, or nothing that is opened or signed."""


class NoSuchKey(Exception):
    """The vault had no such key when it was unlocked."""


class Keyring(Sensitive):
    """The keys of one vault, kept as seeds in locked memory and made anew for each use.

    Made anew, since a key object of the library is memory that is neither locked nor wiped by us: it takes a third of a
    millisecond, and a snapshot needs one opening for each 16 MiB.

    Args:
        seeds: an entry of `ENTRY_SIZE` for each epoch, then the 32 bytes for checkpoints. Epochs must be 1, 2, 3,
            and so on.

    Raises:
        Unreadable: they are not.
    """

    def __init__(self, vault_id: bytes, seeds: LockedBuffer) -> None:
        self._vault_id: Final = vault_id
        self._seeds: Final = seeds
        self._epochs: Final = (len(seeds) - SEED_SIZE) // ENTRY_SIZE
        with seeds.view() as view:
            numbers = [EPOCH.unpack_from(view, at * ENTRY_SIZE)[0] for at in range(self._epochs)]
        if numbers != list(range(1, self._epochs + 1)):
            raise Unreadable
        self.key_ids: Final = tuple(self._private(epoch).public.key_id for epoch in numbers)
        self.checkpoint: Final = self._signing().public
        self.opened = 0
        self.signed = 0

    def open(self, asked: Opening) -> bytes:
        """What was sealed: the key of one object, or the label of a slot.

        Raises:
            NotOurs, NoSuchKey.
            Unsealable: it does not open.
        """
        if not self._is_ours(asked):
            raise NotOurs
        if not 1 <= asked.epoch <= self._epochs or self.key_ids[asked.epoch - 1] != asked.key_id:
            raise NoSuchKey
        private = self._private(asked.epoch)
        try:
            content = private.open(asked.sealed, asked.bound)
        finally:
            private.wipe()
        self.opened += 1
        return content

    def signing(self, size: int) -> Signing:
        """Begins to sign a text of so many bytes. Raises `NotOurs` when no checkpoint has so many."""
        head = CHECKPOINT_MAGIC + self._vault_id + self._epochs.to_bytes(4, "big") + self.checkpoint.key_id
        if not len(head) <= size <= MAX_CHECKPOINT - SIGNATURE_SIZE:
            raise NotOurs
        return Signing(self, head, size)

    def sign_digest(self, digest: bytes) -> bytes:
        """For `Signing` alone: the signature of a checkpoint with this hash."""
        key = self._signing()
        try:
            signature = key.sign(SIG_CHECKPOINT + digest)
        finally:
            key.wipe()
        self.signed += 1
        return signature

    def wipe(self) -> None:
        """Overwrites the seeds."""
        self._seeds.wipe()

    def _is_ours(self, asked: Opening) -> bool:
        """Whether it is bound to be the capsule of a pack or of a manifest, or the label of a slot, of this vault."""
        whose = self._vault_id + asked.epoch.to_bytes(4, "big") + asked.key_id
        pack = PACK + whose
        manifest = MANIFEST + MANIFEST_MAGIC + whose
        slot = _SLOT_LABEL + self._vault_id
        return any(
            asked.bound.startswith(head) and len(asked.bound) == bound and len(asked.sealed) == sealed
            for head, bound, sealed in (
                (pack, len(PACK) + PACK_PUBLIC, PACK_CAPSULE),
                (manifest, len(MANIFEST) + MANIFEST_HEADER, MANIFEST_CAPSULE),
                (slot, len(slot) + ID_SIZE, _SEALED_LABEL),
            )
        )

    def _private(self, epoch: int) -> HybridPrivate:
        at = (epoch - 1) * ENTRY_SIZE + EPOCH.size
        with self._seeds.view() as view:
            return HybridPrivate.from_seed(view[at : at + SEED_SIZE])

    def _signing(self) -> SigningKey:
        with self._seeds.view() as view:
            return SigningKey(view[-SEED_SIZE:])


class Signing:
    """The text of a checkpoint as it arrives. It is never held whole: it may have 64 MiB, and its beginning says whose
    it is."""

    def __init__(self, keyring: Keyring, head: bytes, size: int) -> None:
        self._keyring = keyring
        self._head = head
        self._seen = b""
        self._digest = hashlib.sha256()
        self.missing = size

    def take(self, piece: bytes) -> None:
        """Takes what follows, at most `missing` bytes."""
        self._seen += piece[: len(self._head) - len(self._seen)]
        self._digest.update(piece)
        self.missing -= len(piece)

    def signature(self) -> bytes:
        """Of the whole text. Raises `NotOurs` when it is no checkpoint of this vault's newest epoch."""
        if self.missing or self._seen != self._head:
            raise NotOurs
        return self._keyring.sign_digest(self._digest.digest())
