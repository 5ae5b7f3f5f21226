"""The writer credential: the file that lets a device write and not read (docs/format.md, section 8).

It pins an epoch record. Without the pin a device would seal to whatever key storage shows it.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import stat
import struct
from pathlib import Path
from typing import Final

from chatkeep.daemon.keys.errors import KeyRefused
from chatkeep.daemon.keys.hybrid import PUBLIC_SIZE, HybridPublic
from chatkeep.daemon.keys.root import SigningKey, VerifyKey
from chatkeep.daemon.keys.secret import Buffer, SecretBytes, Sensitive, random_secret, wipe
from chatkeep.daemon.vault.epoch import EpochPin, EpochRecord
from chatkeep.daemon.vault.errors import CredentialRefused, Malformed, UnsupportedVersion
from chatkeep.daemon.vault.labels import HASH_SIZE, ID_SIZE, KEY_SIZE
from chatkeep.providers.durable import create_durably, write_durably

MAGIC: Final = b"CKCRED\0\1"
CREDENTIAL_SIZE: Final = 1452

_PUBLIC_PART: Final = struct.Struct(f">8s{ID_SIZE}s{ID_SIZE}sI{HASH_SIZE}s{PUBLIC_SIZE}s32s32s")
_SEED: Final = _PUBLIC_PART.size
_ID_KEY: Final = _SEED + KEY_SIZE
_CHECKSUM: Final = _ID_KEY + KEY_SIZE


class WriterCredential(Sensitive):
    """What one device needs to write.

    Attributes:
        vault_id, device_id: whose and which.
        pin: the epoch that is sealed to, and what recognises the next one.
        public: the hybrid public key of that epoch.
        checkpoint: verifies that epoch's checkpoints.
        device_key: signs manifests.
        id_key: the secret behind blob ids and digests; 32 bytes.
    """

    __slots__ = ("_seed", "checkpoint", "device_id", "device_key", "id_key", "pin", "public", "vault_id")

    def __init__(
        self,
        pin: EpochPin,
        public: HybridPublic,
        checkpoint: VerifyKey,
        device_id: bytes,
        seed: SecretBytes,
        id_key: SecretBytes,
    ) -> None:
        self.vault_id: Final = pin.vault_id
        self.device_id: Final = device_id
        self.pin: Final = pin
        self.public: Final = public
        self.checkpoint: Final = checkpoint
        self._seed: Final = seed
        self.device_key: Final = SigningKey(seed.view())
        self.id_key: Final = id_key

    @classmethod
    def generate(cls, record: EpochRecord, device_id: bytes) -> WriterCredential:
        """A new device's, pinned to `record`, with keys that were never used."""
        seed, id_key = SecretBytes(random_secret(KEY_SIZE)), SecretBytes(random_secret(KEY_SIZE))
        return cls(record.pin, record.public, record.checkpoint, device_id, seed, id_key)

    def moved_to(self, record: EpochRecord) -> WriterCredential:
        """This device's credential pinned to another, verified record of its vault, with its keys of its own."""
        seed, id_key = SecretBytes(bytearray(self._seed.view())), SecretBytes(bytearray(self.id_key.view()))
        return type(self)(record.pin, record.public, record.checkpoint, self.device_id, seed, id_key)

    @property
    def epoch(self) -> int:
        """The number of the pinned epoch."""
        return self.pin.epoch

    def encode(self) -> bytearray:
        """The file, for the caller to wipe."""
        pin = self.pin
        encoded = bytearray(
            _PUBLIC_PART.pack(
                MAGIC,
                self.vault_id,
                self.device_id,
                pin.epoch,
                pin.sha256,
                self.public.raw,
                pin.sign.raw,
                self.checkpoint.raw,
            )
        )
        encoded += self._seed.view()
        encoded += self.id_key.view()
        encoded += hashlib.sha256(encoded).digest()
        return encoded

    @classmethod
    def decode(cls, encoded: Buffer) -> WriterCredential:
        """Reads the file's bytes, which stay the caller's to wipe.

        Raises:
            UnsupportedVersion: of a later format.
            Malformed: anything else that is not a whole credential.
        """
        view = memoryview(encoded)
        if bytes(view[:7]) == MAGIC[:7] and len(view) > 7 and view[7] > MAGIC[7]:
            raise UnsupportedVersion(what="credential", version=view[7])
        if len(view) != CREDENTIAL_SIZE or bytes(view[:8]) != MAGIC:
            raise Malformed(what="credential", reason="shape")
        # A flipped bit in the id key or the seed would otherwise show only as a backup that nobody can read.
        if not hmac.compare_digest(hashlib.sha256(view[:_CHECKSUM]).digest(), view[_CHECKSUM:]):
            raise Malformed(what="credential", reason="checksum")
        _, vault_id, device_id, epoch, record, public, sign, checkpoint = _PUBLIC_PART.unpack(view[:_SEED])
        try:
            return cls(
                EpochPin(vault_id, epoch, record, VerifyKey(sign)),
                HybridPublic(public),
                VerifyKey(checkpoint),
                device_id,
                SecretBytes(bytearray(view[_SEED:_ID_KEY])),
                SecretBytes(bytearray(view[_ID_KEY:_CHECKSUM])),
            )
        except KeyRefused as exc:
            raise Malformed(what="credential", reason=f"key-{exc.params['reason']}") from exc

    def save(self, path: Path, *, replace: bool = False) -> None:
        """Writes the file, mode 0600, durably, and reads it back.

        An existing file is replaced only if `replace`: it may be the one copy of another device's keys.

        Raises:
            CredentialRefused: reason `exists`, `write` (with errno), or `read-back`.
        """
        encoded = self.encode()
        try:
            if replace:
                write_durably(path, encoded, mode=0o600)
            else:
                create_durably(path, encoded, mode=0o600)
            found = _read_private(path)
            if not hmac.compare_digest(found, encoded):
                raise CredentialRefused(reason="read-back")
            wipe(found)
        except FileExistsError as exc:
            raise CredentialRefused(reason="exists") from exc
        except OSError as exc:
            raise CredentialRefused(reason="write", errno=exc.errno) from exc
        finally:
            wipe(encoded)

    @classmethod
    def load(cls, path: Path) -> WriterCredential:
        """Reads the file of this user, which nobody else may read or write.

        Raises:
            CredentialRefused: reason `absent` (with `path`), `not-a-file`, `owner`, `permissions` or `unreadable`.
            UnsupportedVersion, Malformed: as `decode`.
        """
        try:
            encoded = _read_private(path)
        except FileNotFoundError as exc:
            raise CredentialRefused(reason="absent", path=str(path)) from exc
        except OSError as exc:
            raise CredentialRefused(reason="unreadable", errno=exc.errno) from exc
        try:
            return cls.decode(encoded)
        finally:
            wipe(encoded)

    def wipe(self) -> None:
        """Overwrites the device's seed and id key and lets go of the signing key."""
        self._seed.wipe()
        self.id_key.wipe()
        self.device_key.wipe()


def _read_private(path: Path) -> bytearray:
    """The bytes of a private file, at most one more than a credential has. Raises OSError or CredentialRefused."""
    try:
        # Never through a link that another user of the directory could turn; never waiting on a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise CredentialRefused(reason="not-a-file") from exc
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise CredentialRefused(reason="not-a-file")
        if found.st_uid != os.geteuid():
            raise CredentialRefused(reason="owner", uid=found.st_uid)
        if found.st_mode & 0o077:
            raise CredentialRefused(reason="permissions", mode=oct(stat.S_IMODE(found.st_mode)))
        buffer = bytearray(CREDENTIAL_SIZE + 1)
        size = 0
        while size < len(buffer) and (more := os.readv(descriptor, [memoryview(buffer)[size:]])):
            size += more
        del buffer[size:]
        return buffer
    finally:
        os.close(descriptor)
