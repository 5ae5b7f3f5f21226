"""Deletes from a provider what a checkpoint condemned.

Needs no key that reads or signs: only names are deleted that this device's rows *and* a checkpoint with the vault's
signature condemn, after the provider has had that checkpoint, and everything that lives, for the time of grace by its
own clock. Manifests go before packs, so whoever still sees a manifest finds its packs.

Killed at any call, the next sweep goes on: an object that is not there is deleted. A storage that refuses to delete is
no failure. It is remembered, and asked again after a day.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.state.errors import StateError
from chatkeep.daemon.state.pruning import CheckpointRow, CondemnedRow, Pruning, Role, SweepRow
from chatkeep.daemon.sync.errors import LackingWhatLives
from chatkeep.providers import base, probing

AGAIN: Final = 86_400 * 10**9  # ns until a storage that refused, or was not ready, is asked again by itself
BATCH: Final = 64  # deletions between two transactions: each costs a sync of the disk
MOST_HELD: Final = 16  # refusals about single objects after which the rest is not tried

CondemnedBy = Callable[[str, bytes], Collection[str] | None]
"""What the checkpoint of a name condemns, once its bytes are proven to be the vault's; None when it is of an epoch that
this device has no key of. Raises ChatkeepError when they are not."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms it is deleted.

    Attributes:
        grace: seconds from when the provider has the checkpoint.
        condemned_by: proves a checkpoint.
        providers: names of all that are configured: what none of them has is forgotten.
        asked: a person asked for it now. Else nothing is tried that was tried within a day.
    """

    grace: int
    condemned_by: CondemnedBy
    providers: Sequence[str]
    asked: bool = False
    now_ns: Callable[[], int] = time.time_ns
    cancelled: Callable[[], bool] = bool


@dataclass(slots=True)
class SweepResult:
    """What became of what is condemned at one provider.

    Attributes:
        objects, bytes: deleted by this sweep.
        held, held_bytes: the storage was asked to delete them and keeps them.
        waiting, waiting_bytes: condemned, and their time has not come.
        problem: why it ended early, if it did.
    """

    provider: str
    objects: int = 0
    bytes: int = 0
    held: int = 0
    held_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    problem: ChatkeepError | None = None


def is_due(pruning: Pruning, provider: str, terms: Terms) -> bool:
    """Whether it is worth asking the provider, by this device's own clock and without a request."""
    rows = pruning.to_sweep(provider)
    now = terms.now_ns()
    last = pruning.sweep(provider)
    if last is not None and 0 <= now - last.at < AGAIN and (last.refused or not rows or last.number < rows[0].number):
        return False
    names = {one.number: one.name for one in pruning.checkpoints()}
    arrived = [pruning.received(names[number], provider) for number in {row.number for row in rows} & names.keys()]
    # A time to come is of a clock that was set back: then only the storage can tell.
    return any(at is not None and (now < at or now - at >= terms.grace * 10**9) for at in arrived)


def sweep(pruning: Pruning, provider: base.Provider, terms: Terms) -> SweepResult:
    """Deletes what may go. What storage does is in the result. Raises StateError."""
    result = SweepResult(provider.name)
    if terms.asked or is_due(pruning, provider.name, terms):
        run = _Sweep(pruning, provider, terms, result)
        try:
            run.all()
        except ChatkeepError as exc:
            if isinstance(exc, StateError):
                raise
            result.problem = exc
        run.end()
        pruning.forget(terms.providers)
    _count_left(pruning, result)
    return result


def _count_left(pruning: Pruning, result: SweepResult) -> None:
    last = pruning.sweep(result.provider)
    if last is not None and last.refused:
        result.held, result.held_bytes = last.objects, last.bytes
    rows = [row for row in pruning.to_sweep(result.provider) if row.role is not Role.CHECKPOINT]
    result.waiting = max(0, len(rows) - result.held)
    result.waiting_bytes = max(0, sum(row.size for row in rows) - result.held_bytes)


