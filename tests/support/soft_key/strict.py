"""Parameters of a command, read strictly: canonical CBOR, known keys, right types, nothing taken for granted.

A lenient authenticator would let a client pass that no real key accepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fido2 import cbor

from tests.support.soft_key.statuses import Refused, Status

T = TypeVar("T")


class Parameters:
    """The map of one command, or a map inside it."""

    def __init__(self, given: Mapping[Any, Any], known: Sequence[int | str] | None = None) -> None:
        if known is not None and not set(given) <= set(known):
            raise Refused(Status.INVALID_PARAMETER)
        self._given = given

    @staticmethod
    def read(body: bytes, known: Sequence[int]) -> Parameters:
        """A command's body. Section 8.1: the canonical form only."""
        if not body:
            raise Refused(Status.INVALID_CBOR)
        try:
            given = cbor.decode(body)
            canonical = cbor.encode(given) == body  # the decoder forgives lengths that lie; encoding again does not
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise Refused(Status.INVALID_CBOR) from None
        if not canonical:
            raise Refused(Status.INVALID_CBOR)
        if not isinstance(given, Mapping):
            raise Refused(Status.CBOR_UNEXPECTED_TYPE)
        return Parameters(given, known)

    def __contains__(self, key: int | str) -> bool:
        return key in self._given

    def maybe(self, key: int | str, kind: type[T]) -> T | None:
        """A value that may be absent; what is there has the type."""
        value = self._given.get(key)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Refused(Status.CBOR_UNEXPECTED_TYPE)
        return value

    def need(self, key: int | str, kind: type[T]) -> T:
        """A value that must be there."""
        value = self.maybe(key, kind)
        if value is None:
            raise Refused(Status.MISSING_PARAMETER)
        return value

    def inner(self, key: int | str) -> Parameters:
        """A map that may be absent; absent is empty."""
        return Parameters(self.maybe(key, dict) or {})


def descriptors(given: list[Any] | None, limit: int) -> list[bytes] | None:
    """Credential ids of an allow or exclude list. Types that are not known are passed over, as section 6.1 has it."""
    if given is None:
        return None
    if not given:
        raise Refused(Status.INVALID_PARAMETER)  # section 6: a platform leaves an empty list out
    if len(given) > limit:
        raise Refused(Status.LIMIT_EXCEEDED)
    ids = []
    for item in given:
        if not isinstance(item, dict):
            raise Refused(Status.CBOR_UNEXPECTED_TYPE)
        entry = Parameters(item)
        kind, identity = entry.need("type", str), entry.need("id", bytes)
        if kind == "public-key":
            ids.append(identity)
    return ids
