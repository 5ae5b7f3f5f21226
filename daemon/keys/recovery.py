"""The recovery key: 64 digits on paper, of which 56 are the secret (docs/format.md, section 5).

Eight lines of seven random digits (186 bits in all) and one check digit over the line's number and its digits. By
Damm's scheme every wrong digit, every swap of neighbouring digits and every swap of lines shows where it was made.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Final

from chatkeep.daemon.keys.errors import RecoveryTypo
from chatkeep.daemon.keys.secret import SecretBytes, forget, wipe

LINES: Final = 8
_DIGITS: Final = 8  # in a line
_RANDOM: Final = 7  # of them

# H. M. Damm, Total anti-symmetrische Quasigruppen, Marburg 2004: the quasigroup of order 10.
_DAMM: Final = (
    (0, 3, 1, 7, 5, 9, 8, 6, 4, 2),
    (7, 0, 9, 2, 1, 5, 4, 8, 6, 3),
    (4, 2, 0, 6, 8, 7, 1, 3, 5, 9),
    (1, 7, 5, 0, 9, 8, 3, 4, 2, 6),
    (6, 1, 2, 3, 0, 4, 5, 9, 7, 8),
    (3, 6, 7, 4, 2, 0, 9, 5, 8, 1),
    (5, 8, 6, 9, 7, 2, 0, 1, 3, 4),
    (8, 9, 4, 5, 3, 6, 2, 0, 1, 7),
    (9, 4, 3, 8, 6, 1, 7, 2, 0, 5),
    (2, 5, 8, 1, 4, 3, 6, 7, 9, 0),
)
# What people and text programs put between groups: the ASCII hyphen, U+2010 to U+2015, and the minus sign.
_DASHES: Final = frozenset("-\u2010\u2011\u2012\u2013\u2014\u2015\u2212")
_LINE_ENDS: Final = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")  # those of str.splitlines
_ZERO: Final = ord("0")


class RecoveryKey(SecretBytes):
    """A recovery key. Takes over the buffer: 56 ASCII digits."""

    __slots__ = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The eight lines to write down, `1234 5678` each."""
        shown = []
        for i in range(LINES):
            part = self.view()[i * _RANDOM : (i + 1) * _RANDOM]
            line = part.tobytes().decode("ascii") + str(_check_digit(i + 1, part))
            shown.append(f"{line[:4]} {line[4:]}")
        return tuple(shown)

    def secret(self) -> bytearray:
        """The secret: the ASCII of the 56 random digits, in a buffer for the caller to wipe."""
        return bytearray(self.view())

    @staticmethod
    def check_line(line: int, text: str) -> str:
        """Returns line `line` (from 1) as it was written down, or raises `RecoveryTypo`. For typing line by line."""
        digits = bytearray(len(text))
        count = 0
        for column, character in enumerate(text, start=1):
            count += _take(character, line, column, digits, count)
        _check(line, digits[:count])
        found = digits[:count].decode("ascii")
        return f"{found[:4]} {found[4:]}"


def generate() -> RecoveryKey:
    """A new recovery key, every one of the 10^56 equally likely."""
    digits = bytearray()
    while len(digits) < LINES * _RANDOM:
        (byte,) = os.urandom(1)
        if byte < 250:  # 250 is a multiple of 10: taking the rest as well would make 0 to 5 likelier
            digits.append(_ZERO + byte % 10)
    return RecoveryKey(digits)


def parse(text: str | bytearray) -> RecoveryKey:
    """Reads a recovery key as a person typed or pasted it: spaces, dashes and blank lines mean nothing; a line of text
    holds one line of the key, or several.

    Args:
        text: text, which stays in memory for as long as Python likes; or UTF-8, which is overwritten.

    Raises:
        RecoveryTypo: the first line that is not as it was written down, and how.
    """
    if isinstance(text, str):
        return _parse(text)
    decoded = text.decode("utf-8", "replace")
    wipe(text)
    try:
        return _parse(decoded)
    finally:
        forget(decoded)


def _parse(text: str) -> RecoveryKey:
    # Character by character into buffers of full size: parts of the text, and buffers that grow, would leave copies.
    secret = bytearray(LINES * _RANDOM)
    digits = bytearray(len(text))
    line = column = count = 0
    try:
        for character in itertools.chain(text, "\n"):
            if character in _LINE_ENDS:
                with memoryview(digits) as view:
                    line = _lines(line, view[:count], secret)
                column = count = 0
                continue
            column += 1
            count += _take(character, line + 1, column, digits, count)
        if line < LINES:
            raise RecoveryTypo(line + 1, "too-few-lines")
    except RecoveryTypo:
        wipe(secret)
        raise
    finally:
        wipe(digits)
    return RecoveryKey(secret)


def _lines(line: int, digits: memoryview, secret: bytearray) -> int:
    """Takes the digits of one line of text as lines of the key after `line`; returns the last of them."""
    # One line of the key with a digit too many is told as such; only what is two lines or more is taken apart.
    step = _DIGITS if len(digits) >= 2 * _DIGITS else len(digits) or 1
    for start in range(0, len(digits), step):
        line += 1
        if line > LINES:
            raise RecoveryTypo(line, "too-many-lines")
        _check(line, digits[start : start + step])
        secret[(line - 1) * _RANDOM : line * _RANDOM] = digits[start : start + _RANDOM]
    return line


def _take(character: str, line: int, column: int, digits: bytearray, count: int) -> int:
    """Puts a digit at its place; returns how many it took."""
    # isdigit() is true of superscripts, isdecimal() of the digits of every script; either would make another key.
    if character.isascii() and character.isdecimal():
        digits[count] = ord(character)
        return 1
    if not (character.isspace() or character in _DASHES):
        raise RecoveryTypo(line, "not-a-digit", column=column)
    return 0


def _check(line: int, digits: bytearray | memoryview) -> None:
    if len(digits) != _DIGITS:
        raise RecoveryTypo(line, "length", digits=len(digits))
    if _check_digit(line, digits[:_RANDOM]) != digits[_RANDOM] - _ZERO:
        raise RecoveryTypo(line, "check-digit")


def _check_digit(line: int, digits: Iterable[int]) -> int:
    interim = _DAMM[0][line]
    for digit in digits:
        interim = _DAMM[interim][digit - _ZERO]
    return interim
