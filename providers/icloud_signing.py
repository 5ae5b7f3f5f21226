"""Signatures of a CloudKit server-to-server key.

As Apple's CloudKit Web Services Reference has it, "Composing Web Service Requests": the date, the hash of the body and
the path of the request, joined by colons, are signed with ECDSA over P-256 and SHA-256; the date must be within ten
minutes of Apple's.
"""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chatkeep.providers.base import SecretFileRefused
from chatkeep.providers.secret_file import read_secret

VALID_FOR: Final = 600.0
"""Seconds by which the date of a signature may be off, either way."""

_KEY_LIMIT: Final = 8192  # bytes of a PEM file; that of a P-256 key has about 230


class Signer:
    """Signs requests. Safe to use from any thread.

    Args:
        key_id: what the CloudKit console calls the key.
        key_file: the private key as PEM, read once, here.

    Raises:
        SecretFileRefused: the file cannot be used, or holds no unencrypted P-256 key.
    """

    def __init__(self, key_id: str, key_file: Path) -> None:
        self._key_id = key_id
        self._key = _private_key(key_file)

    def headers(self, path: str, body: bytes, now: float) -> dict[str, str]:
        """The three headers of a request.

        Args:
            path: what follows the host in the URL, from `/database` on.
            body: the bytes of the request's body, exactly as they are sent.
            now: seconds since 1970 UTC.
        """
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        signature = self._key.sign(f"{date}:{digest}:{path}".encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "X-Apple-CloudKit-Request-KeyID": self._key_id,
            "X-Apple-CloudKit-Request-ISO8601Date": date,
            "X-Apple-CloudKit-Request-SignatureV1": base64.b64encode(signature).decode(),
        }


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    text = read_secret(path, _KEY_LIMIT)
    try:
        key = serialization.load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not `from`: what the library says of a file that it cannot parse may quote it.
        raise SecretFileRefused(path=str(path), reason="malformed") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise SecretFileRefused(path=str(path), reason="malformed")
    return key
