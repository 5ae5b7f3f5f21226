"""Hints of a watched source, by the real inotify: which changes wake, and which do not."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import Mask, WatchDescriptor, inotify_add_watch

from chatkeep.config.model import Source
from chatkeep.daemon.service.watching import feed
from chatkeep.daemon.service.watching.scope import Scope
from tests.support.sources import Clock
from tests.support.sqlite_app import App
from tests.support.watching import Scene, watched
from tests.support.whole import Device


@pytest.fixture
def top(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "Media").mkdir(parents=True)
    (made / "Cache").mkdir()
    (made / "Media" / "photo.jpg").write_bytes(b"photo" * 1000)
    (made / "log").write_text("text")
    return made


@pytest.fixture
def scene(top: Path) -> Iterator[Scene]:
    with watched(top, ("Cache/**", "**/*.tmp", "Private/")) as one:
        yield one


def stored_through_a_mapping(path: Path) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:5] = b"other"


def replaced(path: Path) -> None:
    new = path.with_suffix(".tmp")  # excluded: what wakes is the name it gets
    new.write_text("new")
    new.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file comes": lambda top: (top / "new").touch(),
    "a file is written": lambda top: (top / "Media" / "photo.jpg").write_bytes(b"other"),
    "a file is appended to": lambda top: open(top / "log", "a").write("more"),  # noqa: SIM115
    "a file is cut": lambda top: os.truncate(top / "log", 1),
    "a file is stored into through a mapping": lambda top: stored_through_a_mapping(top / "Media" / "photo.jpg"),
    "a file goes": lambda top: (top / "log").unlink(),
    "a file is renamed": lambda top: (top / "log").rename(top / "Media" / "log"),
    "a file is replaced": lambda top: replaced(top / "log"),
    "a file moves away": lambda top: (top / "log").rename(top.parent / "log"),
    "a second name": lambda top: os.link(top / "log", top / "log 2"),
    "a link comes": lambda top: (top / "link").symlink_to("log"),
    "a directory comes": lambda top: (top / "Media" / "2026").mkdir(),
    "a directory goes": lambda top: shutil.rmtree(top / "Media"),
    "a directory moves away": lambda top: (top / "Media").rename(top.parent / "Media"),
    "a database commits": lambda top: open(top / "db-wal", "ab").write(b"frame"),  # noqa: SIM115
    "a journal comes": lambda top: (top / "db-journal").touch(),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_a_hint(scene: Scene, change: str) -> None:
    scene.marked()
    scene.heard.hint_after(lambda: CHANGES[change](scene.top))


def test_watching_begins_with_a_whole_hint(scene: Scene) -> None:
    assert scene.heard.hints == [("chat", True)]
    assert scene.heard.events == []
    assert scene.watcher.degraded == {}


def test_what_is_read_touched_or_made_private_is_none(scene: Scene) -> None:
    scene.marked()
    (scene.top / "log").read_bytes()
    os.listdir(scene.top / "Media")
    os.utime(scene.top / "log", (1, 1))
    (scene.top / "log").chmod(0o600)
    assert scene.marked() == set()


def test_what_is_excluded_is_none(scene: Scene) -> None:
    scene.marked()
    (scene.top / "Cache" / "page").write_text("x")
    (scene.top / "Cache" / "deep").mkdir()
    (scene.top / "Cache" / "deep" / "page").write_text("x")
    (scene.top / "Media" / "video.tmp").write_text("x")
    (scene.top / "Media" / "video.tmp").unlink()
    assert scene.marked() == set()
    # without so much as a watch: the cache of a browser never rests
    assert scene.seen.feeds[0].watched == 2


def test_what_leaves_the_excluded_part_is_one(scene: Scene) -> None:
    (scene.top / "Media" / "video.tmp").write_text("x")
    (scene.top / "Cache" / "sub").mkdir()
    scene.marked()
    (scene.top / "Media" / "video.tmp").rename(scene.top / "Media" / "video")
    (scene.top / "Cache" / "sub").rename(scene.top / "sub")
    assert scene.marked() >= {b"Media/video", b"sub"}
    (scene.top / "sub" / "inside").touch()
    assert scene.marked() >= {b"sub/inside"}


def test_a_directory_that_becomes_excluded_is_left(scene: Scene) -> None:
    (scene.top / "Media").rename(scene.top / "Private")
    scene.marked()
    (scene.top / "Private" / "diary").write_text("x")
    assert scene.marked() == set()
    assert scene.seen.feeds[0].watched == 1


def test_the_index_of_a_log_is_no_content_but_a_file_called_so_is(scene: Scene) -> None:
    (scene.top / "chat.db").touch()
    scene.marked()
    (scene.top / "chat.db-shm").write_bytes(bytes(32768))
    assert scene.marked() == set()
    (scene.top / "other-shm").write_bytes(b"a note")
    assert scene.marked() == {b"other-shm"}


def test_links_to_directories_are_not_followed(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (scene.top / "link").symlink_to(tmp_path / "elsewhere")
    scene.marked()
    (tmp_path / "elsewhere" / "file").touch()
    assert scene.marked() == set()


def test_a_source_that_is_a_link_itself_is_followed(top: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(top)
    with watched(tmp_path / "link") as scene:
        (top / "Media" / "new").touch()
        assert b"Media/new" in scene.marked()


def test_files_below_a_renamed_directory_are_found_under_its_new_name(scene: Scene) -> None:
    (scene.top / "Media" / "a" / "b").mkdir(parents=True)
    scene.marked()
    (scene.top / "Media").rename(scene.top / "Pictures")
    scene.marked()
    (scene.top / "Pictures" / "a" / "b" / "new").touch()
    assert scene.marked() == {b"Pictures/a/b/new"}
    assert scene.seen.feeds[0].watched == 4


def test_what_moved_out_is_not_ours_until_it_comes_back(scene: Scene, tmp_path: Path) -> None:
    (scene.top / "Media").rename(tmp_path / "away")
    scene.marked()
    (tmp_path / "away" / "new").touch()
    assert scene.marked() == set()
    (tmp_path / "away").rename(scene.top / "back")
    scene.marked()
    (scene.top / "back" / "newer").touch()
    assert scene.marked() == {b"back/newer"}


def test_a_deep_tree_made_at_once_is_watched_to_its_end(scene: Scene) -> None:
    deep = scene.top.joinpath(*"abcdefghij")
    deep.mkdir(parents=True)
    scene.heard.until(lambda: scene.seen.feeds[0].watched == 12)
    scene.marked()
    (deep / "file").touch()
    assert scene.marked() == {b"a/b/c/d/e/f/g/h/i/j/file"}


@pytest.mark.parametrize("before", [True, False])
def test_what_comes_while_a_directory_is_entered_is_found(
    top: Path, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right before it is watched, or right after."""
    came: list[bytes] = []

    def come(path: bytes) -> None:
        if path.endswith(b"Media") and not came:
            (top / "Media" / "late").mkdir()
            came.append(path)

    def add(descriptor: int, path: bytes, mask: Mask) -> WatchDescriptor:
        if before:
            come(path)
        found = inotify_add_watch(descriptor, path, mask)
        if not before:
            come(path)
        return found

    monkeypatch.setattr(feed, "inotify_add_watch", add)
    with watched(top) as scene:
        assert came
        scene.heard.until(lambda: scene.seen.feeds[0].watched == 4)
        scene.marked()
        (top / "Media" / "late" / "file").touch()
        assert scene.marked() == {b"Media/late/file"}


