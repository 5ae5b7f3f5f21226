"""Files that a provider takes as they lie, and when it must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatkeep.daemon.state import Queued
from chatkeep.daemon.sync import upload as sync
from chatkeep.daemon.sync.catching_up import send_all
from chatkeep.daemon.sync.errors import OutboxDamaged
from chatkeep.daemon.sync.upload import Pace, release, upload
from chatkeep.providers import base
from chatkeep.providers.folder import FolderProvider
from tests.support.memory_provider import MemoryProvider
from tests.unit.sync.test_upload import HOME, snapshot, state

__all__ = ["state"]
NAME = "d/1/p/" + "ab" * 32


@pytest.fixture
def folder(tmp_path: Path) -> FolderProvider:
    return FolderProvider(HOME, tmp_path / HOME, create=True)


def test_the_file_is_shared_and_outlives_its_own_name(folder: FolderProvider, tmp_path: Path) -> None:
    (tmp_path / "sealed").write_bytes(b"sealed bytes")
    assert folder.adopt(NAME, tmp_path / "sealed")
    (tmp_path / "sealed").unlink()
    assert folder.get(NAME) == b"sealed bytes"
    folder.put(NAME, b"sealed bytes")
    with pytest.raises(base.ObjectConflict):
        folder.put(NAME, b"other bytes.")


def test_a_taken_name_is_left_to_put(folder: FolderProvider, tmp_path: Path) -> None:
    (tmp_path / "sealed").write_bytes(b"sealed bytes")
    folder.put(NAME, b"other bytes.")
    assert not folder.adopt(NAME, tmp_path / "sealed")
    assert folder.get(NAME) == b"other bytes."


def test_a_folder_on_another_file_system_gets_a_copy(state, monkeypatch, folder) -> None:  # type: ignore[no-untyped-def]
    refused: list[object] = []

    def far(source: object, target: object, **_: object) -> None:
        if os.fspath(state.directory) in os.fspath(source):  # type: ignore[call-overload]
            refused.append(target)
            raise OSError(18, "EXDEV")
        return link(source, target)  # type: ignore[arg-type]

    link = os.link
    monkeypatch.setattr(os, "link", far)
    snapshot(state)
    assert upload(state.outbox, folder, pace=Pace(threads=1)).objects == 4
    assert len(refused) == 1, "the fault did not fire, or the folder was asked again for every object"
    for item in state.outbox.queue("nobody"):
        assert folder.get(item.name) == item.path.read_bytes()
        assert item.path.stat().st_nlink == 1


def test_two_folders_of_one_file_system_never_share_an_object(state, folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    snapshot(state)
    second = FolderProvider("second", tmp_path / "second", create=True)
    send_all(state, [folder, second], [folder, second], pace=Pace(threads=2))
    for item in state.outbox.queue("nobody"):
        places = [path for path in tmp_path.rglob("*") if path.name.endswith(item.path.name) and path != item.path]
        assert len(places) == 2
        assert len({path.stat().st_ino for path in places}) == 2
        assert {path.read_bytes() for path in places} == {item.path.read_bytes()}


def test_an_unmounted_folder_adopts_nothing(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "sealed").write_bytes(b"sealed bytes")
    with pytest.raises(base.StorageMissing):
        FolderProvider(HOME, tmp_path / "mount").adopt(NAME, tmp_path / "sealed")
    assert list((tmp_path / "mount").iterdir()) == []


def test_a_damaged_file_is_never_adopted(state, folder) -> None:  # type: ignore[no-untyped-def]
    snapshot(state)
    damaged = state.outbox.queue(HOME)[0]
    body = bytearray(damaged.path.read_bytes())
    body[3] ^= 1
    damaged.path.write_bytes(body)
    (problem,) = upload(state.outbox, folder).problems
    assert isinstance(problem, OutboxDamaged)
    assert problem.params["reason"] == "hash"
    with pytest.raises(base.ObjectNotFound):
        folder.stat(damaged.name)


def test_what_this_process_proved_is_not_read_again_unless_it_was_touched(state, folder, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    snapshot(state)
    queue = state.outbox.queue(HOME)
    for item in queue[:3]:
        state.outbox.note_proven(item.path)
    body = bytearray(queue[1].path.read_bytes())
    body[3] ^= 1
    queue[1].path.write_bytes(body)
    read: list[Path] = []
    check = sync._check_sealed

    def noted(item: Queued) -> None:
        read.append(item.path)
        check(item)

    monkeypatch.setattr(sync, "_check_sealed", noted)
    (problem,) = upload(state.outbox, folder).problems
    assert isinstance(problem, OutboxDamaged)
    assert problem.params["path"] == str(queue[1].path)
    assert read == [queue[1].path]


def test_uploads_share_and_release_leaves_the_object(state, folder) -> None:  # type: ignore[no-untyped-def]
    snapshot(state)
    queue = state.outbox.queue(HOME)
    assert upload(state.outbox, folder).objects == len(queue)
    assert {item.path.stat().st_nlink for item in queue} == {2}
    bodies = {item.name: item.path.read_bytes() for item in queue}
    release(state.outbox, [HOME])
    assert not any(item.path.exists() for item in queue)
    assert {name: folder.get(name) for name in bodies} == bodies


def test_memory_is_no_adopter_and_a_folder_is() -> None:
    assert not isinstance(MemoryProvider(), base.Adopts)
    assert isinstance(FolderProvider("f", Path("/nowhere")), base.Adopts)
