"""Backups of a source that changes in every way, killed at any durable step, against a model of plain dictionaries.

The model is the content of every path at each committed snapshot. Databases are closed, or left with a log by an
application that died; what a restore must give is what SQLite itself makes of them. There are two providers that lose
replies, are slow, repeat themselves or are away: each alone restores whatever it shows.
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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from chatkeep.daemon.backup import databases, run, settle, tables, works
from chatkeep.daemon.capture import files, position
from chatkeep.daemon.capture.digests import Overlay
from chatkeep.daemon.restore.errors import NothingToRestore, ProofFailed
from chatkeep.daemon.state import Commit, Queued, State
from chatkeep.daemon.sync import upload
from chatkeep.daemon.vault import fold, resolve
from chatkeep.daemon.vault.errors import Unreadable, Unresolvable
from tests.support.crashing import Crash, crash, durable_steps
from tests.support.two_stores import STORES, TROUBLES, Slow, Trouble, TwoStores

HOUR = 3600 * 10**9
DATABASES = ("a.db", "b.db")
NAMES = (*DATABASES, "x", "d/y", "d/z")
BUDGETS = st.sampled_from((48 << 10, 300 << 10, 256 << 20))
SEED = st.integers(0, 1 << 30)
REACH = st.sampled_from((STORES, STORES, STORES[:1], STORES[1:], ()))
BAD_DAYS = st.tuples(*[st.builds(Trouble, st.sampled_from(TROUBLES), st.integers(0, 3)) for _ in STORES])
FOUND = (AssertionError, ProofFailed, Unreadable, Unresolvable)


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
    """One source, one device, two providers. `counts`: what all machines did."""

    counts: ClassVar[Counter[str]] = Counter()

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
        self.device = TwoStores.make(self.directory / "state", lambda: time.time_ns() + self.shift)
        self.model: dict[int, dict[str, str]] = {}
        self._proven: set[tuple[str, str]] = set()

    def teardown(self) -> None:
        try:
            for which in (0, 1):  # whatever each has by now
                self.look(which, newest=2)
            self.device.send_everything()
            for store in self.device.stores:
                store.arrive()
            self.look(0)
            self.look(1, newest=1)
            self.counts["devices"] += 1
            self.counts["troubles"] += self.device.fired
        finally:
            self._stack.close()

    def look(self, which: int, newest: int = 1 << 30) -> None:
        """What this provider alone restores: everything it shows, or the newest of it."""
        with self.device.only(which) as store:
            for seq in self.device.seqs(store)[-newest:]:
                if seq in self.model:
                    self.check(seq)

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

    @rule(budget=BUDGETS, hours=st.sampled_from((0, 0, 1, 25, 24 * 40, -30)), reach=REACH, troubles=BAD_DAYS)
    def back_up(
        self, budget: int, hours: int = 0, reach: Sequence[str] = STORES, troubles: Sequence[Trouble] = ()
    ) -> None:
        self.shift += hours * HOUR
        self.device.budget = budget
        self.device.sends_to = reach
        self.device.troubles.update(zip(STORES, troubles, strict=False))
        result = self.device.back_up(self.source.path)
        assert result.problems == []
        assert (result.pending, result.busy) == (0, 0)
        self.counts["snapshots"] += len(result.snapshots)
        if result.last_seq:
            self.model[result.last_seq] = dict(self.source.expected)

    @rule()
    def back_up_in_pieces(self) -> None:
        self.back_up(48 << 10)

    @rule(at=st.integers(0, 90), budget=BUDGETS)
    def back_up_and_die(self, at: int, budget: int) -> None:
        self.device.budget = budget
        with durable_steps(self.directory / "state", at, crash) as steps, contextlib.suppress(Crash):
            self.device.back_up(self.source.path)
        self.counts["crashes"] += bool(steps.fired)
        with self.device.open_state() as state:
            assert state.outbox.recover() == []
            self.device.send(state)
            seq = state.stream("chat").seq
        if seq and seq not in self.model:
            self.model[seq] = dict(self.source.expected)

    @rule(reach=REACH, troubles=BAD_DAYS)
    def send(self, reach: Sequence[str], troubles: Sequence[Trouble]) -> None:
        """An upload to whom can be reached, in which storage behaves badly; the next one is another chance."""
        self.device.sends_to = reach
        self.device.troubles = dict(zip(STORES, troubles, strict=False))
        with self.device.open_state() as state:
            assert state.outbox.recover() == []
            self.device.send(state)
        self.device.troubles = {}

    @rule(which=st.integers(0, 1))
    def what_was_late_arrives(self, which: int) -> None:
        self.device.stores[which].arrive()

    @precondition(lambda self: self.model)
    @rule(seed=SEED, which=st.integers(0, 1))
    def restore(self, seed: int, which: int) -> None:
        """One snapshot that this provider shows, from it alone."""
        with self.device.only(which) as store:
            if seqs := [seq for seq in self.device.seqs(store) if seq in self.model]:
                self.check(random.Random(seed).choice(seqs))
                self.counts["restores"] += 1

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
        self.counts["steps"] += 1
        for store in self.device.stores:
            assert len({name.split("/")[3] for name in store.objects if "/s/" in name}) <= 1

    @invariant()
    def nothing_is_shown_that_is_not_there(self) -> None:
        """Everything a provider shows is what its name says, and a manifest comes after the one before it."""
        for store in self.device.stores:
            for name in self.unproven(store):
                assert name.endswith(hashlib.sha256(store.objects[name]).hexdigest())
            seqs = self.device.seqs(store)
            assert seqs == list(range(1, len(seqs) + 1))

    def unproven(self, store: Slow) -> list[str]:
        """Names of packs and manifests that were not looked at before."""
        new = [name for name in store.objects if name.startswith("d/") and (store.name, name) not in self._proven]
        self._proven.update((store.name, name) for name in new)
        return [name for name in new if "/p/" in name or "/s/" in name]


@pytest.mark.parametrize(
    ("machines", "steps"), [(25, 30), pytest.param(150, 40, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_a_device_against_the_model(machines: int, steps: int, tell: Callable[[str], None]) -> None:
    BackupMachine.counts.clear()
    how = settings(
        max_examples=machines, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(BackupMachine, settings=how)
    counts = BackupMachine.counts
    tell(", ".join(f"{count} {what}" for what, count in counts.items()))
    assert counts["steps"] > machines
    assert min(counts[what] for what in ("snapshots", "crashes", "troubles", "restores")) > 0, "never tried"


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


def size_changes(made: BackupMachine) -> None:
    """Pages of another size: everything before counts no more."""
    made.commit("a.db", 5, log=False, replace=False)
    made.back_up(256 << 20)
    made.source.database("a.db", "PRAGMA page_size=1024; VACUUM", log=False, replace=False)
    made.back_up(256 << 20)
    made.check(2)


def test_the_machine_finds_a_reset_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with machine() as made:
        size_changes(made)
    for module in (settle, resolve, fold):
        monkeypatch.setattr(module, "RESET", 0)
    with pytest.raises(FOUND), machine() as made:
        size_changes(made)


def a_put_fails(made: BackupMachine, after: int = 0) -> None:
    """One pack is refused; the next upload does what is left."""
    made.commit("a.db", 5, log=False, replace=False)
    made.device.troubles = {"memory": Trouble("refused", after)}
    made.back_up(256 << 20)
    assert made.device.fired == 1
    made.back_up(256 << 20)
    made.restore(0, 0)


def test_the_machine_finds_a_receipt_before_the_put(monkeypatch: pytest.MonkeyPatch) -> None:
    with machine() as made:
        a_put_fails(made)
    real = upload._Run._send

    def hasty(self: upload._Run, item: Queued) -> bool:
        self._outbox.record_receipt(item.name, self._provider.name, 1)
        return real(self, item)

    monkeypatch.setattr(upload._Run, "_send", hasty)
    with pytest.raises(FOUND), machine() as made:
        a_put_fails(made)


def test_the_machine_finds_a_manifest_before_its_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = upload._steps

    def backwards(queue: Iterable[Queued]) -> list[upload._Step]:
        return [upload._Step(step.stream, step.manifests, step.packs) for step in real(queue)]

    monkeypatch.setattr(upload, "_steps", backwards)
    with pytest.raises(FOUND), machine() as made:
        a_put_fails(made, after=1)