GROW = """
import os, random, sys
top, seed = sys.argv[1], int(sys.argv[2])
dice = random.Random(seed)
made = [top]
for number in range(1500):
    act = dice.random()
    if act < 0.75 or len(made) < 10:
        made.append(os.path.join(dice.choice(made), str(number)))
        os.mkdir(made[-1])
    else:
        old = dice.choice(made[1:])
        new = os.path.join(dice.choice(made), "m" + str(number))
        if not (new + "/").startswith(old + "/"):
            os.rename(old, new)
            made = [new + path[len(old):] if (path + "/").startswith(old + "/") else path for path in made]
    if number == 300:
        print("go", flush=True)
print(len(made), flush=True)
"""


def test_a_tree_that_grows_and_is_moved_about_while_it_is_entered_loses_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)  # noqa: T201  # shown when it fails
    top = tmp_path / "source"
    top.mkdir()
    scene = Scene(top)
    with subprocess.Popen([sys.executable, "-c", GROW, top, str(seed)], stdout=subprocess.PIPE, text=True) as grower:
        assert grower.stdout is not None
        assert grower.stdout.readline() == "go\n"
        try:
            scene.watcher.start()
            count = int(grower.stdout.readline())
            assert scene.watcher.settled(30)
            scene.marked()
            scene.heard.until(lambda: scene.seen.feeds[0].watched == count)
            directories = [Path(root) for root, _, _ in os.walk(top)]
            assert len(directories) == count
            for directory in directories:
                (directory / "file").touch()
            expected = {os.fsencode((directory / "file").relative_to(top)) for directory in directories}
            assert scene.marked() == expected
        finally:
            scene.watcher.stop()


