from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.providers import durable


def test_a_file_is_written_from_parts(tmp_path: Path) -> None:
    path = tmp_path / "a"
    durable.write_durably(path, [b"one", bytearray(b"two"), memoryview(b"three"), b""])
    assert path.read_bytes() == b"onetwothree"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    durable.write_durably(path, b"again", 0o640)
    assert path.read_bytes() == b"again"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [*tmp_path.iterdir()] == [path]


def test_parts_that_fail_leave_the_old_file(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the source ended early")

    path = tmp_path / "a"
    durable.write_durably(path, b"old")
    with pytest.raises(RuntimeError):
        durable.write_durably(path, parts())
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        durable.write_durably(tmp_path / "a", b"x")
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, taken = os.write, []

    def short(descriptor: int, body: memoryview) -> int:
        taken.append(len(body))
        return write(descriptor, body[:7])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        durable.write_durably(tmp_path / "a", b"0123456789" * 3)
    assert taken == [30, 23, 16, 9, 2]
    assert (tmp_path / "a").read_bytes() == b"0123456789" * 3


def test_a_write_that_takes_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda _descriptor, _body: 0)
        with pytest.raises(OSError) as caught:
            durable.write_durably(tmp_path / "a", b"x")
    assert caught.value.errno == errno.EIO
    assert [*tmp_path.iterdir()] == []


def test_the_order_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            directory = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            steps.append("fsync-directory" if directory else name)
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "rename", "link"):
        watch(name)
    durable.write_durably(tmp_path / "a", b"x")
    assert steps == ["write", "fsync", "rename", "fsync-directory"]
    steps.clear()
    durable.create_durably(tmp_path / "b", b"x")
    assert steps == ["write", "fsync", "link", "fsync-directory"]


def test_a_taken_name_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert durable.create_durably(path, b"first")
    with pytest.raises(FileExistsError):
        durable.create_durably(path, b"second")
    assert path.read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [path]


def refuse_links(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    def link(*_arguments: object, **_named: object) -> None:
        asked.append("link")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # what FAT says

    monkeypatch.setattr(os, "link", link)


def test_without_hard_links_the_rename_is_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    refuse_links(monkeypatch, asked)
    assert durable.create_durably(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        durable.create_durably(tmp_path / "a", b"second")
    assert asked == ["link", "link"]
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_without_either_it_looks_first_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    refuse_links(monkeypatch, asked)
    monkeypatch.setattr(durable, "_rename_exclusively", lambda _source, _target: asked.append("renameat2"))
    assert not durable.create_durably(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        durable.create_durably(tmp_path / "a", b"second")
    assert asked == ["link", "renameat2"] * 2
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_the_exclusive_rename_reports_the_system_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_links(monkeypatch, [])
    with pytest.raises(FileNotFoundError):
        durable.create_durably(tmp_path / "missing" / "a", b"x", staging=tmp_path)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)])
def test_only_a_system_that_cannot_sync_directories_is_let_pass(
    number: int, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def fsync(descriptor: int) -> None:
        asked.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if passes:
        durable.fsync_directory(tmp_path)
    else:
        with pytest.raises(OSError):
            durable.fsync_directory(tmp_path)
    assert len(asked) == 1


def test_a_directory_is_made_once_and_synced_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "fsync_directory", synced.append)
    durable.make_directory(tmp_path / "a")
    durable.make_directory(tmp_path / "a")
    assert synced == [tmp_path, tmp_path]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    with pytest.raises(FileNotFoundError):
        durable.make_directory(tmp_path / "b" / "c")


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert durable.read_bounded(path, 5) == b"12345"
    assert durable.read_bounded(path, 1 << 40) == b"12345"
    with pytest.raises(OSError) as caught:
        durable.read_bounded(path, 4)
    assert caught.value.errno == errno.EFBIG
    (tmp_path / "empty").write_bytes(b"")
    assert durable.read_bounded(tmp_path / "empty", 0) == b""


def test_a_size_that_is_not_true_is_not_believed() -> None:
    version = Path("/proc/version")
    assert version.stat().st_size == 0
    assert durable.read_bounded(version, 4096).startswith(b"Linux")
    with pytest.raises(OSError):
        durable.read_bounded(version, 4)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError) as caught:
            durable.read_bounded(path, 10)
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(FileNotFoundError):
        durable.read_bounded(tmp_path / "missing", 10)


def test_short_reads_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    pread, asked = os.pread, []

    def short(descriptor: int, length: int, offset: int) -> bytes:
        asked.append(length)
        return pread(descriptor, min(length, 40), offset)

    monkeypatch.setattr(os, "pread", short)
    assert durable.read_bounded(tmp_path / "a", 100) == bytes(range(100))
    assert asked == [101, 61, 21, 1]


def test_only_what_dead_writers_left_is_swept(tmp_path: Path) -> None:
    now = 1_000_000.0
    old = {each: durable.write_temporary(tmp_path, b"x") for each in ("dead", "living", "young")}
    other = tmp_path / "somebody-elses"
    other.write_bytes(b"")
    for path in (old["dead"], old["living"], other):
        os.utime(path, (now - 101, now - 101))
    os.utime(old["young"], (now - 99, now - 99))
    with old["living"].open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert durable.sweep_temporaries(tmp_path, 100, now) == 1
    assert {*tmp_path.iterdir()} == {old["living"], old["young"], other}
    assert durable.sweep_temporaries(tmp_path, 100, now) == 1
    assert {*tmp_path.iterdir()} == {old["young"], other}


def test_a_writer_at_work_holds_its_file(tmp_path: Path) -> None:
    swept: list[int] = []

    def parts() -> Iterator[bytes]:
        yield b"half"
        swept.append(durable.sweep_temporaries(tmp_path, -10.0, 4e9))
        yield b"whole"

    durable.write_durably(tmp_path / "a", parts())
    assert swept == [0]
    assert (tmp_path / "a").read_bytes() == b"halfwhole"
