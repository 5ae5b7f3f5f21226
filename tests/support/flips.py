"""Damage, one place at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from chatkeep.config.errors import ChatkeepError


def flips(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Every position of `raw` with the bytes that have one bit of it changed. The bit differs from place to place."""
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1 << position % 8
        yield position, bytes(changed)


def assert_all_refused(raw: bytes, read: Callable[[bytes], object], *errors: type[ChatkeepError]) -> None:
    """`read` takes `raw`, and answers each flip, each shorter end and a byte more with one of these errors."""
    read(raw)
    damaged = [*flips(raw), *((len(raw) - n, raw[:-n]) for n in (1, 2, len(raw))), (len(raw), raw + b"\n")]
    assert len(damaged) == len(raw) + 4
    for position, changed in damaged:
        try:
            read(changed)
        except errors:
            continue
        raise AssertionError(f"a change at {position} was not noticed")
