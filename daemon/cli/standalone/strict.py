"""Reading strictly: a value is what docs/format.md says, or it is refused. MessagePack, JSON, page numbers.

Everything here takes bytes that an enemy may have written, and raises ValueError for all that no writer makes.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from typing import Any

MOST = (1 << 63) - 1
DEEPEST = 8  # arrays in arrays; the format's go five deep

MSGPACK_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}  # first byte of a value: size of the length that follows it
MSGPACK_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
MSGPACK_ARRAY = {0xDC: 2, 0xDD: 4}
MSGPACK_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}  # ... or of the number itself
MSGPACK_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}


class NoKey(Exception):
    """The secret opens nothing here, or has a slip."""


def demand(holds: bool, what: str) -> None:
    """Refuses what is not as the format says: ValueError, with `what` for the user."""
    if not holds:
        raise ValueError(what)


class Bytes:
    """Bytes that are taken from the front, never fewer than are asked for."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        demand(size <= len(self.raw) - self.at, "it ends too early")
        self.at += size
        return self.raw[self.at - size : self.at]

    def number(self, size: int = 4) -> int:
        """The next bytes as an unsigned, big-endian number."""
        return int.from_bytes(self.take(size), "big")

    def fields(self, layout: str) -> tuple[Any, ...]:
        """The next bytes as the fields of a `struct` layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def rows(self, layout: str) -> list[tuple[Any, ...]]:
        """A counted list: a 32-bit count, and as many rows of this layout."""
        return list(struct.iter_unpack(layout, self.take(self.number() * struct.calcsize(layout))))

    def end(self) -> None:
        """Refuses what is left over."""
        demand(self.at == len(self.raw), "something follows its end")


def unpack(raw: bytes) -> Any:
    """One MessagePack value, of the kinds that the format uses: nil, integers, bytes, text, arrays."""
    source = Bytes(raw)
    value = unpack_next(source, 0)
    source.end()
    return value


def unpack_next(source: Bytes, depth: int) -> Any:
    """The next value. Maps, floats and extensions are no part of the format, and booleans of nothing that is read."""
    first = source.number(1)
    if first <= 0x7F:
        return first
    if first >= 0xE0:
        return first - 0x100
    if first == 0xC0:
        return None
    if first in MSGPACK_UNSIGNED:
        return source.number(MSGPACK_UNSIGNED[first])
    if first in MSGPACK_SIGNED:
        return int.from_bytes(source.take(MSGPACK_SIGNED[first]), "big", signed=True)
    if first in MSGPACK_BYTES:
        return source.take(source.number(MSGPACK_BYTES[first]))
    if 0xA0 <= first <= 0xBF or first in MSGPACK_TEXT:
        size = first & 0x1F if first <= 0xBF else source.number(MSGPACK_TEXT[first])
        return source.take(size).decode("utf-8")
    demand(0x90 <= first <= 0x9F or first in MSGPACK_ARRAY, "a value of an unknown kind")
    demand(depth < DEEPEST, "arrays in arrays without end")
    count = first & 0x0F if first <= 0x9F else source.number(MSGPACK_ARRAY[first])
    return [unpack_next(source, depth + 1) for _ in range(count)]  # each takes a byte at least, so this ends


def integer(value: Any, low: int = 0, high: int = MOST) -> int:
    """A whole number in this range; True is none."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError("a number that cannot be")
    return value


def octets(value: Any, size: int | None = None, most: int | None = None) -> bytes:
    """Bytes of this size, or of at most so many."""
    if type(value) is not bytes or (size is not None and len(value) != size):
        raise ValueError("bytes of another length")
    demand(most is None or len(value) <= most, "too many bytes")
    return value


def words(value: Any, most: int = 255) -> str:
    """Text of at most so many characters."""
    if type(value) is not str or len(value) > most:
        raise ValueError("a text that cannot be")
    return value


def array(value: Any, size: int | None = None, most: int | None = None) -> list[Any]:
    """A list of this length, or of at most this one."""
    if type(value) is not list or (size is not None and len(value) != size):
        raise ValueError("fields are missing or left over")
    demand(most is None or len(value) <= most, "too many of them")
    return value


def json_object(line: Any, keys: str) -> dict[str, Any]:
    """A line of JSON, or what stands in one: an object with exactly these keys, none of them twice [4]."""
    found = json.loads(line, object_pairs_hook=once_each) if isinstance(line, bytes) else line
    demand(type(found) is dict and sorted(found) == sorted(keys.split()), "other keys than there should be")
    return dict(found)


def json_table(value: Any) -> dict[str, Any]:
    """An object whose keys are ids."""
    if type(value) is not dict:
        raise ValueError("something else than an object")
    return {hexes(key, 16): entry for key, entry in value.items()}


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of an object, unless a key stands there twice."""
    demand(len(dict(pairs)) == len(pairs), "a key that stands there twice")
    return dict(pairs)


def hexes(value: Any, size: int) -> str:
    """Lower-case hex of so many bytes, as text: ids and hashes are kept as they stand in names."""
    if type(value) is not str or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value):
        raise ValueError("hex that cannot be")
    return value


def unhex(value: Any, size: int) -> bytes:
    """The bytes that hex stands for."""
    return bytes.fromhex(hexes(value, size))


def unb64(value: Any, size: int, most: int | None = None) -> bytes:
    """The bytes that base64url without padding stands for, so many or up to `most`; one form only."""
    if type(value) is not str:
        raise ValueError("base64 that cannot be")
    raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    right = base64.urlsafe_b64encode(raw).decode().rstrip("=") == value and size <= len(raw) <= (most or size)
    demand(right, "base64 that cannot be")
    return raw


def page_ranges(raw: bytes) -> list[tuple[int, int]]:
    """The (first page, number of pages) of a run [11]: pairs of LEB128 numbers, each in its shortest form."""
    groups = re.findall(rb"[\x80-\xff]{0,4}[\x00-\x7f]", raw)
    demand(b"".join(groups) == raw and len(groups) % 2 == 0, "a list of pages that is cut off")
    demand(all(len(group) == 1 or group[-1] for group in groups), "a number that is not in its shortest form")
    numbers = [sum((byte & 0x7F) << 7 * place for place, byte in enumerate(group)) for group in groups]
    ranges: list[tuple[int, int]] = []
    end = 1  # the page after the range before
    for gap, count in zip(numbers[::2], numbers[1::2], strict=True):
        demand(count > 0 and (gap > 0 or not ranges), "pages out of order")
        ranges.append((end + gap, count))
        end += gap + count
        demand(end <= 1 << 32, "a page that cannot be")
    return ranges
