"""Looking at a state that another process holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatkeep.daemon.state import BackupNote, Commit, ObjectRow, SnapshotRow, SnapshotStatistics, State, StateDamaged
from chatkeep.daemon.state.glance import Glance, exists, is_in_use

VAULT, DEVICE = b"v" * 16, b"d" * 16
FIGURES = SnapshotStatistics(3, 100, 1, 2, 50, 40, 30)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


def committed(state: State, seq: int = 1) -> bytes:
    stream = state.stream("chat")
    snapshot = SnapshotRow(seq, f"m{seq}", 7, 6, complete=False, statistics=FIGURES.encode())
    objects = [ObjectRow(f"{kind}{seq}", os.urandom(32), 10, kind == "m") for kind in ("p", "m")]
    state.commit(Commit(stream.stream, "chat", 1, snapshot, b"h" * 32, objects, ()))
    return stream.stream


def test_what_a_state_says_while_it_is_held(directory: Path) -> None:
    with State.open(directory, VAULT, DEVICE) as state:
        stream = committed(state)
        state.stream("empty")
        state.outbox.record_receipt("p1", "disk", 5)
        state.outbox.note_upload("disk", 9, "unavailable")
        with Glance(directory) as glance:
            sources = glance.sources()
            assert (sources["chat"].seq, sources["chat"].statistics) == (1, FIGURES)
            assert sources["empty"].snapshot is None
            disk, other = glance.provider("disk"), glance.provider("other")
            assert (disk.waiting_objects, disk.waiting_bytes, disk.frontiers) == (1, 10, {})
            assert (disk.last_success, disk.last_error, disk.last_error_at) == (None, "unavailable", 9)
            assert (other.waiting_objects, other.last_error) == (2, None)
            assert glance.waiting() == (2, 20)
            assert glance.expected("disk") == [("p1", 10)]
            state.outbox.record_receipt("m1", "disk", 5)
            assert glance.provider("disk").frontiers == {stream: 1}


def test_a_look_hinders_nobody_and_sees_what_comes(directory: Path) -> None:
    State.open(directory, VAULT, DEVICE).close()
    with Glance(directory) as glance:
        assert glance.sources() == {}
        with State.open(directory, VAULT, DEVICE) as state:
            committed(state)
        assert glance.sources()["chat"].seq == 1


def test_how_backups_ended(directory: Path) -> None:
    with State.open(directory, VAULT, DEVICE) as state, Glance(directory) as glance:
        state.note_backup("chat", 5, 2, None)
        assert glance.backups() == {"chat": BackupNote(5, 2, None, None)}
        state.note_backup("chat", 6, 0, "source-missing")
        assert glance.backups() == {"chat": BackupNote(5, 0, "source-missing", 6)}
        state.note_backup("chat", 7, 0, None)
        assert glance.backups() == {"chat": BackupNote(7, 0, None, None)}


def test_whether_it_is_in_use(directory: Path) -> None:
    assert not exists(directory)
    assert not is_in_use(directory)
    with State.open(directory, VAULT, DEVICE):
        assert exists(directory)
        assert is_in_use(directory)
    assert not is_in_use(directory)


def test_a_state_that_cannot_be_read(directory: Path) -> None:
    directory.mkdir()
    (directory / "state.db").write_bytes(b"no database" * 100)
    with pytest.raises(StateDamaged):
        Glance(directory)
