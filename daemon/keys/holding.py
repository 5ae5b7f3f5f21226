"""What those who read and prune need of a key, wherever it is: in this process, or in the one of the session."""

from __future__ import annotations

from typing import Protocol

from chatkeep.daemon.keys.hybrid import HybridPublic
from chatkeep.daemon.keys.root import VerifyKey
from chatkeep.daemon.keys.secret import Buffer


class OpeningKey(Protocol):
    """Opens what is sealed to a public key; `hybrid.HybridPrivate` does."""

    @property
    def public(self) -> HybridPublic:
        """The public key."""

    def open(self, sealed: Buffer, info: bytes) -> bytes:
        """Returns the plaintext, which nobody else has: the caller may overwrite it. Raises `Unsealable`."""

    def wipe(self) -> None:
        """Lets go of the key. Twice is once."""


class HashSigningKey(Protocol):
    """Signs texts that may be long; `root.SigningKey` does."""

    @property
    def public(self) -> VerifyKey:
        """The public key."""

    def sign_hashed(self, context: bytes, text: bytes) -> bytes:
        """The signature of `context` and the SHA-256 of `text`."""

    def wipe(self) -> None:
        """Lets go of the key. Twice is once."""
