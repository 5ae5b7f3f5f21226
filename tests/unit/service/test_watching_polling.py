"""Where the kernel does not tell: looking, on a real directory that is said to be a network file system."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.service.watching import polling
from chatkeep.daemon.service.watching.polling import Poller
from chatkeep.daemon.service.watching.scope import Scope
from chatkeep.daemon.service.watching.sentry import Rhythm
from tests.support.watching import Scene, watched

NEVER = 1e9


@pytest.fixture
def top() -> Iterator[Path]:
    """On a tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        source = Path(made) / "source"
        (source / "Media").mkdir(parents=True)
        (source / "Cache").mkdir()
        (source / "chat.db").write_text("database")
        (source / "chat.db-wal").write_text("log")
        (source / "Media" / "photo").write_text("photo")
        yield source


@pytest.fixture
def poller(top: Path) -> Poller:
    made = Poller(os.fsencode(top), Scope(("Cache/**",)), (b"",), 5.0, 300.0)
    assert not made.look(0.0)
    return made


def test_a_network_file_system_is_polled_and_it_says_so(top: Path) -> None:
    with watched(top, kind_at=lambda _: "nfs4") as scene:
        (degraded,) = scene.heard.told(Kind.WATCH_DEGRADED, source="chat", reason="network")
        assert degraded.values["source"] == "chat"
        assert scene.watcher.degraded == {"chat": "network"}
        assert scene.seen.feeds == []  # no watch is taken
        scene.heard.until(lambda: ("chat", True) in scene.heard.hints)
        scene.heard.hint_after(lambda: (top / "chat.db-wal").write_text("more log"), whole=False)
        scene.heard.hint_after(lambda: (top / "Media" / "video").write_text("video"), whole=False)
        scene.heard.hint_after(lambda: (top / "Media" / "photo").unlink(), whole=False)


def test_another_interval_holds_at_once(top: Path) -> None:
    scene = Scene(top, rhythm=Rhythm(check=0.05, quick=600, whole=600), kind_at=lambda _: "nfs4")
    scene.start()
    try:
        scene.heard.until(lambda: scene.heard.hints == [("chat", True)])
        (top / "Media" / "video").write_text("video")
        (sentry,) = scene.watcher._sentries.values()
        assert sentry._poller is not None
        before = sentry._poller.due_at
        scene.watcher.change([scene.source], poll_every=0.05)
        assert sentry._poller.due_at < before
        scene.heard.until(lambda: scene.heard.hints == [("chat", True), ("chat", False)])
    finally:
        scene.watcher.stop()


def test_a_root_whose_number_is_made_up_anew_is_the_same(top: Path, tmp_path: Path) -> None:
    """As some network file systems do; another device is another file system."""
    with watched(top, kind_at=lambda _: "fuse.sshfs") as scene:
        scene.heard.until(lambda: scene.heard.hints == [("chat", True)])

        def replace() -> None:
            top.rename(top.parent / "old")
            top.mkdir()

        scene.heard.hint_after(replace, whole=False)
        assert ("chat", True) not in scene.heard.hints[1:]


def test_nothing_changed_is_no_hint(top: Path) -> None:
    scene = Scene(top, kind_at=lambda _: "nfs")
    looked: list[bool] = []
    look = Poller.look

    def noted(self: Poller, now: float) -> bool:
        looked.append(look(self, now))
        scene.heard.note()
        return looked[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Poller, "look", noted)
        scene.start()
        try:
            scene.heard.until(lambda: len(looked) > 10)
        finally:
            scene.watcher.stop()
    assert not any(looked)
    assert scene.heard.hints == [("chat", True)]


def test_the_quick_look_sees_databases_and_their_logs(top: Path, poller: Poller) -> None:
    assert not poller.look_quickly()
    (top / "chat.db-wal").write_text("longer log")
    assert poller.look_quickly()
    assert not poller.look_quickly()
    (top / "chat.db-journal").touch()
    assert poller.look_quickly()
    (top / "chat.db").unlink()
    assert poller.look_quickly()
    (top / "Media" / "photo").write_text("another")
    assert not poller.look_quickly()  # that is the whole look's
    assert poller.look_at_all()
    assert not poller.look_at_all()


