"""Holding secrets: buffers that can be overwritten, objects that do not show, copy or pickle what they hold.

What this can promise is bounded: some library calls return `bytes`, which nobody can overwrite, and a person's typing
arrives as `str`. Secrets that live long are therefore kept in `bytearray` and go through `derive_into` and memory
views; what remains is freed at once. That *locked* means *gone* rests on ending the process that held the keys.
"""

from __future__ import annotations

import os
from typing import Final, Never, SupportsIndex

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatkeep.daemon.keys.errors import SecretWiped

Buffer = bytes | bytearray | memoryview

PREFIX: Final = b"chatkeep/v1/"


def label(text: str) -> bytes:
    """The bytes that tell one use of a key from every other: `chatkeep/v1/<text>` and a zero byte."""
    return PREFIX + text.encode("ascii") + b"\0"


def wipe(buffer: bytearray) -> None:
    """Overwrites a buffer in place with zeros."""
    buffer[:] = bytes(len(buffer))


def random_secret(size: int) -> bytearray:
    """`size` bytes from the system's generator."""
    return bytearray(os.urandom(size))


def derive(secret: Buffer, info: bytes, size: int = 32, salt: bytes | None = None) -> bytearray:
    """HKDF-SHA256 (RFC 5869) of a secret of any length into a buffer of its own, which the caller wipes."""
    derived = bytearray(size)
    # derive() would return bytes: each subkey would stay in memory until that memory is used again.
    HKDF(SHA256(), size, salt, info).derive_into(secret, derived)
    return derived


class Sensitive:
    """Base of everything that holds a secret: its repr shows nothing, and it cannot be copied or pickled.

    A traceback with locals, a log line, a cache or a queue between processes would otherwise take the secret along.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __copy__(self) -> Never:
        raise TypeError(f"{type(self).__name__} is not copied")

    def __deepcopy__(self, memo: object) -> Never:
        raise TypeError(f"{type(self).__name__} is not copied")

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise TypeError(f"{type(self).__name__} is not pickled")


class SecretBytes(Sensitive):
    """Secret bytes of fixed length. Owns the buffer it is given, and overwrites it."""

    __slots__ = ("_buffer", "_wiped")

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._wiped = False

    def view(self) -> memoryview:
        """The bytes, not copied and read-only. Not to be kept. Raises `SecretWiped` when they are gone."""
        if self._wiped:
            # Zeros are a valid key: what is sealed under them, anyone opens.
            raise SecretWiped(what=type(self).__name__)
        return memoryview(self._buffer).toreadonly()

    def wipe(self) -> None:
        """Overwrites the bytes. Any later use raises `SecretWiped`. Twice is once."""
        wipe(self._buffer)
        self._wiped = True
