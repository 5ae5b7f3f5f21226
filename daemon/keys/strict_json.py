"""JSON read strictly: exactly the keys that are expected, once each, of the right type and length. Pure.

One value has one spelling: base64 with stray bits, capitals in hex, a key twice or unknown, `true` for 1 are refused,
so what a text says to one reader it says to all.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from chatkeep.daemon.keys.errors import TextMalformed, TextVersion

Field: TypeAlias = Callable[[object], Any]
"""Takes what JSON gave and returns the value, or raises ValueError with the path of the key at fault."""

Spec: TypeAlias = Mapping[str, Field]

_HEX: Final = frozenset("0123456789abcdef")


def write_object(fields: Mapping[str, object]) -> bytes:
    """One line of JSON, without its line feed."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def parse_object(line: bytes, spec: Spec, what: str) -> dict[str, Any]:
    """One JSON object with exactly the keys of `spec`, each value as its field reads it.

    A spec with the key `v` is of version 1; a later version is told before anything else of it is looked at.

    Raises:
        TextVersion: of another version.
        TextMalformed: not one JSON object; a key missing, unknown or twice there; a value of the wrong type or length.
    """
    try:
        found = json.loads(
            line.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError) as exc:  # of ValueError: bad UTF-8, bad JSON, integers of thousands of digits
        raise TextMalformed(what=what, reason="json") from exc
    if not isinstance(found, dict):
        raise TextMalformed(what=what, reason="json")
    if "v" in spec:
        version = found.get("v")
        if type(version) is int and version > 1:
            raise TextVersion(what=what, version=version)
    try:
        return nested(spec)(found)  # type: ignore[no-any-return]  # a field returns what it reads: here a dict
    except ValueError as exc:
        raise TextMalformed(what=what, reason="field", key=str(exc)) from exc


def exactly(value: int | str) -> Field:
    """This very value."""

    def read(found: object) -> int | str:
        if type(found) is not type(value) or found != value:
            raise ValueError
        return value

    return read


def one_of(*values: str) -> Field:
    """One of these texts."""

    def read(found: object) -> str:
        if not isinstance(found, str) or found not in values:
            raise ValueError
        return found

    return read


def integer(least: int, most: int) -> Field:
    """A whole number within bounds, both included. `true` is none."""

    def read(found: object) -> int:
        if type(found) is not int or not least <= found <= most:
            raise ValueError
        return found

    return read


def hexadecimal(size: int) -> Field:
    """`size` bytes in lower-case hex."""

    def read(found: object) -> bytes:
        if not isinstance(found, str):
            raise ValueError
        return decode_hex(found, size)

    return read


def b64(size: int) -> Field:
    """`size` bytes in base64url without padding."""

    def read(found: object) -> bytes:
        if not isinstance(found, str):
            raise ValueError
        return decode_b64(found, size)

    return read


def b64_between(least: int, most: int) -> Field:
    """So many bytes, bounds included, in base64url without padding."""

    def read(found: object) -> bytes:
        size = len(found) * 3 // 4 if isinstance(found, str) else -1
        if not isinstance(found, str) or not least <= size <= most:
            raise ValueError
        return decode_b64(found, size)

    return read


def text(most: int) -> Field:
    """1 to so many characters of printable ASCII: what a message may show as it is."""

    def read(found: object) -> str:
        if not isinstance(found, str) or not 1 <= len(found) <= most or not (found.isascii() and found.isprintable()):
            raise ValueError
        return found

    return read


def optional(field: Field) -> Field:
    """null, or the field."""
    return lambda found: None if found is None else field(found)


def nested(spec: Spec) -> Field:
    """An object with exactly these keys."""

    def read(found: object) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise ValueError
        for key in sorted(found.keys() ^ spec.keys()):
            raise ValueError(_shown(key))
        return {key: _at(key, field, found[key]) for key, field in spec.items()}

    return read


def table(id_size: int, field: Field, most: int) -> Field:
    """An object from ids in hex to fields, of at most so many."""

    def read(found: object) -> dict[bytes, Any]:
        if not isinstance(found, dict) or len(found) > most:
            raise ValueError
        name = hexadecimal(id_size)
        return {_at(key, name, key): _at(key, field, value) for key, value in found.items()}

    return read


def row(*fields: Field) -> Field:
    """A list of exactly these."""

    def read(found: object) -> tuple[Any, ...]:
        if not isinstance(found, list) or len(found) != len(fields):
            raise ValueError
        return tuple(field(value) for field, value in zip(fields, found, strict=True))

    return read


def anything(found: object) -> object:
    """Any JSON value: for what this version knows to be there and does not read."""
    return found


def encode_b64(value: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def decode_b64(text: str, size: int) -> bytes:
    """Exactly `size` bytes out of their one base64url spelling, or ValueError."""
    if len(text) != (size * 8 + 5) // 6:
        raise ValueError
    try:
        value = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError from None
    # The decoder ignores unused bits of the last character, and takes + and / too: several texts would be one value.
    if encode_b64(value) != text:
        raise ValueError
    return value


def decode_hex(text: str, size: int) -> bytes:
    """Exactly `size` bytes out of their lower-case hex, or ValueError."""
    # fromhex alone would take spaces and capitals.
    if len(text) != 2 * size or not set(text) <= _HEX:
        raise ValueError
    return bytes.fromhex(text)


def _at(key: str, field: Field, found: object) -> Any:  # a field's value has the type its reader gives it
    try:
        return field(found)
    except ValueError as exc:
        raise ValueError(_shown(key) + (f".{exc}" if str(exc) else "")) from None


def _shown(key: str) -> str:
    """A key for an error: bounded, since storage may have chosen it."""
    return ascii(key[:40])[1:-1]


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate")
    return found


def _refuse(text: str) -> object:
    raise ValueError(text)
