"""Object lock that does not run out while objects are needed.

Storage that locks holds each object for a period from its put. What lives longer than that is locked again, in passes:
one pass holds everything that lives until one and the same time, a whole period from its beginning, and the next begins
when half of that is over. So whatever lives is held for half a period more at any instant, by one mark per provider in
place of a time per object. A pass that was cut off goes on towards the same time, so what it reached already costs one
question each.

What is condemned is let run out. Nothing here knows a key or a format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from chatkeep.daemon.sync.errors import RetentionBehind
from chatkeep.providers import base
from chatkeep.providers.memo import Memo

KEY: Final = "retain:pass"
_VERSION: Final = 1
_REFUSED: Final = 20
"""Objects in a row that may be refused before a pass is given up: it is the place or the key then, and no object."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last pass: everything that lived is held `until` (seconds since 1970), once it is `done`."""

    until: float
    done: bool


@dataclass(frozen=True, slots=True)
class Extended:
    """What a pass did. `objects`: held for longer; `problem`: why it is not done yet, if it is not."""

    objects: int = 0
    problem: RetentionBehind | None = None


class Keeper(base.Provider, base.Retains, Protocol):
    """A provider that locks objects."""


def due(last: Mark | None, period: float, now: float) -> float | None:
    """Until when everything that lives is to be held by a pass now; None: no pass is due. Pure.

    A mark further ahead than a period is of a clock that was wrong, or of a longer period that was configured then:
    what is locked for longer stays so, and the rest is held as is configured now.
    """
    if last is None or last.until > now + period:
        return now + period
    left = last.until - now
    if not last.done:
        return last.until if left >= period / 2 else now + period
    return None if left > period / 2 else now + period


def extend(
    provider: Keeper,
    memo: Memo,
    period: float,
    living: Callable[[], Iterable[str]],
    now: float,
    cancelled: Callable[[], bool] = bool,
) -> Extended:
    """Makes the pass that is due, if one is.

    Args:
        memo: keeps the mark.
        living: names of what lives, asked for only when a pass is due. One that is not there is passed over. May raise
            ProviderError.
    """
    until = due(load(memo), period, now)
    if until is None:
        return Extended()
    _save(memo, Mark(until, done=False))
    objects = 0
    name = ""
    refused: list[RetentionBehind] = []  # the first ones in a row are enough to know that all are
    behind: RetentionBehind | None = None
    try:
        for name in living():
            if cancelled():
                return Extended(objects, behind)  # the next one goes on
            try:
                provider.retain(name, until)
                objects += 1
                refused = []
            except base.ObjectNotFound:
                continue
            except base.PermissionRefused as problem:
                if isinstance(problem, base.CredentialRefused):
                    raise
                # Of this object, perhaps. What comes after it must not lose its lock because of that.
                refused.append(RetentionBehind(provider=provider.name, object=name, reason=problem.code))
                behind = behind or refused[0]
                if len(refused) == _REFUSED:
                    break
    except base.ProviderError as problem:
        behind = behind or RetentionBehind(provider=provider.name, object=name, reason=problem.code)
    if behind is None:
        _save(memo, Mark(until, done=True))
    return Extended(objects, behind)


def load(memo: Memo) -> Mark | None:
    """The last pass, if one is remembered."""
    raw = memo.get(KEY)
    try:
        found = json.loads(raw) if raw is not None else {}
        return Mark(float(found["until"]), bool(found["done"])) if found.get("version") == _VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # as if none was made: a pass too many costs requests, one too few the lock


def _save(memo: Memo, mark: Mark) -> None:
    memo.set(KEY, json.dumps({"version": _VERSION, "until": mark.until, "done": mark.done}).encode())
