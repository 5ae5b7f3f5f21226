"""Holding secrets: buffers that can be overwritten, objects that do not show, copy or pickle what they hold.

Secrets are kept in `bytearray` and go through `derive_into` and memory views. What a library gives only as `bytes` is
taken over at once. What it copies for itself, and frees as it is, is overwritten by doing the same once more with
zeros, which comes to lie in the same places. Tests look for what remains, from outside. That *locked* means *gone* does
not rest on any of this, but on ending the process that held the keys.
"""

from __future__ import annotations

import ctypes
import os
import sys
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


def take_over(fresh: bytes) -> bytearray:
    """A copy of what a library has just returned, which is itself overwritten with zeros.

    Args:
        fresh: nobody else's, and to be used no more: not a constant, not a slice of anything, not an argument.
    """
    kept = bytearray(fresh)
    forget(fresh)
    return kept


def forget(fresh: bytes | str) -> None:
    """Overwrites an object that Python says cannot change.

    That is sound for what was made a moment ago and is held by the caller alone: nobody has its hash, and it is in no
    table. Single characters and bytes are shared by the whole interpreter, and are left alone. The bytes stand at the
    end of the object, before a zero of as many bytes as one character takes (CPython: bytesobject.h, unicodeobject.h).

    Args:
        fresh: as for `take_over`; text was made by decoding, not read from a program or joined from one part.
    """
    if len(fresh) > 1:
        width = 1
        if isinstance(fresh, str):
            widest = max(fresh)
            width = 1 if widest <= "\xff" else 2 if widest <= "\uffff" else 4
        # Not wrong elsewhere, but unknown: there it stays until its memory is used again.
        if sys.implementation.name == "cpython":
            size = len(fresh) * width
            ctypes.memset(id(fresh) + fresh.__sizeof__() - width - size, 0, size)


def random_secret(size: int) -> bytearray:
    """`size` bytes from the system's generator."""
    return take_over(os.urandom(size))


def derive(secret: Buffer, info: bytes, size: int = 32, salt: bytes | None = None) -> bytearray:
    """HKDF-SHA256 (RFC 5869) of a secret of any length into a buffer of its own, which the caller wipes."""
    derived = bytearray(size)
    # derive() would return bytes. The library makes some for itself all the same, one for each block of the output.
    for source, target in ((secret, derived), (bytes(len(secret)), bytearray(size))):
        HKDF(SHA256(), size, salt, info).derive_into(source, target)
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
