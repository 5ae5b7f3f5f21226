"""What was found out about a storage by asking it: kept in the memo, and believed for a week."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from chatkeep.providers.memo import Memo

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

F = TypeVar("F", bound="DataclassInstance")

FRESH: Final = 7 * 86400.0
"""Seconds for which it is believed. Another program may serve the same address since, and one that takes a condition
and does not keep to it would let other bytes be replaced."""


class Learned(Generic[F]):
    """Facts about one place.

    Args:
        memo, key: where they are kept.
        kind: the dataclass of the facts, whose fields are plain values.
        version: of what they mean. Those of another one are forgotten.
        now: seconds since 1970, by this machine's clock.
    """

    def __init__(
        self, memo: Memo, key: str, kind: Callable[..., F], version: int = 1, now: Callable[[], float] = time.time
    ) -> None:
        self._memo, self._key, self._kind, self._version, self._now = memo, key, kind, version, now
        self._held: tuple[F, float] | None = None

    def fresh(self) -> F | None:
        """What is believed now. None: it is to be asked. What was learned in the future is not believed."""
        held = self._held
        if held is None or not self._is_believed(held[1]):
            held = self._read()  # another process may have asked since
        if held is None or not self._is_believed(held[1]):
            return None
        self._held = held
        return held[0]

    def last(self) -> F | None:
        """What was learned last, however long ago."""
        held = self._held or self._read()
        return held[0] if held is not None else None

    def keep(self, facts: F, *, lasting: bool = True) -> F:
        """From now on these, which are returned. Not `lasting`: for this process only."""
        self._held = (facts, self._now())
        if lasting:
            kept = {"version": self._version, "learned": self._held[1], **dataclasses.asdict(facts)}
            self._memo.set(self._key, json.dumps(kept).encode())
        return facts

    def forget(self) -> None:
        """They were found wrong."""
        self._held = None
        self._memo.delete(self._key)

    def _is_believed(self, learned: float) -> bool:
        return 0 <= self._now() - learned < FRESH

    def _read(self) -> tuple[F, float] | None:
        raw = self._memo.get(self._key)
        with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
            found = json.loads(raw or b"{}")
            if found.pop("version") == self._version:
                learned = float(found.pop("learned"))
                return self._kind(**found), learned
        return None
