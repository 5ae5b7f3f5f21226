"""Providers of the simulated week: what they hold, what they acknowledged, and what must never be asked of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

from chatkeep.providers import base


@dataclass(frozen=True)
class Sealed:
    """One object as it was committed. `stands_on`: what whoever sees it is to find. `begun`: when its snapshot was
    taken, as the records have it."""

    name: str
    size: int
    is_manifest: bool
    begun: int
    stands_on: tuple[str, ...]


class Said(Protocol):
    """What is said of a provider, by records or by a daemon."""

    @property
    def required(self) -> bool: ...
    @property
    def waiting(self) -> int: ...
    @property
    def acknowledged_ns(self) -> int | None: ...
    @property
    def behind_ns(self) -> int | None: ...
    @property
    def left_behind_ns(self) -> int | None: ...


@dataclass(frozen=True)
class Truth:
    """What is so with a provider."""

    name: str
    required: bool
    waiting: int
    newest: int | None
    behind: int | None
    left: bool

    def compare(self, said: Said) -> None:
        """It is what is said."""
        assert said.required is self.required
        assert said.waiting == self.waiting, f"{self.name} lacks another amount"
        assert said.behind_ns == self.behind, f"{self.name} is behind since another time"
        assert said.acknowledged_ns == self.newest, f"the newest that {self.name} has is another one"
        assert (said.left_behind_ns is not None) is self.left, f"{self.name}: left behind, or not"


class Storage:
    """One provider, for real code.

    Attributes:
        up: whether it can be reached.
        required: as configured.
        holds: objects by name.
        lacks: what was committed and not acknowledged, by name, in the order in which it was made.
        waiting: bytes of that.
        left: those of them that are not on the device any more.
        newest: when the newest snapshot was taken that it has.
        calm: nothing goes wrong any more.
    """

    def __init__(
        self,
        name: str,
        chance: Random,
        wait: Callable[[float], None],
        happened: Callable[[str], None],
        sealed: Mapping[str, Sealed],
        *,
        required: bool,
        rate: float,
    ) -> None:
        self.name, self.required = name, required
        self.up = True
        self.holds: dict[str, bytes] = {}
        self.lacks: dict[str, Sealed] = {}
        self.left: dict[str, Sealed] = {}
        self.waiting = 0
        self.calm = False
        self.newest: int | None = None
        self._chance, self._wait, self._happened = chance, wait, happened
        self._sealed, self._rate = sealed, rate

    def take(self, sealed: Sealed) -> None:
        """It was committed, and is to get here."""
        self.lacks[sealed.name] = sealed
        self.waiting += sealed.size

    def truth(self) -> Truth:
        """What is so now."""
        behind = min((one.begun for one in self.lacks.values()), default=None)
        return Truth(self.name, self.required, self.waiting, self.newest, behind, bool(self.left))

    def ask(self) -> None:
        """Whether it answers. Raises Unavailable, which takes a while."""
        if not self.up:
            self._wait(self._chance.uniform(0.1, 30))
            raise base.Unavailable(provider=self.name)

    def put(self, name: str, body: bytes) -> None:
        self.ask()
        self._wait(len(body) / self._rate)
        self.ask()
        sealed = self._sealed[name]
        assert name in self.lacks, "acknowledged, and sent again"
        assert (len(body), hashlib.sha256(body).hexdigest()) == (sealed.size, name[-64:]), "other bytes are sent"
        assert all(one in self.holds for one in sealed.stands_on), "sent before what it stands on"
        assert not self.left or name in self.left, "something is sent before what left the outbox"
        self.holds[name] = body
        if not self.calm and self._chance.random() < 0.01:
            self._happened("an answer that was lost")
            raise base.Unavailable(provider=self.name)
        self._acknowledge(name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.ask()
        assert offset == 0
        if name not in self.holds:
            raise base.ObjectNotFound(provider=self.name, object=name)
        self._wait(len(self.holds[name]) / self._rate / 4)
        self.ask()
        if self._sealed[name].is_manifest:  # small: it is read, and compared
            self._acknowledge(name)
        return self.holds[name][:length]

    def stat(self, name: str) -> base.ObjectStat:
        self.ask()
        if name not in self.holds:
            raise base.ObjectNotFound(provider=self.name, object=name)
        if not self._sealed[name].is_manifest:
            self._acknowledge(name)
        return base.ObjectStat(name, len(self.holds[name]), None)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        self.ask()
        return iter([base.ObjectStat(name, len(raw), None) for name, raw in self.holds.items() if prefix in name])

    def delete(self, name: str) -> None:
        raise AssertionError(f"{name} is deleted")

    def probe(self) -> base.Capabilities:
        raise AssertionError("asked what it can")

    def close(self) -> None:
        raise AssertionError("nobody opened it")

    def _acknowledge(self, name: str) -> None:
        sealed = self._sealed[name]
        self.waiting -= sealed.size if self.lacks.pop(name, None) else 0
        self.left.pop(name, None)
        if sealed.is_manifest:
            self.newest = max(sealed.begun, self.newest or 0)