@dataclass
class _Sweep:
    """One sweep of one provider."""

    pruning: Pruning
    provider: base.Provider
    terms: Terms
    result: SweepResult
    done: list[str] = field(default_factory=list)
    refused: base.ProviderError | None = None
    left: list[CondemnedRow] = field(default_factory=list)
    there: float | None = None  # the provider's time, asked for once
    is_whole: bool = False  # it was found to have everything that lives

    def all(self) -> None:
        """Every checkpoint whose time has come, the oldest first."""
        self.pruning.note_sweep(self.provider.name, SweepRow(0, self.terms.now_ns(), None, 0, 0))
        made = {one.number: one for one in self.pruning.checkpoints()}
        self._correct(made.values())
        rows = self.pruning.to_sweep(self.provider.name)
        for number, group in itertools.groupby(rows, key=lambda row: row.number):
            if number not in made:
                continue  # of records that were lost: the next prune condemns it anew
            if not self._has_come(made[number]):
                break  # the later ones are later
            self._require_all()
            name = made[number].name
            signed = self.terms.condemned_by(name, self.provider.get(name))
            if signed is not None:
                self._one(number, list(group), signed)
            if self.refused is not None and not isinstance(self.refused, base.ObjectHeld):
                break

    def _correct(self, checkpoints: Iterable[CheckpointRow]) -> None:
        """Where our clock was ahead when a checkpoint arrived, its grace begins anew, or it would last for years."""
        now = self.terms.now_ns()
        for one in checkpoints:
            received = self.pruning.received(one.name, self.provider.name)
            if received is not None and received > now:
                self.pruning.received_at(one.name, self.provider.name, now)

    def end(self) -> None:
        """Remembers how far it came."""
        self._record()
        self._note(0)

    def _has_come(self, checkpoint: CheckpointRow) -> bool:
        if not self.pruning.is_ready(checkpoint.name, self.provider.name):
            return False
        stored = self.provider.stat(checkpoint.name).modified
        if stored is not None and self.there is None:
            with contextlib.suppress(base.PermissionRefused):  # one that may write below its own prefix only
                self.there = probing.clock(self.provider)
        if stored is not None and self.there is not None:
            return self.there - stored >= self.terms.grace
        # A storage that tells no time: ours has to do. It decides when, never what.
        received, now = self.pruning.received(checkpoint.name, self.provider.name), self.terms.now_ns()
        return received is not None and now - received >= self.terms.grace * 10**9

    def _require_all(self) -> None:
        """Raises LackingWhatLives. What never got a receipt here may have been copied by hand. Or this provider was
        left out of the configuration for a time and never gets it: its older snapshots are all that it can restore.
        """
        unsure = set() if self.is_whole else self.pruning.arrivals.unreceived(self.provider.name)
        if unsure:
            for prefix in sorted({name[: name.rindex("/") + 1] for name in unsure}):
                unsure.difference_update(found.name for found in self.provider.list(prefix))
        for name in sorted(unsure):  # a listing may be old: only the question by name is absence
            try:
                self.provider.stat(name)
            except base.ObjectNotFound as exc:
                raise LackingWhatLives(provider=self.provider.name, object=name) from exc
        self.is_whole = True

    def _one(self, number: int, rows: Sequence[CondemnedRow], signed: Collection[str]) -> None:
        # Before anything is deleted: what is on record as begun is never taken back.
        self._note(number)
        manifests = [row for row in rows if row.role is Role.MANIFEST and row.name in signed]
        packs = [row for row in rows if row.role is Role.PACK and row.name in signed]
        self._delete(manifests)
        if self.refused is None:
            self._delete(packs)
        else:
            self.left += packs
        if not self.left:
            # An older checkpoint proves what it condemned: it goes when that is gone.
            self._delete([row for row in rows if row.role is Role.CHECKPOINT], counted=False)

    def _delete(self, rows: Iterable[CondemnedRow], *, counted: bool = True) -> None:
        held = 0
        for row in rows:
            if self.terms.cancelled():
                raise Cancelled
            if self.refused is not None and (held >= MOST_HELD or not isinstance(self.refused, base.ObjectHeld)):
                self.left.append(row)
                continue
            try:
                self.provider.delete(row.name)
            except base.PermissionRefused as exc:
                self.refused = exc
                self.left.append(row)
                held += 1
                continue
            self.done.append(row.name)
            if counted:
                self.result.objects += 1
                self.result.bytes += row.size
            if len(self.done) >= BATCH:
                self._record()

    def _record(self) -> None:
        self.pruning.record_swept(self.done, self.provider.name, self.terms.now_ns())
        self.done.clear()

    def _note(self, number: int) -> None:
        code = None if self.refused is None else self.refused.code
        size = sum(row.size for row in self.left)
        self.pruning.note_sweep(self.provider.name, SweepRow(number, self.terms.now_ns(), code, len(self.left), size))
