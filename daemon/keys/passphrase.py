"""Passphrases: made into secrets by Argon2id (RFC 9106, version 0x13), within bounds. See docs/format.md, section 5."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from chatkeep.daemon.keys.errors import PassphraseRefused, SlotRefused
from chatkeep.daemon.keys.secret import random_secret

SALT_SIZE: Final = 32
SECRET_SIZE: Final = 32

# A slot file comes from storage, which could ask for a terabyte (the machine stops), or for next to nothing (a slot
# written carelessly would be guessed).
_M: Final = (65_536, 1_048_576)  # KiB: 64 MiB to 1 GiB
_T: Final = (1, 10)
_P: Final = (1, 8)
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


def normalise(passphrase: str) -> bytearray:
    """The bytes of a passphrase: NFKC, UTF-8. The same word typed on another keyboard or system is the same bytes.

    Raises:
        PassphraseRefused: empty, or not text.
    """
    if not passphrase:
        raise PassphraseRefused(reason="empty")
    try:
        return bytearray(unicodedata.normalize("NFKC", passphrase), "utf-8")
    except UnicodeEncodeError:
        # Not chained: that exception carries the passphrase.
        raise PassphraseRefused(reason="encoding") from None


def stretch(passphrase: bytearray, params: Argon2Params) -> bytearray:
    """The secret (32 bytes, for the caller to wipe) of a normalised passphrase. Takes about a second and `m` KiB.

    Raises:
        SlotRefused: the parameters are out of bounds, and nothing was run; or (reason `memory`) this machine has not
            that much memory now.
    """
    params.check()
    secret = bytearray(SECRET_SIZE)
    derivation = Argon2id(
        salt=params.salt, length=SECRET_SIZE, iterations=params.t, lanes=params.p, memory_cost=params.m
    )
    try:
        derivation.derive_into(passphrase, secret)  # type: ignore[arg-type]  # takes any buffer; its stub says bytes
    except MemoryError as exc:
        raise SlotRefused(reason="memory", value=params.m) from exc
    return secret
