"""The authenticator's half of PIN/UV auth protocols one and two (CTAP 2.1, sections 6.5.6 and 6.5.7).

Written from the specification with bare primitives; nothing here comes from the client that the tests run against it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.support.soft_key.statuses import Refused, Status

_BLOCK = 16


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


class PinProtocolOne:
    """SHA-256 of the shared point, AES-256-CBC with a zero IV, HMAC cut to 16 bytes."""

    version = 1

    def __init__(self) -> None:
        self.regenerate()

    def regenerate(self) -> None:
        """A new key agreement key: after every wrong PIN, so that one exchange buys one guess."""
        self._private = ec.generate_private_key(ec.SECP256R1())

    def public(self) -> dict[int, Any]:
        """The key agreement key as a COSE key."""
        point = self._private.public_key().public_numbers()
        return {1: 2, 3: -25, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)}

    def decapsulate(self, peer: Mapping[Any, Any]) -> bytes:
        """The secret shared with a platform's COSE key."""
        if (peer.get(1), peer.get(3), peer.get(-1)) != (2, -25, 1) or set(peer) != {1, 3, -1, -2, -3}:
            raise Refused(Status.INVALID_PARAMETER)
        x, y = peer[-2], peer[-3]
        if not (isinstance(x, bytes) and isinstance(y, bytes) and len(x) == len(y) == 32):
            raise Refused(Status.INVALID_PARAMETER)
        try:
            numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
            shared = self._private.exchange(ec.ECDH(), numbers.public_key())
        except ValueError:  # not a point of the curve
            raise Refused(Status.INVALID_PARAMETER) from None
        return self._derive(shared)

    def _derive(self, shared: bytes) -> bytes:
        return hashlib.sha256(shared).digest()

    def encrypt(self, secret: bytes, plaintext: bytes) -> bytes:
        """What only the platform of this exchange reads. Whole blocks."""
        return self._cbc(secret, bytes(_BLOCK), plaintext, encrypt=True)

    def decrypt(self, secret: bytes, ciphertext: bytes) -> bytes:
        """What the platform of this exchange sent."""
        return self._cbc(secret, bytes(_BLOCK), ciphertext, encrypt=False)

    def verify(self, key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether a MAC is the key holder's. The key is a shared secret or a token."""
        return hmac.compare_digest(_mac(key, message)[:16], signature)

    @staticmethod
    def _cbc(key: bytes, iv: bytes, text: bytes, *, encrypt: bool) -> bytes:
        if not text or len(text) % _BLOCK:
            raise Refused(Status.INVALID_PARAMETER)
        cipher = Cipher(algorithms.AES(key), modes.CBC(iv))
        step = cipher.encryptor() if encrypt else cipher.decryptor()
        return step.update(text) + step.finalize()


class PinProtocolTwo(PinProtocolOne):
    """HKDF into two keys, random IV in front of the ciphertext, whole HMAC."""

    version = 2

    def _derive(self, shared: bytes) -> bytes:
        def key(label: bytes) -> bytes:
            return HKDF(hashes.SHA256(), length=32, salt=bytes(32), info=label).derive(shared)

        return key(b"CTAP2 HMAC key") + key(b"CTAP2 AES key")

    def encrypt(self, secret: bytes, plaintext: bytes) -> bytes:
        iv = os.urandom(_BLOCK)
        return iv + self._cbc(secret[32:], iv, plaintext, encrypt=True)

    def decrypt(self, secret: bytes, ciphertext: bytes) -> bytes:
        return self._cbc(secret[32:], ciphertext[:_BLOCK].ljust(_BLOCK), ciphertext[_BLOCK:], encrypt=False)

    def verify(self, key: bytes, message: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(_mac(key[:32], message), signature)


PROTOCOLS = {1: PinProtocolOne, 2: PinProtocolTwo}
