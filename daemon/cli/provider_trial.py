"""Asks a provider, one thing after another, what it does: the requests behind `provider_findings`.

Everything that is put lies below `probe/`, under random names, and is deleted again, whatever happens between. What is
measured is one connection and a few megabytes: enough to tell a storage that will do from one that will not.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from chatkeep.config.errors import ChatkeepError, Disposition
from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli.provider_findings import Check, Row
from chatkeep.providers.base import (
    CredentialRefused,
    ObjectNotFound,
    PermissionRefused,
    ProviderError,
    SecretFileRefused,
    StorageMissing,
    Throttled,
)

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig
    from chatkeep.providers.base import Provider

BODY: Final = 4096  # bytes of the object that all but the speed is tried with
SMALLEST: Final = 64 * 1024  # bytes of the first object that is timed; each further one is twice as large
MOST: Final = 4 * 1024 * 1024  # bytes that are sent to measure the speed, and as many received
BUDGET: Final = 5.0  # seconds of sending, and as many of receiving, after which no further object is begun
_WITHOUT_KEY: Final = frozenset({"folder"})

Watch = Callable[[Check], None]


class _Over(Exception):
    """Nothing that follows can be asked."""


@dataclass
class Trial:
    """One provider that is tried.

    Attributes:
        watch: told of each question as it is asked.
        keyed: it wants a key, a password or a login. quick: without the speed.
        limited: the configuration limits its speed, and so what is measured here.
        clock: seconds, for spans.
        left: names of what was put and is still there.
    """

    provider: Provider
    watch: Watch
    keyed: bool = True
    quick: bool = False
    limited: bool = False
    clock: Callable[[], float] = time.monotonic
    left: list[str] = field(default_factory=list)
    reads: bool = True
    deletes: bool = True
    _unsure: bool = False  # whether it let this device in, after the first answer

    def rows(self) -> Iterator[Row]:
        """Each answer as soon as it is known. Closing the iterator early takes away what was put, too."""
        try:
            with contextlib.suppress(_Over):
                yield from self._rows()
        finally:
            self._clear()

    def _rows(self) -> Iterator[Row]:
        name, body = _name(), os.urandom(BODY)
        yield from self._reach(name)
        yield from self._write(name, body)
        yield from self._read(name, body)
        yield from self._list(name)
        yield from self._delete(name)
        yield from self._probe()
        if not self.quick:
            yield from self._speed()

    def _reach(self, name: str) -> Iterator[Row]:
        self.watch(Check.REACH)
        begun = self.clock()
        try:
            self.provider.stat(name)
        except (ObjectNotFound, PermissionRefused, StorageMissing, Throttled) as exc:
            # Each of them is an answer. One that may not look at what is not there may still put.
            if self.keyed or not isinstance(exc, StorageMissing):
                yield findings.reached(Check.REACH, self.clock() - begun)
            yield from self._after_reach(exc)
        except ChatkeepError as exc:
            yield of_opening(exc)  # some look for their key and their library now only
            raise _Over from exc
        else:
            yield findings.reached(Check.REACH, self.clock() - begun)
            yield findings.damaged(Check.READ)  # nobody can have put that
            raise _Over

    def _after_reach(self, error: ProviderError) -> Iterator[Row]:
        """Whether it goes on, after an answer that is an error."""
        if isinstance(error, CredentialRefused):
            yield findings.failed(Check.LOGIN, error)
            raise _Over from error
        if isinstance(error, StorageMissing):
            yield findings.failed(Check.PLACE, error)
            raise _Over from error
        if isinstance(error, Throttled):
            yield findings.failed(Check.WRITE, error)
            raise _Over from error
        # Refused may be the key itself, where a question without a body gets an answer without one.
        self._unsure = self.keyed and isinstance(error, PermissionRefused)
        if self.keyed and not self._unsure:
            yield findings.worked(Check.LOGIN)

    def _write(self, name: str, body: bytes) -> Iterator[Row]:
        self.watch(Check.WRITE)
        self.left.append(name)
        try:
            self.provider.put(name, body)
        except ChatkeepError as exc:
            if exc.disposition is not Disposition.RETRY:
                self.left.remove(name)  # it was refused; what only failed may have arrived
            yield findings.failed(
                Check.LOGIN if self._unsure and isinstance(exc, CredentialRefused) else Check.WRITE, exc
            )
            raise _Over from exc
        if self._unsure:
            yield findings.worked(Check.LOGIN)
        yield findings.worked(Check.WRITE)

    def _read(self, name: str, body: bytes) -> Iterator[Row]:
        self.watch(Check.READ)
        try:
            whole = self.provider.get(name) == body
            yield findings.worked(Check.READ) if whole else findings.damaged(Check.READ)
        except CredentialRefused as exc:
            yield findings.failed(Check.READ, exc)
            raise _Over from exc
        except PermissionRefused:
            self.reads = False
            yield findings.not_allowed(Check.READ)
            return
        except ChatkeepError as exc:
            yield findings.failed(Check.READ, exc)
            raise _Over from exc
        self.watch(Check.RANGE)
        try:
            parts = self.provider.get(name, -100, 10), self.provider.get(name, 1000, 100), self.provider.get(name, BODY)
            right = parts == (body[-100:-90], body[1000:1100], b"")
            yield findings.worked(Check.RANGE) if right else findings.damaged(Check.RANGE)
        except ChatkeepError as exc:
            yield findings.failed(Check.RANGE, exc)

    def _list(self, name: str) -> Iterator[Row]:
        self.watch(Check.LIST)
        try:
            yield findings.shown(any(each.name == name for each in self.provider.list("probe/")))
        except CredentialRefused as exc:
            yield findings.failed(Check.LIST, exc)
        except PermissionRefused:
            yield findings.not_allowed(Check.LIST)
        except ChatkeepError as exc:
            yield findings.failed(Check.LIST, exc)

    def _delete(self, name: str) -> Iterator[Row]:
        self.watch(Check.DELETE)
        try:
            self.provider.delete(name)
            self.deletes = self._is_gone(name)
        except CredentialRefused as exc:
            yield findings.failed(Check.DELETE, exc)
            return
        except PermissionRefused:
            self.deletes = False
        except ChatkeepError as exc:
            yield findings.failed(Check.DELETE, exc)
            return
        if self.deletes:
            self.left.remove(name)
        yield findings.worked(Check.DELETE) if self.deletes else findings.not_allowed(Check.DELETE)

    def _is_gone(self, name: str) -> bool:
        if not self.reads:
            return True  # it said so, and that is all there is to know
        try:
            self.provider.stat(name)
        except ObjectNotFound:
            return True
        return False

    def _probe(self) -> Iterator[Row]:
        self.watch(Check.OVERWRITE)
        try:
            yield from findings.of_capabilities(self.provider.probe())
        except ChatkeepError as exc:
            yield findings.failed(Check.OVERWRITE, exc)
            raise _Over from exc

    def _speed(self) -> Iterator[Row]:
        if not self.deletes:
            yield findings.left_out(Check.UP, "What would be sent could not be removed again.")
            return
        sent: list[tuple[str, int]] = []
        yield self._rate(Check.UP, self._sending(sent))
        if sent and self.reads:
            yield self._rate(Check.DOWN, [functools.partial(self._get, name) for name, _ in reversed(sent)])

    def _sending(self, sent: list[tuple[str, int]]) -> Iterator[Callable[[], int]]:
        """Objects to put, each twice as large as the one before: a slow line gets small ones only."""
        length = SMALLEST
        while sum(one[1] for one in sent) + length <= MOST:
            name, body = _name(), os.urandom(length)
            yield functools.partial(self._put, name, body)
            sent.append((name, length))
            length *= 2

    def _put(self, name: str, body: bytes) -> int:
        self.left.append(name)
        self.provider.put(name, body)
        return len(body)

    def _get(self, name: str) -> int:
        return len(self.provider.get(name))

    def _rate(self, check: Check, calls: Iterable[Callable[[], int]]) -> Row:
        """By the fastest call: of a small one the way there and back is the most. Under a limit, which lets the first
        ones through at once, by all of them."""
        self.watch(check)
        best, whole, begun = (0, 1.0), 0, self.clock()
        try:
            for call in calls:
                start = self.clock()
                moved = call()
                now, whole = self.clock(), whole + moved
                best = max(best, (moved, now - start), key=lambda one: one[0] / max(one[1], 1e-9))
                if now - begun > BUDGET:
                    break
        except ChatkeepError as exc:
            return findings.failed(check, exc)
        if self.limited:
            best = (whole, self.clock() - begun)
        return findings.speed(check, *best, self.limited)

    def _clear(self) -> None:
        """Takes away what was put, as far as storage lets it."""
        for name in list(self.left):
            with contextlib.suppress(ProviderError):
                self.provider.delete(name)
                if self._is_gone(name):
                    self.left.remove(name)


class Tried(NamedTuple):
    """What came of a trial. `left`: objects that could not be taken away again."""

    rows: tuple[Row, ...]
    left: int


def attempt(config: ProviderConfig, asked: Watch, answered: Callable[[Row], None], *, quick: bool) -> Tried:
    """Tries a provider of a configuration; `asked` and `answered` are told of each question and each answer at once."""
    from chatkeep.daemon.service import storage

    rows: list[Row] = []

    def note(row: Row) -> None:
        rows.append(row)
        answered(row)

    try:
        with storage.opened([config], patient=False) as (provider,):
            trial = Trial(provider, asked, config.type not in _WITHOUT_KEY, quick, _is_limited(config))
            for row in trial.rows():
                note(row)
            return Tried(tuple(rows), len(trial.left))
    except ChatkeepError as exc:
        note(of_opening(exc))
        return Tried(tuple(rows), 0)


def _is_limited(config: ProviderConfig) -> bool:
    from chatkeep.config.amounts import UNLIMITED
    from chatkeep.daemon.cli.provider_usage import rates

    return min(rates(config.limit, time.time())) < UNLIMITED


def of_opening(error: ChatkeepError) -> Row:
    """What is known of a provider that could not even be opened."""
    return findings.failed(
        Check.LOGIN if isinstance(error, CredentialRefused | SecretFileRefused) else Check.REACH, error
    )


def _name() -> str:
    return f"probe/{os.urandom(16).hex()}"
