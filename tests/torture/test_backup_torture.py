"""Backups of applications that write, checkpoint, vacuum, spill, roll back, close, reopen and are killed.

Every snapshot is restored from storage alone and judged row by row.
"""

from __future__ import annotations

import os
import random
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chatkeep.daemon.restore.snapshot import plan, restore
from tests.support.independent import Objects, again
from tests.support.sqlite_app import App, Oracle
from tests.support.whole import Device

STORM = 12  # steps of an application between two looks


@dataclass
class Books:
    """One application and its database. `acknowledged`: the last entry that a COMMIT returned for, at least."""

    path: Path
    note: Path
    settings: dict[str, object]
    app: App | None = None
    storming: bool = False
    kills: int = 0

    def acknowledged(self) -> int:
        raw = self.note.read_bytes()
        return int(struct.unpack("<Q", raw)[0]) if raw else 0

    def step(self, dice: random.Random) -> None:
        """Go on: open, work, close or be killed."""
        if self.app is None:
            self.app = App(self.path, seed=dice.randrange(1 << 30), acknowledge=str(self.note), **self.settings)
        elif self.storming:
            self._stop(dice)
        if self.app is not None and not self.storming:
            self.app.send("storm", seed=dice.randrange(1 << 30), steps=STORM)
            self.storming = True

    def _stop(self, dice: random.Random) -> None:
        assert self.app is not None
        choice = dice.random()
        if choice < 0.15:
            self.app.kill()
            self.kills += 1
            self.app, self.storming = None, False
            return
        self.app.answer()
        self.storming = False
        if choice < 0.35:
            self.app.ask("close")
            self.app.close()
            self.app = None

    def end(self) -> None:
        if self.app is not None:
            self.app.kill()


@dataclass
class Torture:
    """Three applications, one source, one vault."""

    directory: Path
    dice: random.Random
    device: Device = field(init=False)
    books: list[Books] = field(init=False)
    made: int = 0
    busy: int = 0
    judged: int = 0
    grouped: int = 0
    bounds: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source = self.directory / "source"
        source.mkdir()
        self.device = Device.make(self.directory / "state")
        kinds: list[dict[str, object]] = [
            {"journal_mode": "WAL", "wal_autocheckpoint": 20},
            {"journal_mode": "WAL", "cache_size": 5, "page_size": 1024},
            {"journal_mode": "DELETE", "synchronous": "OFF"},
        ]
        self.books = []
        for number, settings in enumerate(kinds):
            note = self.directory / f"note{number}"
            note.touch()
            self.books.append(Books(source / f"{number}.db", note, settings))

    @property
    def source(self) -> Path:
        return self.directory / "source"

    def snapshot(self, oracle: Oracle) -> None:
        for one in self.books:
            one.step(self.dice)
        low = [one.acknowledged() for one in self.books]
        result = self.device.back_up(self.source)
        high = [one.acknowledged() for one in self.books]
        if not result.snapshots:
            return
        self.made += len(result.snapshots)
        busy = {os.path.basename(p.path) for p in result.problems}
        # One more than acknowledged: a COMMIT may have taken effect before it returned.
        self.busy += len(busy)
        self.bounds[result.last_seq] = [
            (0 if os.fsencode(one.path.name) in busy else least, most + 1)
            for one, least, most in zip(self.books, low, high, strict=True)
        ]
        self.check(result.last_seq, oracle)

    def check(self, seq: int, oracle: Oracle) -> None:
        """Restore one snapshot and judge each database in it."""
        target = self.directory / f"target{self.judged}"
        reader = self.device.reader()
        (stream,) = reader.streams()
        snapshot = next(one for one in reader.snapshots(reader.chain(stream)) if one.header.seq == seq)
        self.grouped += snapshot.manifest.group
        report = restore(reader, snapshot, plan(reader, snapshot), os.fsencode(target))
        if self.judged % 25 == 0:
            again(Objects(self.device.provider.objects), "".join(self.device.recovery.lines), target, seq)
        for one, (least, most) in zip(self.books, self.bounds[seq], strict=True):
            restored = target / one.path.name
            if os.fsencode(one.path.name) in report.pending or not restored.exists():
                assert least == 0, f"{one.path.name} is missing from snapshot {seq}"
                continue
            entries = oracle.judge(restored)
            assert least <= entries <= most, f"{one.path.name} in snapshot {seq}: {entries} not in {least}...{most}"
        self.judged += 1
        for path in sorted(target.iterdir()):
            path.unlink()
        target.rmdir()


def run(directory: Path, seed: int, snapshots: int) -> Torture:
    torture = Torture(directory, random.Random(seed))
    with Oracle() as oracle:
        try:
            while torture.made < snapshots:
                torture.snapshot(oracle)
            for seq in torture.dice.sample(sorted(torture.bounds), min(20, len(torture.bounds))):
                torture.check(seq, oracle)
        finally:
            for one in torture.books:
                one.end()
    kills = sum(one.kills for one in torture.books)
    sys.stdout.write(
        f"{torture.made} snapshots, {torture.judged} judged, {torture.grouped} of one moment, "
        f"{torture.busy} times busy, {kills} kills\n"
    )
    assert kills > 0, "no application was killed: the test did not test that"
    assert torture.busy < torture.made, "a third or more of the captures were refused: too little was judged"
    return torture


def test_sixty_snapshots_under_fire(tmp_path: Path, seed: int) -> None:
    torture = run(tmp_path, seed, 60)
    assert torture.judged >= 60


@pytest.mark.long
def test_thousands_of_snapshots_under_fire(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, 3000)
