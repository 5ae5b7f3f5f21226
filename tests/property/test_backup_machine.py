"""Backups of a source that changes in every way, killed at any durable step, against a model of plain dictionaries.

The model is the content of every path at each committed snapshot. Databases are closed, or left with a log by an
application that died; what a restore must give is what SQLite itself makes of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatkeep.daemon.backup import databases, run, settle, tables, works
from chatkeep.daemon.capture import files, position
from chatkeep.daemon.capture.digests import Overlay
from chatkeep.daemon.restore.errors import NothingToRestore, ProofFailed
from chatkeep.daemon.state import Commit, State
from chatkeep.daemon.vault.errors import Unresolvable
from tests.support.crashing import Crash, crash, durable_steps
from tests.support.whole import Device

HOUR = 3600 * 10**9
DATABASES = ("a.db", "b.db")
NAMES = (*DATABASES, "x", "d/y", "d/z")
BUDGETS = st.sampled_from((48 << 10, 300 << 10, 256 << 20))
SEED = st.integers(0, 1 << 30)
FOUND = (AssertionError, ProofFailed, Unresolvable)


class Version(NamedTuple):
    """A database as an application leaves it, and what it amounts to."""

    body: bytes
    log: bytes
    image: bytes


class Source:
    """A directory with databases and files, and what a restore of it must give."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "source"
        (self.path / "d").mkdir(parents=True)
        self._private = directory / "private"
        self._private.mkdir()
        self.expected: dict[str, str] = {}
        self.versions: dict[str, list[Version]] = {name: [] for name in DATABASES}

    def database(self, name: str, statements: str, *, log: bool, replace: bool) -> None:
        """An application changes its database and ends, or dies and leaves a log."""
        own = self._private / name
        with contextlib.closing(sqlite3.connect(own, isolation_level=None)) as db:
            db.executescript("CREATE TABLE IF NOT EXISTS m(id INTEGER PRIMARY KEY, b BLOB)")
            if log:
                db.executescript("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0")
            else:
                db.executescript("PRAGMA journal_mode=DELETE")
            db.executescript(statements)
            left = own.with_name(name + "-wal")
            body, tail = own.read_bytes(), left.read_bytes() if log and left.exists() else b""
        self.versions[name].append(Version(body, tail, own.read_bytes()))
        self.show(name, self.versions[name][-1], replace=replace)

    def show(self, name: str, version: Version, *, replace: bool) -> None:
        """Put a version of a database into the source."""
        (self._private / name).write_bytes(version.image)
        self._put(name, version.body, replace=replace)
        if version.log:
            (self.path / (name + "-wal")).write_bytes(version.log)
        self.expected[name] = hashlib.sha256(version.image).hexdigest()

    def file(self, name: str, content: bytes, *, replace: bool) -> None:
        self._put(name, content, replace=replace)
        self.expected[name] = hashlib.sha256(content).hexdigest()

    def _put(self, name: str, content: bytes, *, replace: bool) -> None:
        (self.path / (name + "-wal")).unlink(missing_ok=True)
        path = self.path / name
        if replace or not path.exists():
            new = self.path.parent / "new"
            new.write_bytes(content)
            new.rename(path)
            return
        with open(path, "r+b") as file:
            file.truncate(len(content))
            file.write(content)

    def remove(self, name: str) -> None:
        (self.path / (name + "-wal")).unlink(missing_ok=True)
        (self.path / name).unlink()
        del self.expected[name]

    def rename(self, name: str, to: str) -> None:
        """A file gets another name; a database takes its log along."""
        (self.path / (to + "-wal")).unlink(missing_ok=True)
        (self.path / name).rename(self.path / to)
        with contextlib.suppress(FileNotFoundError):
            (self.path / (name + "-wal")).rename(self.path / (to + "-wal"))
        self.expected[to] = self.expected.pop(name)


