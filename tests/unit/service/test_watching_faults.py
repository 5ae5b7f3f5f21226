"""Watching when something is in the way: overflows, limits, roots that go and come, file systems under our feet."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.config.model import Source
from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.service.watching import feed
from chatkeep.daemon.service.watching.sentry import Rhythm
from tests.support.watch_child import Child
from tests.support.watching import Scene, watched

QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: ten thousands of files are made, and removed again."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "Media").mkdir(parents=True)
    (made / "chat.db").write_text("database")
    return made


@pytest.fixture
def begin(top: Path) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def one(**how: bool | float) -> Child:
        children.append(Child(top, **how))  # type: ignore[arg-type]  # as they are given
        return children[-1]

    yield one
    for child in children:
        child.end()


def started(child: Child) -> Child:
    child.ask("start")
    assert child.ask("settled")
    child.forget()
    return child


# Overflow.


def flooded(child: Child, top: Path) -> None:
    """More files than the kernel remembers events of, while the watcher's process cannot run."""
    child.pause()
    for number in range(QUEUE + 4000):
        (top / f"{number}").touch()
    child.resume()


def test_an_overflow_is_told_and_asks_for_a_whole_comparison(begin: Callable[..., Child], top: Path) -> None:
    child = started(begin())
    flooded(child, top)
    child.until("overflow", "chat")
    child.until("hint", True)
    child.forget()
    (top / "Media" / "later").touch()
    child.until("hint", False)


def test_a_directory_whose_coming_was_lost_is_watched_after_it(begin: Callable[..., Child], top: Path) -> None:
    child = started(begin())
    child.pause()
    for number in range(QUEUE + 4000):
        (top / f"{number}").touch()
    (top / "Media" / "lost").mkdir()
    child.resume()
    child.until("overflow", "chat")
    child.until("hint", True)
    child.forget()
    (top / "Media" / "lost" / "file").touch()
    child.until("hint", False)


