"""Every durable step of the work of a device as the last one, or as one that fails: nothing is lost, and what comes
next is right.

The steps are the calls that reach the system, of Python and of SQLite alike (`tests.support.seam`); the work is that of
`tests.support.crash_scenes`, which also says what must be true after it.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.state import Commit, State
from tests.support.crash_child import MUTATIONS
from tests.support.crash_scenes_vault import SCENES
from tests.support.seam import build, run_beside
from tests.support.sources import Clock, database, fill
from tests.support.whole import Device

CHILD = "tests.support.crash_child"
FAULTS = {
    "killed": {"fault": "KILL"},
    "full": {"fault": "REFUSE_FROM", "error": "ENOSPC"},
    "input and output error": {"fault": "REFUSE", "error": "EIO"},
    "short write": {"fault": "SHORT"},
    "torn write": {"fault": "TORN", "error": "ENOSPC"},
}
Tell = Callable[[str], None]


@pytest.fixture(scope="session")
def seam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("seam"))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: thousands of disks are made here, and none has to last."""
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def try_all(seam: Path, room: Path, tell: Tell, **asked: object) -> dict[str, Any]:
    found = run_beside(seam, CHILD, room=room, **asked)
    fired = ", ".join(f"{count} {name}" for name, count in sorted(found["fired"].items()))
    tell(f"crash points: {found['steps']} steps, {found['tried']} tried, {found['looked']} disks looked at ({fired})")
    assert found["tried"] >= found["looked"] > 20
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_every_step(fault: str, seam: Path, room: Path, tell: Tell) -> None:
    found = try_all(seam, room, tell, scene="backup", **FAULTS[fault])
    if "write" in fault:
        assert found["fired"].keys() == {"write"}
    elif fault != "killed":
        assert found["fired"].keys() >= {"create", "write", "sync", "rename", "link", "unlink", "mkdir", "truncate"}
        assert len(found["outcomes"]) > 2, "the fault was not seen"


@pytest.mark.parametrize(
    ("scene", "variants"), [("backup", 5), ("first", 2), ("prune", 2), ("rotate", 2), ("rebuild", 2)]
)
def test_the_power_fails_at_every_step(scene: str, variants: int, seam: Path, room: Path, tell: Tell) -> None:
    """Either all that was not synced is there or nothing; or one of the two; or the first half of it."""
    found = try_all(seam, room, tell, scene=scene, fault="CUT", variants=variants)
    assert found["fired"].keys() >= {"create", "write", "sync", "link", "unlink", "mkdir"}
    assert found["tried"] > variants * found["steps"] / 2


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scene", SCENES)
def test_a_fault_at_every_step_of_every_scene(scene: str, fault: str, seam: Path, room: Path, tell: Tell) -> None:
    try_all(seam, room, tell, scene=scene, long=True, **FAULTS[fault])


@pytest.mark.long
@pytest.mark.parametrize("scene", SCENES)
def test_the_power_fails_in_every_way(scene: str, seam: Path, room: Path, tell: Tell) -> None:
    try_all(seam, room, tell, scene=scene, fault="CUT", long=True)


@pytest.mark.parametrize("mutation", [name for name in MUTATIONS if name])
def test_a_sync_that_is_missing_is_found(mutation: str, seam: Path, room: Path) -> None:
    found = run_beside(seam, CHILD, room=room, scene="backup", fault="CUT", mutation=mutation)
    assert "violated" in found, f"{mutation}: nobody saw it"


def test_nothing_is_committed_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that a power cut asks for: bytes synced, names given, names synced, then the commit; and the tables
    synced before their redo is forgotten."""
    events: list[tuple[str, int]] = []
    calls = {name: getattr(os, name) for name in ("fsync", "fdatasync", "pwrite", "rename")}

    def watched(name: str) -> Callable[..., object]:
        def call(target: int | str, *arguments: object, **options: object) -> object:
            number = os.stat(target).st_ino
            done = calls[name](target, *arguments, **options)
            events.append((name, number))
            return done

        return call

    def last(kind: str, path: Path) -> int:
        event = (kind, path.stat().st_ino)
        assert event in events, f"no {kind} of {path}"
        return len(events) - 1 - events[::-1].index(event)

    commit, redo_done = State.commit, State.redo_done
    fired = []

    def committing(self: State, what: Commit) -> None:
        names_synced = last("fsync", self.outbox.directory)
        for row in what.objects:
            path = self.outbox.directory / row.sha256.hex()
            assert last("fsync", path) < last("rename", path) < names_synced
        fired.append("commit")
        commit(self, what)

    def forgetting(self: State, stream: bytes) -> None:
        for row in self.redo(stream):
            table = self.tables / f"{stream.hex()}-{row.file_id}"
            assert last("pwrite", table) < last("fdatasync", table)
            fired.append("redo")
        redo_done(self, stream)

    for name in calls:
        monkeypatch.setattr(os, name, watched(name))
    monkeypatch.setattr(State, "commit", committing)
    monkeypatch.setattr(State, "redo_done", forgetting)
    source = tmp_path / "source"
    source.mkdir()
    device = Device.make(tmp_path / "state", Clock())
    fill(source / "a.db", 40, page_size=512)
    (source / "file").write_bytes(os.urandom(3000))
    device.back_up(source)
    with database(source / "a.db") as db:
        db.execute("UPDATE message SET text = 'changed' WHERE id % 3 = 0")
    device.back_up(source)
    assert fired == ["commit", "redo", "commit", "redo"]


def test_a_torn_state_database_is_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    device = Device.make(tmp_path / "state", Clock())
    fill(source / "a.db", 40)
    device.back_up(source)
    state = tmp_path / "state" / "state.db"
    with sqlite3.connect(state) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    body = bytearray(state.read_bytes())
    body[:4096] = os.urandom(4096)
    state.write_bytes(body)
    with pytest.raises(ChatkeepError) as caught:
        device.back_up(source)
    assert caught.value.code == "state-damaged"