class BackupMachine(RuleBasedStateMachine):
    """One source, one device."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        # Small, so that a database of some hundred pages is copied ahead and in several snapshots.
        for module in (databases, works):
            patch.setattr(module, "ROOM", 64 << 10)
        patch.setattr(works, "LOG_ROOM", 1 << 20)
        patch.setattr(databases, "AHEAD", 32 << 10)
        patch.setattr(works, "MAX_BLOB", 32 << 10)
        # A step of the clock is 10 ms at most where tests run; two seconds would make every file a fresh one.
        patch.setattr(position, "COARSE_TICK_NS", 30_000_000)
        patch.setattr(files, "FRESH_NS", 30_000_000)
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "fdatasync", lambda _: None)
        self.shift = 0
        self.source = Source(self.directory)
        self.device = Device.make(self.directory / "state", lambda: time.time_ns() + self.shift)
        self.model: dict[int, dict[str, str]] = {}

    def teardown(self) -> None:
        try:
            for seq in self.model:
                self.check(seq)
        finally:
            self._stack.close()

    # -- the application --------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(DATABASES), seed=SEED, log=st.booleans(), replace=st.booleans())
    def commit(self, name: str, seed: int, log: bool, replace: bool) -> None:
        dice = random.Random(seed)
        rows = ",".join(
            f"(x'{dice.randbytes(dice.randrange(10, 900)).hex()}')" for _ in range(dice.choice((1, 9, 300)))
        )
        statements = f"INSERT INTO m(b) VALUES {rows}; UPDATE m SET b = x'{seed:08x}' WHERE id % 17 = {seed % 17}"
        self.source.database(name, statements, log=log, replace=replace)

    @rule(name=st.sampled_from(DATABASES), seed=SEED, log=st.booleans())
    def rework(self, name: str, seed: int, log: bool) -> None:
        choice = seed % 4
        if choice == 0:
            self.shrink(name, seed % 40, log=log)
        elif choice == 1:
            size = (512, 1024, 4096)[seed % 3]
            self.source.database(name, f"PRAGMA page_size={size}; VACUUM", log=False, replace=False)
        else:
            self.revert(name, seed % 5 + 1, replace=log)

    def shrink(self, name: str, keep: int, *, log: bool) -> None:
        self.source.database(name, f"DELETE FROM m WHERE id > {keep}; VACUUM", log=log, replace=False)

    def revert(self, name: str, back: int, *, replace: bool) -> None:
        if versions := self.source.versions[name]:
            self.source.show(name, versions[-min(back, len(versions))], replace=replace)

    @rule(
        name=st.sampled_from(NAMES),
        seed=SEED,
        size=st.sampled_from((0, 999, 150_000, 2_500_000)),
        replace=st.booleans(),
    )
    def write(self, name: str, seed: int, size: int, replace: bool) -> None:
        self.source.file(name, random.Random(seed).randbytes(size), replace=replace)

    @precondition(lambda self: self.source.expected)
    @rule(seed=SEED, to=st.sampled_from((*NAMES, None)))
    def move(self, seed: int, to: str | None) -> None:
        name = random.Random(seed).choice(sorted(self.source.expected))
        if to is None:
            self.source.remove(name)
        elif name != to:
            self.source.rename(name, to)

    # -- the device -------------------------------------------------------------------------------------------------

    @rule(budget=BUDGETS, hours=st.sampled_from((0, 0, 1, 25, 24 * 40, -30)))
    def back_up(self, budget: int, hours: int = 0) -> None:
        self.shift += hours * HOUR
        self.device.budget = budget
        result = self.device.back_up(self.source.path)
        assert result.problems == []
        assert (result.pending, result.busy) == (0, 0)
        if result.last_seq:
            self.model[result.last_seq] = dict(self.source.expected)

    @rule()
    def back_up_in_pieces(self) -> None:
        self.back_up(48 << 10)

    @rule(at=st.integers(0, 90), budget=BUDGETS)
    def back_up_and_die(self, at: int, budget: int) -> None:
        self.device.budget = budget
        with durable_steps(self.directory / "state", at, crash), contextlib.suppress(Crash):
            self.device.back_up(self.source.path)
        with self.device.open_state() as state:
            assert state.outbox.recover() == []
            self.device.send(state)
            seq = state.stream("chat").seq
        if seq and seq not in self.model:
            self.model[seq] = dict(self.source.expected)

    @precondition(lambda self: self.model)
    @rule(seed=SEED)
    def restore(self, seed: int) -> None:
        self.check(random.Random(seed).choice(sorted(self.model)))

    def check(self, seq: int) -> None:
        """Restore one snapshot; what it says it has is what was there."""
        target = self.directory / "target"
        expected = self.model[seq]
        try:
            report = self.device.restore(target, seq)
        except NothingToRestore:
            return
        vague = {os.fsdecode(path) for path in (*report.pending, *report.stale)}
        found = {
            str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in target.rglob("*")
            if path.is_file()
        }
        shutil.rmtree(target)
        for path in (found.keys() | expected.keys()) - vague:
            assert found.get(path) == expected.get(path), f"{path} in snapshot {seq}"

    @invariant()
    def one_stream(self) -> None:
        assert len({name.split("/")[3] for name in self.device.provider.objects if "/s/" in name}) <= 1


TestBackups = BackupMachine.TestCase
TestBackups.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@contextlib.contextmanager
def machine() -> Iterator[BackupMachine]:
    made = BackupMachine()
    try:
        yield made
    finally:
        made.teardown()


def die_at(made: BackupMachine, step: str) -> None:
    """Back up, and die at the first `step` after the packs got their names."""
    state, kept = made.directory / "state", made.directory / "kept"
    shutil.copytree(state, kept)
    # Where it dies is what this run is for: what a mutation breaks in it is not looked at.
    with durable_steps(state, -1, crash) as steps, contextlib.suppress(AssertionError):
        made.device.back_up(made.source.path, send=False)
    shutil.rmtree(state)
    kept.rename(state)
    made.back_up_and_die(steps.names.index(step, steps.names.index("rename")), made.device.budget)


def page_changes_and_it_dies(made: BackupMachine, step: str, *, reverts: bool) -> None:
    """A page changes, is sealed, the process dies; the page reverts or not; another backup."""
    made.commit("a.db", 1, log=False, replace=False)
    made.back_up(256 << 20)
    made.commit("a.db", 2, log=False, replace=False)
    die_at(made, step)
    assert len(made.model) == (1 if step == "before COMMIT" else 2)
    if reverts:
        made.revert("a.db", 2, replace=False)
    made.commit("b.db", 3, log=False, replace=False)
    made.back_up(256 << 20)
    made.check(max(made.model))


def shrunk_and_regrown(made: BackupMachine) -> None:
    """The same pages come back after a snapshot without them."""
    made.commit("a.db", 5, log=False, replace=False)
    assert len(made.source.versions["a.db"][0].image) > 100_000, "too small to shrink"
    made.back_up(256 << 20)
    made.shrink("a.db", 0, log=False)
    made.back_up(256 << 20)
    made.revert("a.db", 2, replace=False)
    made.back_up(256 << 20)
    made.check(3)


def believe_everything(patch: pytest.MonkeyPatch) -> None:
    """Without the comparison of a table with its capture, which would heal what the other changes break."""
    patch.setattr(settle.Settler, "is_believed", lambda *_: True)


@pytest.mark.parametrize("step", ["before COMMIT", "after COMMIT"])
@pytest.mark.parametrize("reverts", [True, False])
def test_a_page_and_its_digest_go_together(step: str, reverts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    believe_everything(monkeypatch)
    with machine() as made:
        page_changes_and_it_dies(made, step, reverts=reverts)


def test_the_machine_finds_redo_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    real = State.commit

    def early(self: State, commit: Commit) -> None:
        for row in commit.redo:
            with tables.open_table(self, commit.stream, row.file_id, row.page_size) as table:
                table.truncate(row.reach)
                table.apply(tables._runs(row.runs))
        real(self, commit)

    monkeypatch.setattr(State, "commit", early)
    with machine() as made:
        page_changes_and_it_dies(made, "before COMMIT", reverts=False)
    believe_everything(monkeypatch)
    with machine() as made, pytest.raises(FOUND):
        page_changes_and_it_dies(made, "before COMMIT", reverts=False)


def test_the_machine_finds_redo_outside_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    fired = []

    def lost(state: State, stream: bytes) -> None:
        if state.redo(stream) and state.stream("chat").seq == 2:
            fired.append(1)
            state.redo_done(stream)
        replay(state, stream)

    replay = tables.replay_redo
    monkeypatch.setattr(run, "replay_redo", lost)
    with machine() as made:
        page_changes_and_it_dies(made, "after COMMIT", reverts=True)
    assert fired
    believe_everything(monkeypatch)
    with machine() as made, pytest.raises(FOUND):
        page_changes_and_it_dies(made, "after COMMIT", reverts=True)


def test_the_machine_finds_digests_kept_beyond_a_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's half of the running minimum: without it pages come back that no reader takes."""
    believe_everything(monkeypatch)
    with machine() as made:
        shrunk_and_regrown(made)
    monkeypatch.setattr(Overlay, "truncate", lambda *_: None)
    with machine() as made, pytest.raises(FOUND):
        shrunk_and_regrown(made)
