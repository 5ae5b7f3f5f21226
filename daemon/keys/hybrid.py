"""Sealing to a public key: HPKE (RFC 9180) with X-Wing (ML-KEM-768 and X25519, KEM id 0x647a), HKDF-SHA256, AES-256.

The library offers no associated data for HPKE, so all that a sealed text is bound to is in `info`.
See docs/format.md, section 2.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from chatkeep.daemon.keys.errors import KeyRefused, SecretWiped, Unsealable
from chatkeep.daemon.keys.secret import Buffer, Sensitive, take_over, wipe

PUBLIC_SIZE: Final = 1216  # ML-KEM-768 public key 1184, X25519 public key 32
OVERHEAD: Final = 1136  # what sealing adds: encapsulated key 1120, tag 16
KEY_ID_SIZE: Final = 16
SEED_SIZE: Final = 32

_MLKEM_PUBLIC_SIZE: Final = 1184
_MLKEM_SEED_SIZE: Final = 64
_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class HybridPublic:
    """A public key. Equal when its bytes are.

    Args:
        raw: 1216 bytes: ML-KEM-768 public key, X25519 public key.

    Raises:
        KeyRefused: not a public key, or one whose X25519 half is of small order, which would leave one half of the
            hybrid to protect what is sealed to it.
    """

    __slots__ = ("_key", "key_id", "raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != PUBLIC_SIZE:
            raise KeyRefused(what="hybrid", reason="length")
        exchange = X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_SIZE:])
        try:
            # RFC 7748, section 6.1: a small-order key is one that makes every exchange zero. The library refuses that,
            # and would otherwise do so, as a plain ValueError, at the first sealing.
            X25519PrivateKey.generate().exchange(exchange)
        except ValueError as exc:
            raise KeyRefused(what="hybrid", reason="small-order") from exc
        try:
            encapsulation = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_SIZE])
        except ValueError as exc:
            raise KeyRefused(what="hybrid", reason="encoding") from exc
        self.raw: Final = bytes(raw)
        self.key_id: Final = hashlib.sha256(raw).digest()[:KEY_ID_SIZE]
        self._key: Final = hpke.MLKEM768X25519PublicKey(encapsulation, exchange)

    def seal(self, plaintext: Buffer, info: bytes) -> bytes:
        """Seals `plaintext` so that only the private key opens it, with the same `info`: `OVERHEAD` bytes longer."""
        return _SUITE.encrypt(plaintext, self._key, info=info)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HybridPublic) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"HybridPublic({self.key_id.hex()})"


class HybridPrivate(Sensitive):
    """A private key, made from its seed."""

    __slots__ = ("_key", "public")

    def __init__(self, key: hpke.MLKEM768X25519PrivateKey, public: HybridPublic) -> None:
        self._key: hpke.MLKEM768X25519PrivateKey | None = key
        self.public: Final = public

    @classmethod
    def from_seed(cls, seed: Buffer) -> HybridPrivate:
        """The key pair of a 32-byte seed, as X-Wing expands it. The seed stays the caller's to wipe."""
        if len(seed) != SEED_SIZE:
            raise AssertionError(f"a seed of {len(seed)} bytes")
        expanded = take_over(hashlib.shake_256(seed).digest(96))
        view = memoryview(expanded)
        try:
            decapsulation = MLKEM768PrivateKey.from_seed_bytes(view[:_MLKEM_SEED_SIZE])
            # The library frees a copy of the seed as it is: one that says nothing comes to lie there.
            MLKEM768PrivateKey.from_seed_bytes(bytes(_MLKEM_SEED_SIZE))
            exchange = X25519PrivateKey.from_private_bytes(view[_MLKEM_SEED_SIZE:])
        finally:
            wipe(expanded)
        raw = decapsulation.public_key().public_bytes_raw() + exchange.public_key().public_bytes_raw()
        return cls(hpke.MLKEM768X25519PrivateKey(decapsulation, exchange), HybridPublic(raw))

    def open(self, sealed: Buffer, info: bytes) -> bytes:
        """Returns the plaintext.

        Raises:
            Unsealable: sealed to another key or with another `info`, cut short, or damaged.
            SecretWiped: the key is gone.
        """
        if self._key is None:
            raise SecretWiped(what="HybridPrivate")
        try:
            return _SUITE.decrypt(sealed, self._key, info=info)
        except InvalidTag as exc:
            raise Unsealable(key_id=self.public.key_id.hex()) from exc

    def wipe(self) -> None:
        """Lets go of the key; the library overwrites its memory when nothing else refers to it. Twice is once."""
        self._key = None
