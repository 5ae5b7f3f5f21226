"""Digest tables after commits that the system made difficult."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatkeep.daemon.backup.tables import open_table, redo_of, replay_redo
from chatkeep.daemon.capture.digests import Overlay
from chatkeep.daemon.state import Commit, SnapshotRow, State

DEVICE = (b"v" * 16, b"d" * 16)


def commit(state: State, overlay: Overlay) -> None:
    """A snapshot that says nothing but its redo."""
    stream = state.stream("chat")
    row = SnapshotRow(stream.seq + 1, "name", 1, 1, complete=True, statistics=b"")
    state.commit(Commit(stream.stream, "chat", 9, row, bytes(32), (), (), redo=[redo_of(1, overlay)]))


def entries(first: int, count: int) -> bytes:
    return b"".join(page.to_bytes(16, "big") for page in range(first, first + count))


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with State.open(tmp_path, *DEVICE) as state:
        stream = state.stream("chat").stream
        with open_table(state, stream, 1, 4096) as table:
            overlay = Overlay(table)
            overlay.put(5, entries(5, 100))
            commit(state, overlay)
        fired = []
        pwrite = os.pwrite

        def short(fd: int, body: bytes, offset: int) -> int:
            fired.append(1)
            return pwrite(fd, memoryview(body)[: max(1, len(body) // 2)], offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", short)
            replay_redo(state, stream)
        assert fired
        with open_table(state, stream, 1, 4096) as table:
            assert table.read(1, 104) == bytes(64) + entries(5, 100)


def test_replaying_twice_is_replaying_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with State.open(tmp_path, *DEVICE) as state:
        stream = state.stream("chat").stream
        with open_table(state, stream, 1, 4096) as table:
            overlay = Overlay(table)
            overlay.put(1, entries(1, 100))
        commit(state, overlay)
        replay_redo(state, stream)
        with open_table(state, stream, 1, 4096) as table:
            overlay = Overlay(table)
            overlay.truncate(40)
            overlay.put(60, entries(1060, 2))
            overlay.put(3, entries(1003, 1))
            expected = overlay.read(1, 61)
        commit(state, overlay)
        with monkeypatch.context() as patch:
            patch.setattr(State, "redo_done", lambda *_: None)  # killed between the table and its row
            for _ in range(3):
                replay_redo(state, stream)
        assert state.redo(stream)
        replay_redo(state, stream)
        assert not state.redo(stream)
        with open_table(state, stream, 1, 4096) as table:
            assert (table.count, table.read(1, 61)) == (61, expected)
