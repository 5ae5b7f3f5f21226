"""Passphrases: made into secrets by Argon2id (RFC 9106, version 0x13), within bounds. See docs/format.md, section 5."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from chatkeep.daemon.keys.errors import PassphraseRefused, SlotRefused
from chatkeep.daemon.keys.secret import forget, random_secret, take_over, wipe

SALT_SIZE: Final = 32
SECRET_SIZE: Final = 32

# A slot file comes from storage, which could ask for a terabyte (the machine stops), or for next to nothing (a slot
# written carelessly would be guessed).
_M: Final = (65_536, 1_048_576)  # KiB: 64 MiB to 1 GiB
_T: Final = (1, 10)
_P: Final = (1, 8)
_LEAST_MEMORY: Final = 8  # KiB for each lane: RFC 9106, section 3.1
_MOST_WORK: Final = 4_194_304  # KiB times passes: 4 GiB written, some seconds


@dataclass(frozen=True, slots=True)
class Argon2Params:
    """What a passphrase slot asks for: `m` KiB of memory, `t` passes, `p` lanes, and its salt of 32 bytes."""

    m: int
    t: int
    p: int
    salt: bytes

    @classmethod
    def fresh(cls, m: int = 262_144, t: int = 3, p: int = 4) -> Argon2Params:
        """The parameters of a new slot. The defaults are what is written; others are for tests, within the bounds."""
        return cls(m, t, p, bytes(random_secret(SALT_SIZE)))

    def check(self) -> None:
        """Returns when a reader runs this, else raises `SlotRefused`. Nothing is allocated by asking."""
        for name, value, (least, most) in (("m", self.m, _M), ("t", self.t, _T), ("p", self.p, _P)):
            if not least <= value <= most:
                raise SlotRefused(reason=name, value=value)
        if self.m * self.t > _MOST_WORK:
            raise SlotRefused(reason="m*t", value=self.m * self.t)
        if len(self.salt) != SALT_SIZE:
            raise SlotRefused(reason="salt", value=len(self.salt))


def normalise(passphrase: str | bytearray) -> bytearray:
    """The bytes of a passphrase: NFKC, UTF-8. The same word typed on another keyboard or system is the same bytes.

    Args:
        passphrase: text, which stays in memory for as long as Python likes; or UTF-8, which is overwritten.

    Raises:
        PassphraseRefused: empty, or not text.
    """
    if not passphrase:
        raise PassphraseRefused(reason="empty")
    if isinstance(passphrase, str):
        return _normalise(passphrase)
    # Not by way of a UnicodeDecodeError, which holds a copy.
    text = passphrase.decode("utf-8", "replace")
    wipe(passphrase)
    try:
        if "\ufffd" in text:
            raise PassphraseRefused(reason="encoding")
        return _normalise(text)
    finally:
        forget(text)


def _normalise(text: str) -> bytearray:
    normal = unicodedata.normalize("NFKC", text)
    try:
        return take_over(normal.encode("utf-8"))
    except UnicodeEncodeError:
        # Not chained: that exception carries the passphrase.
        raise PassphraseRefused(reason="encoding") from None
    finally:
        if normal is not text:
            forget(normal)


def stretch(passphrase: bytearray, params: Argon2Params) -> bytearray:
    """The secret (32 bytes, for the caller to wipe) of a normalised passphrase. Takes about a second and `m` KiB.

    Raises:
        SlotRefused: the parameters are out of bounds, and nothing was run; or (reason `memory`) this machine has not
            that much memory now.
    """
    params.check()
    secret = bytearray(SECRET_SIZE)
    try:
        try:
            _argon2(passphrase, params, params.m, params.t, secret)
        finally:
            # The library frees a copy of the passphrase as it is: one that says nothing comes to lie there.
            _argon2(bytearray(len(passphrase)), params, _LEAST_MEMORY * params.p, 1, bytearray(SECRET_SIZE))
    except MemoryError as exc:
        raise SlotRefused(reason="memory", value=params.m) from exc
    return secret


def _argon2(passphrase: bytearray, params: Argon2Params, memory: int, passes: int, secret: bytearray) -> None:
    derivation = Argon2id(salt=params.salt, length=SECRET_SIZE, iterations=passes, lanes=params.p, memory_cost=memory)
    derivation.derive_into(passphrase, secret)  # type: ignore[arg-type]  # takes any buffer; its stub says bytes
