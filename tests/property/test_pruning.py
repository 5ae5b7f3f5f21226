"""Backups, prunes, sweeps and readers in any order: two devices, three storages with clocks and tempers of their own.

Whatever happens, every snapshot that a storage shows restores from that storage alone, and nothing is told that is not
so: no damage, no loss. In the end all storages hold the same, and nothing but what lives.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from chatkeep.config.amounts import ALL, Amount, Duration
from chatkeep.config.model import Retention
from chatkeep.daemon.prune import live, plan
from chatkeep.daemon.retention import Candidate, Verdict, decide
from tests.support.thinning import DAY, HOUR, Cut, Home, Storage, World

YEAR = 365 * DAY
Counts = collections.Counter[str]


class Life:
    """What two devices do, drawn from a seed."""

    def __init__(self, room: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.counts: Counts = collections.Counter()
        self.world = World()
        clocks = (0, 10 * YEAR, -10 * YEAR, None)
        self.storages = [Storage(name, self.world, self.dice.choice(clocks)) for name in ("disk", "cloud", "far")]
        first = Home.make(room / "first", self.world, *self.storages)
        self.homes = [first, first.join(room / "second")]
        self.grace = Duration(self.dice.choice((3 * 3600, 86_400, 7 * 86_400)))
        for home in self.homes:
            home.policy = dataclasses.replace(home.policy, grace=self.grace)
        for storage in self.storages:
            storage.lag = self.dice.choice((0, 0, HOUR))

    def policy(self) -> Retention:
        hourly, daily, weekly, monthly = (Amount(self.dice.randrange(3)) for _ in range(4))
        recent = Duration(self.dice.choice((0, 0, 36)) * 3600)
        years = self.dice.choice((Amount(0), Amount(1), ALL))
        return Retention(recent, hourly, daily, weekly, monthly, years, Amount(self.dice.randrange(1, 5)), self.grace)

    def go(self, steps: int) -> Counts:
        for _ in range(steps):
            home = self.dice.choice(self.homes)
            act = self.dice.choices((self.back_up, self.prune, self.sweep, self.look), (6, 2, 3, 1))[0]
            self.mood()
            try:
                act(home)
            except Cut:
                self.counts["cut"] += 1
            self.world.pass_(self.dice.choice((HOUR // 3, 5 * HOUR, 5 * HOUR, DAY, 8 * DAY)))
        self.end()
        return self.counts

    def mood(self) -> None:
        for storage in self.storages:
            storage.fuse = -1
            storage.away = self.dice.random() < 0.15
            storage.deletes = self.dice.random() < 0.8
            storage.held = set(self.dice.sample(sorted(storage.objects), 5)) if self.dice.random() < 0.2 else set()
        if all(storage.away for storage in self.storages):
            self.storages[0].away = False
        if self.dice.random() < 0.25:
            self.dice.choice(self.storages).fuse = self.dice.randrange(40)

    def some(self) -> list[Storage]:
        return self.dice.sample(self.storages, self.dice.randrange(4))

    def back_up(self, home: Home) -> None:
        home.ahead = self.dice.choice((0, 0, 0, 0, 0, 10 * YEAR, -10 * YEAR))
        for _ in range(self.dice.choice((1, 1, 2, 5))):
            number = self.counts["backups"]
            home.write(f"file-{self.dice.randrange(6)}", b"content %d " % number * self.dice.choice((1, 3000)))
            if self.dice.random() < 0.2:
                (home.source / f"file-{self.dice.randrange(6)}").unlink(missing_ok=True)
            self.counts["backups"] += 1
            try:
                home.back_up(send=self.some())
            finally:
                with home.state() as state:  # also one that was cut off while it was sent exists
                    seq = state.stream("chat").seq
                home.content.setdefault(seq, home.tree())
            self.world.pass_(HOUR // 7)

    def prune(self, home: Home) -> None:
        home.ahead = 0
        if all(storage.away or storage.fuse >= 0 for storage in self.storages):
            return
        made = home.prune(self.policy(), send=self.some())
        self.counts["prunes"] += 1
        self.counts["condemned"] += len(made.waste.rows)
        self.counts["taken back"] += len(made.waste.revived)

    def sweep(self, home: Home) -> None:
        for result in home.sweep(*self.some(), asked=self.dice.random() < 0.7):
            self.counts["sweeps"] += 1
            self.counts["deleted"] += result.objects
            self.counts["held"] += result.held

    def look(self, home: Home) -> None:
        """A reader with one storage."""
        storage = self.dice.choice(self.storages)
        storage.away, storage.fuse = False, -1
        _, found, wrong = home.read(storage)
        assert wrong == []
        some = self.dice.sample(found, min(2, len(found)))
        home.check(storage, only={one.header.seq for one in some})
        self.counts["restored"] += len(some)

    def end(self) -> None:
        """Everything answers again: all storages come to hold the same, and each alone restores it."""
        for storage in self.storages:
            storage.away, storage.deletes, storage.fuse, storage.held = False, True, -1, set()
        for home in self.homes:
            home.ahead = 0
            home.write("last", b"last")
            home.back_up()
            home.prune(self.policy())
        for home in self.homes:
            self.world.pass_(self.grace.ns + DAY)
            # A device whose clock was ahead waits anew from now.
            self.counts["deleted"] += sum(result.objects for result in home.sweep())
        self.world.pass_(self.grace.ns + DAY)
        for home in self.homes:
            for result in home.sweep():
                assert (result.waiting, result.held, result.problem) == (0, 0, None)
                self.counts["deleted"] += result.objects
            whole = self.dice.choice(self.storages)
            left = home.check(whole)
            some = self.dice.sample(left, min(2, len(left)))
            assert all(home.check(storage, only=some) == left for storage in self.storages if storage is not whole)
            self.counts["restored"] += len(left) + 2 * len(some)
        first, *others = [storage.own("d/") for storage in self.storages]
        assert all(other == first for other in others)


def lives(room: Path, seeds: range, steps: int) -> Counts:
    counts: Counts = collections.Counter()
    for seed in seeds:
        try:
            counts += Life(room / str(seed), seed).go(steps)
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise
    return counts


@pytest.fixture(autouse=True)
def nothing_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here, and thousands of syncs would be most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)


def test_any_order_of_backups_prunes_sweeps_and_readers(tmp_path: Path, seed: int) -> None:
    counts = lives(tmp_path, range(seed, seed + 4), 22)
    assert counts["deleted"] > 5
    assert counts["restored"] > 20


@pytest.mark.long
def test_many_orders_of_backups_prunes_sweeps_and_readers(tmp_path: Path, seed: int) -> None:
    counts = lives(tmp_path, range(seed, seed + 150), 40)
    print(dict(counts))  # noqa: T201
    assert counts["taken back"] > 20
    assert counts["held"] > 20
    assert counts["cut"] > 50


def hide_references(patch: pytest.MonkeyPatch) -> None:
    """What older layers refer to is not looked at."""
    patch.setattr(live, "references", lambda _: iter(()))


def forget_the_outbox(patch: pytest.MonkeyPatch) -> None:
    """Snapshots that some storage lacks stand for others there."""

    def judge(candidates: Sequence[Candidate], policy: Retention, now: int) -> list[Verdict]:
        return decide([dataclasses.replace(one, waiting=False) for one in candidates], policy, now)

    patch.setattr(plan, "decide", judge)


@pytest.mark.parametrize("mutation", [hide_references, forget_the_outbox])
def test_a_broken_prune_is_found(mutation: Callable[[pytest.MonkeyPatch], None], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch)
        with pytest.raises(Exception):  # noqa: B017  # whichever way it shows
            lives(tmp_path, range(12), 30)
