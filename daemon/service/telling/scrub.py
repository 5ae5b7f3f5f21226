"""Nothing that looks like a secret leaves in a text. Pure.

Events and errors hold none by their construction; this is the second lock on the same door. It does not know the
secrets, so it takes out whatever has their shape: 32 bytes in any usual spelling, a recovery key, the address of
anything. Ids of devices, vaults and snapshots are shorter and stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

GONE: Final = "[removed]"
_LARGEST: Final = 1 << 64  # a number above is no count of anything
_STRANGE: Final = 10  # characters in one text that bytes become when they are taken for text
_BYTES: Final = 16  # numbers of one byte each, in one list

_SHAPES: Final = (
    re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]*"),  # an address: its path or its query can be the token
    re.compile(r"[0-9](?:(?:[\s,.:_-]|\\[nrt]){0,3}[0-9]){39,}"),  # digits of a recovery key, however they are grouped
    re.compile(r"(?:[0-9A-Fa-f]{2}[\s:,-]?){20,}"),  # hexadecimal, of 20 bytes and more
    re.compile(r"\b[bB](?:[rR])?'[^']*(?:\\x[0-9a-f]{2}[^']*){4,}'"),  # bytes as Python shows them
)
_CODED: Final = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,6}")  # base64 and base32
_DENSE: Final = 10  # of so many characters of base64 one is a slash at most; in a path there are more
_ESCAPE: Final = re.compile(r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}")
_LIST: Final = re.compile(r"(?:\b[0-9]{1,3}\b[\s,]+){15,}\b[0-9]{1,3}\b")


def scrubbed(text: str) -> str:
    """The text without what could be a secret."""
    strange = sum("\x80" <= ch <= "\xff" or not (ch.isprintable() or ch in "\n\t") for ch in text)
    if strange + len(_ESCAPE.findall(text)) >= _STRANGE:
        return GONE
    for shape in (*_SHAPES, _LIST):
        text = shape.sub(GONE, text)
    return _CODED.sub(lambda found: found[0] if found[0].count("/") * _DENSE > len(found[0]) else GONE, text)


def scrub(value: Any) -> Any:
    """The same for a plain value, and for the keys and values of what holds such."""
    if isinstance(value, str):
        return scrubbed(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < _LARGEST else GONE
    if isinstance(value, Mapping):
        return {scrubbed(str(name)): scrub(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        if sum(isinstance(item, int) and 0 <= item < 256 for item in value) >= _BYTES:
            return GONE
        return [scrub(item) for item in value]
    return GONE  # bytes, and anything that is not plain


def printable(text: str) -> str:
    """On one line, and without what would drive a terminal: names come from files, and files from other people."""
    return "".join(ch if ch.isprintable() else _escaped(ch) for ch in text)


def _escaped(ch: str) -> str:
    if "\udc80" <= ch <= "\udcff":  # a byte that is no UTF-8, as Python carries it
        return f"\\x{ord(ch) - 0xDC00:02x}"
    return " " if ch in "\n\t\r" else ch.encode("unicode_escape").decode()
