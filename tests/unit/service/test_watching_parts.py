"""The pure parts of watching, and what it relies on of watchdog."""

from __future__ import annotations

import ctypes
import inspect
import os
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

from chatkeep.daemon.capture.exclude import Exclusions
from chatkeep.daemon.service.watching import feed, mounts
from chatkeep.daemon.service.watching.scope import Scope

# Scope.


@pytest.mark.parametrize("pattern", ["Cache/**", "Cache/", "Cache", "**/Cache/**", "C*/**", "**", "Cache/*"])
def test_a_directory_of_which_nothing_can_wake_is_not_entered(pattern: str) -> None:
    assert not Scope([pattern]).enters(b"Cache")


@pytest.mark.parametrize(
    "pattern", ["Cache/*.tmp", "Cache/?", "Cache/??", "Cache/a*", "Cache/**/a", "Media/**", "cache"]
)
def test_one_of_which_something_could_is_entered(pattern: str) -> None:
    assert Scope([pattern]).enters(b"Cache")
    assert Scope([pattern]).enters(b"")


def test_without_patterns_everything_wakes() -> None:
    assert Scope().enters(b"")
    assert Scope().wakes(b"Cache/page", directory=False)


names = st.text("ab", min_size=1, max_size=3)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
pattern = st.lists(st.one_of(names, st.sampled_from(["*", "**", "a*", "?"])), min_size=1, max_size=3).map("/".join)


@given(st.lists(pattern, max_size=3), paths, names)
def test_what_a_walk_would_find_is_in_a_directory_that_is_entered(patterns: list[str], path: str, name: str) -> None:
    """Every directory on the way to a file that is not excluded is entered."""
    exclude, scope = Exclusions(patterns), Scope(patterns)
    steps = path.split("/")
    ways = [os.fsencode("/".join(steps[:count])) for count in range(len(steps) + 1)]
    file = os.fsencode(f"{path}/{name}")
    taken = not any(exclude.match(way, True) for way in ways[1:]) and not exclude.match(file, False)
    if taken:
        assert scope.wakes(file, directory=False)
        assert all(scope.enters(way) for way in ways)


# Mounts.

TABLE = rb"""22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 28 0:45 / /home/ana/chat/Media rw master:1 shared:9 - nfs4 nas:/media rw
41 28 0:46 / /home/ana/chat\040more rw - fuse.sshfs host: rw
42 28 0:47 / /home/ana/chat\134x rw - tmpfs tmpfs rw
this is no line
43 28 0:48 / /short
"""


def test_the_mount_table_is_read() -> None:
    assert list(mounts.parse(TABLE)) == [
        (22, b"/sys", "sysfs"),
        (28, b"/", "ext4"),
        (40, b"/home/ana/chat/Media", "nfs4"),
        (41, b"/home/ana/chat more", "fuse.sshfs"),
        (42, rb"/home/ana/chat\x", "tmpfs"),
    ]


def test_what_is_mounted_below_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_read", lambda _: TABLE)
    assert [mount.number for mount in mounts.mounts_below(b"/home/ana/chat")] == [40]
    assert [mount.number for mount in mounts.mounts_below(b"/home/ana/chat/Media")] == []
    assert [mount.number for mount in mounts.mounts_below(b"/")] == [22, 40, 41, 42]


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "fuse", "fuse.rclone"])
def test_what_others_can_change_is_shared(kind: str) -> None:
    assert mounts.is_shared(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "btrfs", "xfs", "overlay", "tmpfs", "fuseblk", "zfs", "ecryptfs", "", "bcachefs"]
)
def test_what_goes_through_this_kernel_is_not(kind: str) -> None:
    assert not mounts.is_shared(kind)


def test_the_kind_of_a_real_directory() -> None:
    assert mounts.kind_at(b"/proc") == "proc"
    assert mounts.kind_at(b"/dev/shm") == "tmpfs"


def test_a_directory_that_is_not_there_has_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mounts.kind_at(os.fsencode(tmp_path / "missing"))


@given(st.binary(max_size=300))
def test_any_table_is_read(table: bytes) -> None:
    list(mounts.parse(table))


# What the feed takes of watchdog, some of it private: another version may have it otherwise.


def test_the_version_is_one_that_was_read() -> None:
    major = int(metadata.version("watchdog").split(".")[0])
    assert major == 7


def test_the_reading_thread_asks_and_passes_on_by_these_methods(tmp_path: Path) -> None:
    """`run` reads by `read_events` and passes each event to `handle_event`, until it is stopped."""
    asked: list[str] = []

    class Contract(InotifyFD):
        def read_events(self, *, event_buffer_size: int = inotify_c.DEFAULT_EVENT_BUFFER_SIZE) -> list[InotifyEvent]:
            asked.append("read")
            return super().read_events(event_buffer_size=event_buffer_size)

        def handle_event(self, event: InotifyEvent) -> None:
            asked.append(f"{event.wd == watch} {event.mask & InotifyConstants.IN_CREATE > 0} {event.name!r}")
            self.stopped_event.set()

    contract = Contract()
    watch = inotify_c.inotify_add_watch(contract._inotify_fd, os.fsencode(tmp_path), feed.MASK)
    assert watch > 0
    contract.start()
    (tmp_path / "file").symlink_to("nowhere")
    contract.join(30)
    assert asked == ["read", "True True b'file'"]
    contract.close()


def test_an_overflow_comes_as_an_event_of_no_watch() -> None:
    source = inspect.getsource(InotifyFD.read_events)
    assert "wd != -1 or mask & InotifyConstants.IN_Q_OVERFLOW" in source
    assert InotifyEvent(-1, InotifyConstants.IN_Q_OVERFLOW, 0, b"").is_queue_overflow  # type: ignore[arg-type]


def test_a_refused_watch_is_minus_one_and_a_number() -> None:
    descriptor = inotify_c.inotify_init()
    try:
        assert inotify_c.inotify_add_watch(descriptor, b"/nowhere/at all", feed.MASK) == -1
        assert ctypes.get_errno() == 2
    finally:
        os.close(descriptor)


def test_it_is_told_by_one_flag_that_nobody_reads() -> None:
    """The feed clears it after it was made, so that one stopped before its first reading closes its descriptors."""
    source = inspect.getsource(InotifyFD)
    assert "self._is_reading = True" in inspect.getsource(InotifyFD.__init__)
    assert "if self._is_reading:" in inspect.getsource(InotifyFD.close)
    assert source.count("_close_resources()") == 2
    before = set(os.listdir("/proc/self/fd"))
    one = InotifyFD()
    one._is_reading = False
    one.start()
    one.stop()
    one.join(30)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_the_mask_has_nothing_that_readers_cause() -> None:
    readers = (
        InotifyConstants.IN_OPEN
        | InotifyConstants.IN_ACCESS
        | InotifyConstants.IN_CLOSE_NOWRITE
        | InotifyConstants.IN_ATTRIB
    )
    assert feed.MASK & readers == 0
