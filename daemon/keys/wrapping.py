"""Wrapping one secret under a key that wraps nothing else (docs/format.md, sections 4 and 5)."""

from __future__ import annotations

import contextlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatkeep.daemon.keys.errors import Unsealable
from chatkeep.daemon.keys.secret import Buffer, wipe

ZERO_NONCE: Final = bytes(12)
"""For keys that seal exactly one message in their life, and for no other: a second one would lay both open."""

_SIZE: Final = 32
_TAG_SIZE: Final = 16
_NO_KEY: Final = bytes(_SIZE)


def wrap(key: bytearray, secret: Buffer, bound: bytes) -> bytes:
    """AES-256-GCM of `secret`, 16 bytes longer. `key` stays the caller's to wipe, and never wraps another one."""
    wrapped = AESGCM(key).encrypt(ZERO_NONCE, secret, bound)
    _again(bound)
    return wrapped


def unwrap(key: bytearray, wrapped: bytes, bound: bytes) -> bytearray:
    """The 32 bytes that were wrapped, for the caller to wipe. `key` stays the caller's to wipe.

    Raises:
        Unsealable: wrapped under another key or bound to something else, or damaged.
    """
    secret = bytearray(_SIZE)
    try:
        AESGCM(key).decrypt_into(ZERO_NONCE, wrapped, bound, secret)
    except (InvalidTag, ValueError) as exc:  # ValueError: the length is not that of a wrapped secret
        wipe(secret)  # what was decrypted is in it all the same: the true secret, if it is only bound to something else
        raise Unsealable(what="wrapped") from exc
    finally:
        _again(bound)
    return secret


def _again(bound: bytes) -> None:
    """The library leaves the key where it worked with it. Another one, which says nothing, takes its place there."""
    AESGCM(_NO_KEY).encrypt(ZERO_NONCE, _NO_KEY, bound)
    with contextlib.suppress(InvalidTag):
        AESGCM(_NO_KEY).decrypt_into(ZERO_NONCE, bytes(_SIZE + _TAG_SIZE), bound, bytearray(_SIZE))