def test_an_overflow_on_more_directories_than_the_queue_holds_ends(begin: Callable[..., Child], top: Path) -> None:
    """Removing and adding watches makes events, which would overflow again, for ever."""
    for number in range(QUEUE // 200 + 2):
        (top / "Media" / str(number)).mkdir()
        for inner in range(200):
            (top / "Media" / str(number) / str(inner)).mkdir()
    child = started(begin())
    assert child.ask("watched") > QUEUE
    flooded(child, top)
    child.until("overflow", "chat")
    child.until("hint", True)
    (top / "Media" / "0" / "0" / "after").touch()
    child.until("hint", False)
    # What entering the tree again would have caused came before that file: the kernel keeps the order.
    assert child.ever.count("overflow") == 1
    assert child.ask("watched") > QUEUE


# Limits, of a namespace of our own.


def test_without_watches_it_polls_and_says_so_and_comes_back(begin: Callable[..., Child], top: Path) -> None:
    for number in range(20):
        (top / "Media" / str(number)).mkdir()
    child = begin(apart=True, quick=0.05, whole=0.05, again=0.05)
    child.ask("limit", "watches", 10)
    child.ask("start")
    child.until("watch-degraded", "chat", "watches-used-up")
    child.until("hint", True)
    (top / "Media" / "19" / "polled").touch()
    child.until("hint", False)
    child.ask("limit", "watches", 1000)
    child.until("watch-restored", "chat")
    child.until("hint", True)
    assert child.ask("watched") == 22
    (top / "Media" / "19" / "told").touch()
    child.until("hint", False)


def test_watches_that_run_out_later_are_noticed(begin: Callable[..., Child], top: Path) -> None:
    child = begin(apart=True, quick=0.05, whole=0.05)
    child.ask("limit", "watches", 10)
    started(child)
    for number in range(20):
        (top / "Media" / str(number)).mkdir()
    child.until("watch-degraded", "chat", "watches-used-up")
    child.until("hint", True)
    (top / "Media" / "19" / "polled").touch()
    child.until("hint", False)


def test_without_an_instance_it_polls(begin: Callable[..., Child], top: Path) -> None:
    child = begin(apart=True, quick=0.05, whole=0.05, again=0.05)
    child.ask("limit", "instances", 0)
    child.ask("start")
    child.until("watch-degraded", "chat", "watches-used-up")
    (top / "Media" / "polled").touch()
    child.until("hint", False)
    child.ask("limit", "instances", 10)
    child.until("watch-restored", "chat")


# The source's own directory.


def test_one_that_is_missing_is_watched_from_when_it_comes(tmp_path: Path) -> None:
    with watched(tmp_path / "later") as scene:
        assert scene.heard.hints == []
        scene.heard.hint_after((tmp_path / "later").mkdir, whole=True)
        (tmp_path / "later" / "file").touch()
        assert scene.marked() == {b"file"}


def test_one_that_goes_is_a_hint_and_is_watched_when_it_is_back(top: Path) -> None:
    with watched(top) as scene:
        scene.marked()
        scene.heard.hint_after(lambda: shutil.rmtree(top), whole=True)
        scene.heard.until(lambda: not scene.seen.feeds[0].is_alive())
        scene.heard.hint_after(top.mkdir, whole=True)
        (top / "file").touch()
        assert b"file" in scene.marked()
        assert len(scene.seen.feeds) == 2


def test_one_that_is_replaced_at_once_is_watched_in_its_place(top: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "Media").mkdir(parents=True)

    def replace() -> None:
        top.rename(tmp_path / "old")
        (tmp_path / "other").rename(top)

    with watched(top) as scene:
        scene.marked()
        scene.heard.hint_after(replace, whole=True)
        scene.heard.until(lambda: len(scene.seen.feeds) == 2)
        scene.marked()
        (tmp_path / "old" / "Media" / "not ours").touch()
        (top / "Media" / "ours").touch()
        assert scene.marked() == {b"Media/ours"}


def test_a_parent_that_is_replaced_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a" / "source").mkdir(parents=True)
    (tmp_path / "b" / "source").mkdir(parents=True)

    def replace() -> None:
        (tmp_path / "a").rename(tmp_path / "c")
        (tmp_path / "b").rename(tmp_path / "a")

    with watched(tmp_path / "a" / "source") as scene:
        scene.heard.hint_after(replace, whole=True)
        (tmp_path / "a" / "source" / "file").touch()
        assert scene.marked() == {b"file"}


def test_a_link_that_leads_elsewhere_is_noticed(top: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "link").symlink_to(top)

    def turn() -> None:
        (tmp_path / "link 2").symlink_to(tmp_path / "new")
        (tmp_path / "link 2").rename(tmp_path / "link")

    with watched(tmp_path / "link") as scene:
        scene.heard.hint_after(turn, whole=True)
        (tmp_path / "new" / "file").touch()
        assert scene.marked() == {b"file"}


def test_a_disk_that_is_mounted_over_the_root_and_taken_away(begin: Callable[..., Child], top: Path) -> None:
    child = started(begin(apart=True))
    child.ask("mount", top)
    child.until("hint", True)
    child.forget()
    child.ask("touch", top / "on the disk")
    child.until("hint", False)
    child.ask("unmount", top)
    child.until("hint", True)
    child.forget()
    child.ask("touch", top / "below")
    child.until("hint", False)


def test_a_disk_that_is_mounted_below_is_entered(begin: Callable[..., Child], top: Path) -> None:
    child = started(begin(apart=True))
    child.ask("mount", top / "Media")
    child.until("hint", True)
    child.forget()
    child.ask("touch", top / "Media" / "photo")
    child.until("hint", False)
    child.ask("unmount", top / "Media")
    child.until("hint", True)
    child.forget()
    child.ask("touch", top / "Media" / "hidden before")
    child.until("hint", False)


def test_a_network_disk_below_is_polled_and_the_rest_watched(begin: Callable[..., Child], top: Path) -> None:
    child = started(begin(apart=True, quick=0.05, whole=0.05))
    child.ask("remote", top / "Media")
    child.ask("mount", top / "Media")
    child.until("watch-degraded", "chat", "network")
    child.until("hint", True)
    child.forget()
    assert child.ask("watched") == 1
    child.ask("mkdir", top / "Media" / "2026")
    child.until("hint", False)
    child.ask("touch", top / "Media" / "2026" / "photo")
    child.until("hint", False)
    child.ask("touch", top / "told by the kernel")
    child.until("hint", False)
    child.ask("unmount", top / "Media")
    child.until("watch-restored", "chat")
    child.until("hint", True)
    assert child.ask("watched") == 2


def test_a_network_disk_in_whose_place_a_local_one_is_mounted(begin: Callable[..., Child], top: Path) -> None:
    child = begin(apart=True, quick=0.05, whole=0.05)
    child.ask("remote", top)
    child.ask("start")
    child.until("watch-degraded", "chat", "network")
    child.until("hint", True)
    child.ask("local", top)
    child.ask("mount", top)
    child.until("watch-restored", "chat")
    child.until("hint", True)
    assert child.ask("watched") == 1
    child.forget()
    child.ask("touch", top / "file")
    child.until("hint", False)


# Our own parts.


def test_a_thread_that_ended_is_begun_again_with_a_whole_hint(top: Path) -> None:
    with watched(top) as scene:
        scene.marked()
        mark = len(scene.heard.hints)
        scene.seen.break_once.set()
        (top / "file").touch()
        scene.heard.until(lambda: scene.seen.broken and ("chat", True) in scene.heard.since(mark))
        assert scene.seen.broken == 1
        (top / "another").touch()
        assert b"another" in scene.marked()


def test_a_hint_that_nobody_took_is_given_again(top: Path) -> None:
    with watched(top) as scene:
        scene.marked()
        scene.heard.until(lambda: scene.heard.hints[-1:] == [("chat", False)])
        mark = len(scene.heard.hints)
        scene.heard.refuse = 2
        (top / "file").mkdir()
        scene.heard.until(lambda: scene.heard.since(mark))
        assert scene.heard.refuse == 0


def test_a_whole_hint_that_nobody_took_stays_whole(top: Path) -> None:
    scene = Scene(top, rhythm=Rhythm(check=600))  # so that it is an event that brings the next one
    scene.heard.refuse = 1
    try:
        scene.start()
        assert scene.heard.refuse == 0
        assert scene.heard.hints == []
        (top / "file").mkdir()
        scene.heard.until(lambda: scene.heard.hints)
        assert scene.heard.hints == [("chat", True)]
    finally:
        scene.watcher.stop()


def test_a_mistake_of_ours_is_told_and_tried_again(top: Path) -> None:
    raised: list[bytes] = []

    def kind_at(directory: bytes) -> str:
        if not raised:
            raised.append(directory)
            raise ZeroDivisionError
        return "ext4"

    with watched(top, kind_at=kind_at) as scene:
        (degraded,) = scene.heard.told(Kind.WATCH_DEGRADED)
        assert raised == [os.fsencode(top)]
        assert dict(degraded.values) == {"source": "chat", "reason": "failed", "error": "ZeroDivisionError"}
        scene.heard.until(lambda: scene.heard.told(Kind.WATCH_RESTORED, source="chat"))
        scene.heard.until(lambda: ("chat", True) in scene.heard.hints)
        (top / "file").touch()
        assert scene.marked() == {b"file"}


def test_a_mount_that_does_not_answer_holds_up_nobody_else(top: Path, tmp_path: Path) -> None:
    dead, asked, answer = tmp_path / "dead", threading.Event(), threading.Event()
    dead.mkdir()

    def kind_at(directory: bytes) -> str:
        if directory == os.fsencode(dead):
            asked.set()
            answer.wait(60)
        return "ext4"

    scene = Scene(top, kind_at=kind_at)
    watcher = scene.watch(Source(dead, "dead"), scene.source)
    watcher.start()
    try:
        assert asked.wait(30)
        scene.heard.until(lambda: ("chat", True) in scene.heard.hints)
        (top / "file").touch()
        assert scene.marked() == {b"file"}
        assert not watcher.settled(0)
    finally:
        watcher.stop()  # returns, though the thread does not
    mark = len(scene.heard.hints)
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "watch":
            thread.join(30)
    assert scene.heard.since(mark) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL])
def test_a_root_that_cannot_be_watched_is_polled(top: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def refuse(_descriptor: int, path: bytes, _mask: int) -> int:
        asked.append(path)
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(feed, "inotify_add_watch", refuse)
    with watched(top) as scene:
        assert asked
        scene.heard.until(lambda: scene.heard.told(Kind.WATCH_DEGRADED, source="chat", reason="refused"))
        scene.heard.hint_after((top / "file").touch, whole=False)
        monkeypatch.undo()
        scene.heard.until(lambda: scene.heard.told(Kind.WATCH_RESTORED, source="chat"))