def test_five_thousand_directories(tmp_path: Path) -> None:
    top = tmp_path / "source"
    for number in range(5000):
        (top / str(number // 100) / str(number)).mkdir(parents=True)
    with watched(top) as scene:
        assert scene.seen.feeds[0].watched == 5051
        (top / "49" / "4999" / "file").touch()
        (top / "0" / "0" / "file").touch()
        assert scene.marked() == {b"49/4999/file", b"0/0/file"}
        assert scene.seen.overflows == 0


def test_many_writes_are_few_hints(scene: Scene) -> None:
    scene.marked()
    mark = len(scene.heard.hints)
    with open(scene.top / "db-wal", "wb", buffering=0) as log:
        log.writelines(b"frame" for _ in range(20_000))
    scene.marked()
    # at most one each BREATH; writing takes a few hundredths of a second on any machine that is not stopped
    assert 1 <= len(scene.heard.since(mark)) < 1000


def test_reading_by_a_backup_is_no_hint(scene: Scene, tmp_path: Path) -> None:
    """The real capture beside an application that has the database open and writes nothing."""
    device = Device.make(tmp_path / "state", Clock())
    with App(scene.top / "chat.db", journal_mode="WAL") as app:
        app.book(5)
        scene.marked()
        assert device.back_up(scene.top).last_seq == 1
        assert scene.marked() == set()
        device.back_up(scene.top)
        assert scene.marked() == set()
        scene.heard.hint_after(app.book)
        device.back_up(scene.top)
        scene.marked()
        device.back_up(scene.top)
        assert scene.marked() == set()


def test_reading_a_rollback_database_is_no_hint(scene: Scene, tmp_path: Path) -> None:
    device = Device.make(tmp_path / "state", Clock())
    with App(scene.top / "chat.db", journal_mode="DELETE") as app:
        app.book(5)
        scene.marked()
        assert device.back_up(scene.top).last_seq == 1
        assert scene.marked() == set()
        scene.heard.hint_after(app.book)


def test_sources_that_stay_lose_no_event_when_others_come_and_go(scene: Scene, tmp_path: Path) -> None:
    others = [Source(tmp_path / f"other {number}", f"other {number}") for number in range(3)]
    for other in others:
        other.path.mkdir()
    ended = threading.Event()
    made: list[bytes] = []

    def write() -> None:
        while not ended.is_set() or len(made) < 2000:
            path = scene.top / "Media" / str(len(made))
            path.touch()
            made.append(os.fsencode(path.relative_to(scene.top)))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(12):
            scene.watcher.change([scene.source, *others[: turn % 4]], poll_every=float(turn + 1))
            assert scene.watcher.settled(30)
    finally:
        ended.set()
        writer.join()
    assert scene.seen.overflows == 0
    assert set(made) <= scene.marked()
    assert [hint for hint in scene.heard.hints if hint == ("chat", True)] == [("chat", True)]
    assert ("other 2", True) in scene.heard.hints


def test_a_source_that_was_taken_out_gives_no_hint(scene: Scene, tmp_path: Path) -> None:
    other = Source(tmp_path / "other", "other")
    other.path.mkdir()
    scene.watcher.change([other])
    assert scene.watcher.settled(30)
    feed = scene.seen.feeds[0]
    assert not feed.is_alive()
    mark = len(scene.heard.hints)
    (scene.top / "new").touch()
    (other.path / "new").touch()
    scene.heard.until(lambda: len(scene.heard.hints) > mark)
    assert set(scene.heard.since(mark)) == {("other", False)}


def test_other_exclusions_hold_from_then_on(scene: Scene) -> None:
    scene.watcher.change([Source(scene.top, "chat", ("Media/",))])
    assert scene.watcher.settled(30)
    scene.seen.events.clear()
    (scene.top / "Cache" / "page").touch()
    (scene.top / "Media" / "new").touch()
    assert scene.marked() == {b"Cache/page"}


def test_after_stop_there_is_no_hint_no_thread_and_no_descriptor(top: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with watched(top) as scene:
        scene.marked()
    mark = len(scene.heard.hints)
    (top / "new").touch()
    assert not scene.seen.feeds[0].is_alive()
    assert scene.heard.since(mark) == []
    assert set(os.listdir("/proc/self/fd")) <= before
    assert not any(thread.name.startswith("watch") for thread in threading.enumerate())


def test_one_that_is_stopped_before_its_first_reading_leaves_no_descriptor_either(top: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    one = feed.Feed(os.fsencode(top), Scope(), lambda: None, lambda _: None, lambda _: False)
    assert set(os.listdir("/proc/self/fd")) > before
    one.stop()
    assert set(os.listdir("/proc/self/fd")) <= before
    for _ in range(20):
        scene = Scene(top)
        scene.watcher.start()
        scene.watcher.stop()
    assert set(os.listdir("/proc/self/fd")) <= before
