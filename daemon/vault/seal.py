"""Key schedule and records: how the random key of a pack or manifest seals its bytes (docs/format.md, 10 and 13).

The only place of this package where AES-GCM is called. Two messages under one key and nonce would reveal both and let
anyone forge, so: every object has its own random key, used by one writer, never stored outside the capsule, and a
record's nonce is its position, which that writer hands out once.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatkeep.daemon.keys.secret import Buffer, Sensitive, wipe
from chatkeep.daemon.keys.secret import derive as hkdf
from chatkeep.daemon.vault.errors import AuthenticationFailed, DifferentKey
from chatkeep.daemon.vault.labels import KEY_SIZE, NONCE_SIZE

_POSITION: Final = struct.Struct(">IB")
_ONCE: Final = bytes(NONCE_SIZE)


def derive(label: bytes, key: Buffer, vault_id: bytes, epoch: int) -> tuple[AESGCM, bytes]:
    """The cipher and the commitment (32 bytes) that the random key of an object gives. `label` ends in a zero byte."""
    material = hkdf(key, label + vault_id + epoch.to_bytes(4, "big"), 2 * KEY_SIZE)
    view = memoryview(material)
    try:
        # AESGCM copies the key, so wiping it here leaves no second copy.
        return AESGCM(view[:KEY_SIZE]), bytes(view[KEY_SIZE:])
    finally:
        wipe(material)


def check_commitment(expected: Buffer, stored: Buffer, what: str) -> None:
    """Raises `DifferentKey` unless the object was sealed with this key. To be asked before anything is decrypted."""
    if not hmac.compare_digest(expected, stored):
        raise DifferentKey(what=what)


class RecordCipher(Sensitive):
    """Seals and opens the records of one pack.

    The associated data holds the vault, the epoch, the position and the kind: a record that was moved, or is presented
    as of another kind, does not open.
    """

    __slots__ = ("_aead", "_bound")

    def __init__(self, aead: AESGCM, bound: bytes) -> None:
        self._aead = aead
        self._bound = bound

    def seal_into(self, index: int, kind: int, plain: Buffer, out: memoryview) -> None:
        """Seals into `out`, which is 16 bytes longer. The caller sees to it that an index is sealed once, ever."""
        self._aead.encrypt_into(_nonce(index), plain, self._bound + _POSITION.pack(index, kind), out)

    def open_into(self, index: int, kind: int, sealed: Buffer, out: memoryview) -> None:
        """Opens into `out`, which is 16 bytes shorter. Raises `AuthenticationFailed`; `out` then holds nothing."""
        try:
            self._aead.decrypt_into(_nonce(index), sealed, self._bound + _POSITION.pack(index, kind), out)
        except InvalidTag as exc:
            raise AuthenticationFailed(what="record", index=index) from exc

    def open(self, index: int, kind: int, sealed: Buffer) -> bytes:
        """Returns the plaintext. Raises `AuthenticationFailed`."""
        try:
            return self._aead.decrypt(_nonce(index), sealed, self._bound + _POSITION.pack(index, kind))
        except InvalidTag as exc:
            raise AuthenticationFailed(what="record", index=index) from exc


def _nonce(index: int) -> bytes:
    # Exactly 12 bytes, by construction: AESGCM takes shorter and longer ones without a word, and hashes those.
    return index.to_bytes(NONCE_SIZE, "big")


def seal_once(aead: AESGCM, plain: Buffer, bound: Buffer) -> bytes:
    """Seals the only message that a key ever seals: the zero nonce is safe for that reason alone."""
    return aead.encrypt(_ONCE, plain, bound)


def open_once(aead: AESGCM, sealed: Buffer, bound: Buffer, what: str) -> bytes:
    """Opens what `seal_once` made. Raises `AuthenticationFailed`."""
    try:
        return aead.decrypt(_ONCE, sealed, bound)
    except InvalidTag as exc:
        raise AuthenticationFailed(what=what) from exc
