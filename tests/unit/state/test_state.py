"""The state database: one commit, order of receipts, recovery of the outbox."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chatkeep.daemon.state import (
    Commit,
    DatabaseRow,
    FileRow,
    ObjectRow,
    RedoRow,
    RunRow,
    SnapshotRow,
    StackRow,
    State,
    StateBusy,
    StateDamaged,
    StateError,
    StateForeign,
    glance,
)
from chatkeep.daemon.state.schema import SINCE_1

VAULT, DEVICE = b"v" * 16, b"d" * 16


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state", VAULT, DEVICE) as opened:
        yield opened


def commit_of(state: State, seq: int, *, packs: int = 1, **changes: object) -> Commit:
    """A commit with its objects lying in the outbox, as publishing leaves them."""
    stream = state.stream("chat")
    objects = []
    for n in range(packs + 1):
        sha = bytes([seq, n]) * 16
        (state.outbox.directory / sha.hex()).write_bytes(b"x" * 10)
        name = f"s/{seq}" if n == packs else f"p/{sha.hex()}"
        objects.append(ObjectRow(name, sha, 10, is_manifest=n == packs))
    made = Commit(
        stream=stream.stream,
        source="chat",
        next_file_id=seq + 10,
        snapshot=SnapshotRow(seq, f"s/{seq}", seq * 100, seq * 100, complete=True, statistics=b""),
        head=bytes([seq]) * 32,
        objects=objects,
        stack=[StackRow(0, n, n, n, n, b"parts", b"body") for n in range(seq, 0, -1)],
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_commit_is_read_back(state: State) -> None:
    stream = state.stream("chat").stream
    state.commit(
        commit_of(
            state,
            1,
            paths=[(b"a", 1), (b"b", 2)],
            files=[FileRow(1, b"i", b"r", b"c"), FileRow(2, b"i", b"r", None)],
            databases=[DatabaseRow(2, 4096, 7, b"sig", None)],
            runs=[RunRow(2, 4096, b"\0\1", b"p" * 32, 3, b"b" * 32)],
            redo=[RedoRow(2, 4096, 7, b"runs")],
        )
    )
    state.commit(commit_of(state, 2, paths=[(b"a", None)], forgotten=[1], published=[2]))
    row = state.stream("chat")
    assert (row.seq, row.head, row.next_file_id) == (2, b"\2" * 32, 12)
    assert state.paths(stream) == {b"b": 2}
    assert [f.file_id for f in state.files(stream)] == [2]
    assert state.databases(stream) == {2: DatabaseRow(2, 4096, 7, b"sig", None)}
    assert state.runs(stream, 2) == []
    assert [s.last_seq for s in state.stack(stream)] == [2, 1]
    assert [s.seq for s in state.snapshots(stream)] == [2, 1]
    assert len(state.redo(stream)) == 1
    state.redo_done(stream)
    assert state.redo(stream) == []


def test_a_failing_commit_leaves_nothing(state: State) -> None:
    stream = state.stream("chat").stream
    twice = commit_of(state, 1, paths=[(b"a", 1)], redo=[RedoRow(1, 4096, 1, b"")])
    broken = replace(twice, objects=[*twice.objects, twice.objects[0]])
    with pytest.raises(StateDamaged, match="UNIQUE"):
        state.commit(broken)
    assert state.stream("chat").seq == 0
    assert state.paths(stream) == {}
    assert state.redo(stream) == []
    assert state.outbox.queue("home") == []


def test_the_chain_cannot_fork(state: State) -> None:
    state.commit(commit_of(state, 1))
    with pytest.raises(AssertionError, match="did not stand"):
        state.commit(replace(commit_of(state, 1), objects=[]))
    with pytest.raises(AssertionError, match="did not stand"):
        state.commit(commit_of(state, 3))


def test_upload_order_receipts_and_release(state: State) -> None:
    stream = state.stream("chat").stream
    state.commit(commit_of(state, 1, packs=2))
    state.commit(commit_of(state, 2))
    queue = state.outbox.queue("home")
    assert [(q.seq, q.is_manifest) for q in queue] == [(1, False), (1, False), (1, True), (2, False), (2, True)]
    with pytest.raises(AssertionError, match="before everything"):
        state.outbox.record_receipt("s/1", "home", 5)
    for item in queue[:3]:
        state.outbox.record_receipt(item.name, "home", 5)
    assert (state.outbox.frontier(stream, "home"), state.outbox.frontier(stream, "away")) == (1, 0)
    assert state.outbox.release(["home", "away"]) == []
    assert sorted(state.outbox.release(["home"])) == sorted(q.path for q in queue[:3])
    assert [q.seq for q in state.outbox.queue("home")] == [2, 2]
    assert state.outbox.waiting() == (2, 20)


def test_recovery_removes_what_never_was_and_finds_what_is_lost(state: State) -> None:
    stream = state.stream("chat").stream
    state.commit(commit_of(state, 1))
    (state.outbox.directory / "tmp" / "half").write_bytes(b"half a pack")
    (state.outbox.directory / ("ab" * 32)).write_bytes(b"sealed, never committed")
    assert state.outbox.recover() == []
    assert list((state.outbox.directory / "tmp").iterdir()) == []
    assert not (state.outbox.directory / ("ab" * 32)).exists()
    lost = state.outbox.queue("home")[0]
    lost.path.unlink()
    assert state.outbox.recover() == [stream]
    state.abandon(stream)
    assert state.outbox.recover() == []
    assert state.stream("chat").stream != stream
    assert state.outbox.queue("home") == []


def test_a_truncated_outbox_file_counts_as_lost(state: State) -> None:
    state.commit(commit_of(state, 1))
    state.outbox.queue("home")[1].path.write_bytes(b"shrt")
    assert state.outbox.recover() == [state.stream("chat").stream]


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom chatkeep.daemon.state import State\n"
        f"State.open(Path({str(tmp_path)!r}), {VAULT!r}, {DEVICE!r})\nprint('open', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StateBusy):
            State.open(tmp_path, VAULT, DEVICE)
        other.kill()
        other.wait()
    State.open(tmp_path, VAULT, DEVICE).close()


def test_foreign_and_damaged_state_is_refused(tmp_path: Path) -> None:
    State.open(tmp_path, VAULT, DEVICE).close()
    with pytest.raises(StateForeign):
        State.open(tmp_path, b"w" * 16, DEVICE)
    with pytest.raises(StateForeign):
        State.open(tmp_path, VAULT, b"e" * 16)
    for leftover in tmp_path.glob("state.db-*"):
        leftover.unlink()
    (tmp_path / "state.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StateDamaged):
        State.open(tmp_path, VAULT, DEVICE)


def test_the_generation_stays_and_differs_between_lives(tmp_path: Path) -> None:
    with State.open(tmp_path / "a", VAULT, DEVICE) as first:
        generation = first.generation
    with State.open(tmp_path / "a", VAULT, DEVICE) as again, State.open(tmp_path / "b", VAULT, DEVICE) as other:
        assert again.generation == generation != other.generation


def test_refresh_changes_what_was_seen_and_nothing_else(state: State) -> None:
    stream = state.stream("chat").stream
    file, database = FileRow(1, b"old", b"record", b"content"), DatabaseRow(2, 4096, 7, b"old", b"d")
    state.commit(commit_of(state, 1, files=[file], databases=[database]))
    state.refresh(stream, [replace(file, identity=b"new")], [replace(database, signature=b"newer")])
    assert list(state.files(stream)) == [FileRow(1, b"new", b"record", b"content")]
    assert state.databases(stream) == {2: DatabaseRow(2, 4096, 7, b"newer", b"d")}
    assert state.stream("chat").seq == 1


def test_a_state_of_version_1_is_brought_up(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", VAULT, DEVICE) as opened:
        opened.commit(commit_of(opened, 1))
        stream, generation = opened.stream("chat"), opened.generation
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "state.db")) as db:
        for statement in SINCE_1.split(";")[:-1]:
            db.execute(f"DROP TABLE {statement.split('TABLE ')[1].split('(')[0]}")
        db.execute("PRAGMA user_version=1")
    with glance.Glance(tmp_path / "state") as seen:
        assert seen.vault() == VAULT
    with State.open(tmp_path / "state", VAULT, DEVICE) as opened:
        assert (opened.stream("chat"), opened.generation) == (stream, generation)
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "state.db")) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    assert {"capsules", "checkpoints", "condemned", "swept", "sweeps", "known"} <= tables


@pytest.mark.parametrize(
    ("code", "room", "told"),
    [
        (sqlite3.SQLITE_FULL, 100, "state-full"),
        (sqlite3.SQLITE_IOERR, 0, "state-full"),
        (sqlite3.SQLITE_CANTOPEN, 0, "state-full"),
        (sqlite3.SQLITE_IOERR, 100, "state-unusable"),
        (sqlite3.SQLITE_READONLY, 100, "state-unusable"),
        (sqlite3.SQLITE_CORRUPT, 0, "state-damaged"),
        (sqlite3.SQLITE_NOTADB, 100, "state-damaged"),
    ],
)
def test_a_system_that_refuses_is_no_damage(
    state: State, monkeypatch: pytest.MonkeyPatch, code: int, room: int, told: str
) -> None:
    real = os.statvfs(state.directory)
    seen = os.statvfs_result((*real[:4], room, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: seen)
    met = sqlite3.OperationalError("met")
    met.sqlite_errorcode = code
    with pytest.raises(StateError) as caught, state._connection.transaction():
        raise met
    assert caught.value.code == told
