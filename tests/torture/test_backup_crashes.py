"""Every durable step of a backup as the last one, or as one that fails: nothing is lost, and the next one is right."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.state import Commit, State
from tests.support.crashing import Crash, Steps, crash, durable_steps, kill, refuse
from tests.support.sources import Clock, database, fill
from tests.support.trees import Thing, describe
from tests.support.whole import Device


class Scene:
    """A source with one snapshot, changed since; every try begins with a copy of the same state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = directory / "source"
        self.source.mkdir()
        self.device = Device.make(directory / "state", Clock())
        fill(self.source / "a.db", 40, page_size=512)
        fill(self.source / "gone.db", 5)
        (self.source / "file").write_bytes(os.urandom(3000))
        (self.source / "other").write_text("first")
        self.device.back_up(self.source)
        self.first = describe(self.source)
        self.original = (self.source / "a.db").read_bytes()
        with database(self.source / "a.db") as db:
            db.execute("UPDATE message SET text = 'changed' WHERE id % 3 = 0")
            db.execute("DELETE FROM message WHERE id > 30")
            db.execute("VACUUM")
        (self.source / "other").write_text("second")
        (self.source / "gone.db").unlink()
        self.second = describe(self.source)
        self.changed = (self.source / "a.db").read_bytes()
        shutil.copytree(directory / "state", directory / "template")
        self.objects = dict(self.device.provider.objects)

    def reset(self) -> None:
        """As it was before the second backup."""
        shutil.rmtree(self.directory / "state")
        shutil.copytree(self.directory / "template", self.directory / "state")
        self.device.provider.objects = dict(self.objects)
        (self.source / "a.db").write_bytes(self.changed)

    def run(self, at: int, act: Callable[[str], None]) -> tuple[Steps, BaseException | None]:
        """The second backup and its upload, with something done at step `at`."""
        with durable_steps(self.directory / "state", at, act) as steps:
            try:
                self.device.back_up(self.source)
            except (Crash, ChatkeepError) as caught:
                return steps, caught
        return steps, None

    def check_after(self, where: str) -> None:
        """What is acknowledged restores; the page reverts; the next backup is right."""
        for seq, expected in ((1, self.first), (2, self.second)):
            self.check(seq, expected, where)
        (self.source / "a.db").write_bytes(self.original)
        with database(self.source / "a.db") as db:
            db.execute("UPDATE message SET text = 'later' WHERE id = 1")
        last = self.device.back_up(self.source).last_seq
        assert last in (2, 3)
        target = self.directory / "target"
        self.device.restore(target)
        found, expected = describe(target), describe(self.source)
        shutil.rmtree(target)
        assert contents(found) == contents(expected), f"the next snapshot after {where}"
        if last == 3:
            self.check(2, self.second, where)

    def check(self, seq: int, expected: dict[bytes, Thing], where: str) -> None:
        _, snapshots = self.device.snapshots()
        if seq > len(snapshots):
            return
        target = self.directory / "target"
        self.device.restore(target, seq)
        found = describe(target)
        shutil.rmtree(target)
        assert contents(found) == contents(expected), f"snapshot {seq} after {where}"


def contents(things: dict[bytes, Thing]) -> dict[bytes, str]:
    return {path: thing.content for path, thing in things.items()}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    # A process dies here, not the machine: a sync that does nothing is still a step.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    return Scene(tmp_path)


def every_step(scene: Scene) -> list[str]:
    steps, error = scene.run(-1, crash)
    assert error is None
    names = steps.names
    expected = {"pack create", "pack write", "rename", "fsync", "write", "before COMMIT", "after COMMIT"}
    assert expected | {"ftruncate", "pwrite", "fdatasync", "unlink"} <= set(names), "the seam misses a kind of step"
    return names


def test_killed_at_every_step(scene: Scene) -> None:
    names = every_step(scene)
    for at, name in enumerate(names):
        scene.reset()
        steps, error = scene.run(at, crash)
        assert steps.fired, f"step {at} ({name}) was not reached"
        assert isinstance(error, Crash)
        scene.check_after(f"step {at}: {steps.fired}")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_refused_at_every_step(scene: Scene, number: int) -> None:
    names = every_step(scene)
    for at, _ in enumerate(names):
        scene.reset()
        steps, error = scene.run(at, refuse(number))
        assert steps.fired
        harmless = steps.fired in ("after COMMIT", "unlink")
        assert harmless or isinstance(error, ChatkeepError), f"step {at}: {steps.fired}"
        scene.check_after(f"{errno.errorcode[number]} at step {at}: {steps.fired}")


def test_killed_by_the_kernel(scene: Scene) -> None:
    with durable_steps(scene.directory / "state", -1, crash) as steps:
        scene.device.back_up(scene.source, send=False)
    for at in range(0, len(steps.names), 3):
        scene.reset()
        pid = os.fork()
        if pid == 0:
            try:
                with durable_steps(scene.directory / "state", at, kill):
                    scene.device.back_up(scene.source, send=False)
            finally:
                os._exit(7)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9, f"step {at} was not reached"
        scene.check_after(f"kill -9 at step {at}: {steps.names[at]}")


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
    scene = Scene(tmp_path)
    scene.device.back_up(scene.source)
    assert fired == ["commit", "redo", "redo", "commit", "redo"]


def test_a_torn_state_database_is_told(tmp_path: Path, scene: Scene) -> None:
    state = tmp_path / "state" / "state.db"
    with sqlite3.connect(state) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    body = bytearray(state.read_bytes())
    body[:4096] = os.urandom(4096)
    state.write_bytes(body)
    with pytest.raises(ChatkeepError) as caught:
        scene.device.back_up(scene.source)
    assert caught.value.code == "state-damaged"