def test_a_database_of_any_name_is_quick_while_it_has_a_log(top: Path, poller: Poller) -> None:
    (top / "Media" / "history").touch()
    (top / "Media" / "history-wal").touch()
    assert poller.look_at_all()
    (top / "Media" / "history-wal").write_text("log")
    assert poller.look_quickly()
    (top / "Media" / "history").write_text("checkpoint")
    assert poller.look_quickly()


def test_a_whole_look_hides_no_change_from_the_quick_one(top: Path, poller: Poller) -> None:
    (top / "chat.db-wal").write_text("longer log")
    poller.look_at_all()
    assert poller.look_quickly()


def test_what_is_excluded_and_what_readers_cause_is_not_seen(top: Path, poller: Poller) -> None:
    (top / "Cache" / "page").write_text("x")
    assert poller.look_at_all()  # the directory's own time
    (top / "Cache" / "page").write_text("longer")
    (top / "Cache" / "deep").mkdir()
    poller.look_at_all()
    (top / "Cache" / "deep" / "page").write_text("x")
    assert not poller.look_at_all()
    (top / "chat.db-shm").write_text("index")
    assert poller.look_quickly()  # again the directory's
    (top / "chat.db-shm").write_text("longer index")
    (top / "chat.db").read_text()
    assert not poller.look_at_all()
    assert not poller.look_quickly()


@pytest.mark.parametrize("act", ["mode", "touch", "rename", "mkdir", "rmdir", "symlink"])
def test_the_whole_look_sees(top: Path, poller: Poller, act: str) -> None:
    (top / "Media" / "empty").mkdir()
    poller.look_at_all()
    photo = top / "Media" / "photo"
    acts: dict[str, Callable[[], object]] = {
        "mode": lambda: photo.chmod(0o600),
        "touch": lambda: os.utime(photo, (1, 1)),
        "rename": lambda: photo.rename(top / "Media" / "picture"),
        "mkdir": lambda: (top / "Media" / "new").mkdir(),
        "rmdir": lambda: (top / "Media" / "empty").rmdir(),
        "symlink": lambda: (top / "Media" / "link").symlink_to("photo"),
    }
    acts[act]()
    assert poller.look_at_all()
    assert not poller.look_at_all()


def test_parts_are_looked_at_and_nothing_else(top: Path) -> None:
    poller = Poller(os.fsencode(top), Scope(), (b"Media",), 5.0, 300.0)
    poller.look_at_all()
    (top / "chat.db").write_text("changed")
    assert not poller.look_at_all()
    (top / "Media" / "new").touch()
    assert poller.look_at_all()


def test_a_part_that_is_gone_is_a_change_and_comes_back(top: Path, poller: Poller) -> None:
    top.rename(top.parent / "away")
    assert poller.look_at_all()
    assert not poller.look_at_all()
    (top.parent / "away").rename(top)
    assert poller.look_at_all()


def test_looks_are_due_at_their_times(top: Path, poller: Poller) -> None:
    assert poller.due_at == 5.0
    (top / "Media" / "photo").write_text("another")
    assert not poller.look(5.0)
    assert poller.due_at == 10.0
    assert not poller.look(299.0)
    assert poller.look(300.0)


def test_a_slow_file_system_is_asked_less_often(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))  # each look takes ten seconds
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    poller = Poller(os.fsencode(top), Scope(), (b"",), 5.0, 300.0)
    poller.look(0.0)
    assert poller.due_at == 1000.0  # twenty seconds of it for the whole look, fifty times as much between
    assert not poller.look(999.0)
    assert poller.due_at == 1000.0


def test_of_too_many_databases_those_written_last_are_quick(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "QUICK_DATABASES", 3)
    for number in range(10):
        (top / f"{number}.db").touch()
        os.utime(top / f"{number}.db", (number, number))
    os.utime(top / "chat.db", (0, 0))
    (top / "chat.db-wal").unlink()
    poller = Poller(os.fsencode(top), Scope(), (b"",), 5.0, NEVER)
    poller.look_at_all()
    (top / "2.db").write_text("old")
    assert not poller.look_quickly()
    (top / "9.db").write_text("new")
    assert poller.look_quickly()
