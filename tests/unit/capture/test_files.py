"""What proves a file unchanged, and the attributes of entries."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.capture import files
from chatkeep.daemon.capture.errors import EntryUnreadable, EntryVanished
from chatkeep.daemon.capture.files import MAX_XATTRS, Attributes, FileIdentity, OwnerNames, attributes, unchanged
from chatkeep.daemon.capture.tree import SourceTree

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[SourceTree]:
    (tmp_path / "source").mkdir()
    with SourceTree(os.fsencode(tmp_path / "source")) as opened:
        yield opened


def full(tree: SourceTree, path: bytes) -> bytes:
    return os.path.join(tree.root, path)


def write(tree: SourceTree, path: bytes, content: bytes) -> bytes:
    with open(full(tree, path), "wb") as file:
        file.write(content)
    return full(tree, path)


# --- what proves a file unchanged


def identity(mtime_ns: int = NOW - 60 * SECOND, ctime_ns: int = NOW - 60 * SECOND) -> FileIdentity:
    return FileIdentity(1, 2, 3, mtime_ns, ctime_ns)


def test_an_old_file_with_the_same_identity_is_unchanged() -> None:
    assert unchanged(identity(), identity(), NOW)


@pytest.mark.parametrize("field", FileIdentity._fields)
def test_any_difference_is_a_change(field: str) -> None:
    assert not unchanged(identity(), identity()._replace(**{field: 99}), NOW)


@pytest.mark.parametrize(
    ("mtime_age", "ctime_age", "proven"),
    [
        (60, 2, False),  # within the coarsest clock step when its read began
        (60, 0, False),
        (60, -3600, False),  # changed in the future: the clock was set back
        (2, 60, False),
        (-2, 60, False),
        (3, 60, True),
        (-3600, 60, True),  # a wrong date, set long before
        (3, 3, True),
    ],
)
def test_a_file_young_at_its_capture_is_read_again(mtime_age: int, ctime_age: int, proven: bool) -> None:
    seen = identity(NOW - mtime_age * SECOND, NOW - ctime_age * SECOND)
    assert unchanged(seen, seen, NOW) is proven


# --- attributes


def test_owner_names(tree: SourceTree) -> None:
    names = OwnerNames()
    assert names.user(0) == b"root"
    assert names.group(0) == b"root"
    assert names.user(4_000_000_001) == b""
    assert names.group(4_000_000_001) == b""


def test_names_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def getpwuid(uid: int) -> object:
        asked.append(uid)
        raise KeyError(uid)

    monkeypatch.setattr(files, "pwd", type("pwd", (), {"getpwuid": staticmethod(getpwuid)}))
    names = OwnerNames()
    assert [names.user(7), names.user(7)] == [b"", b""]
    assert asked == [7]


def test_extended_attributes_of_files_and_directories(tree: SourceTree) -> None:
    write(tree, b"file\xff", b"")
    os.mkdir(full(tree, b"dir"))
    for path in (b"file\xff", b"dir", b"."):
        os.setxattr(full(tree, path), b"user.second", b"\x00\xff")
        os.setxattr(full(tree, path), b"user.first", b"")
    expected = ((b"user.first", b""), (b"user.second", b"\x00\xff"))
    for path in (b"file\xff", b"dir", b""):
        found = tree.stat(path)
        assert attributes(tree, found, OwnerNames()) == Attributes(
            OwnerNames().user(found.uid), OwnerNames().group(found.gid), b"", expected, 0
        )


def test_access_control_lists_are_extended_attributes(tree: SourceTree) -> None:
    path = write(tree, b"file", b"")
    entry = bytes.fromhex("01000600ffffffff 02000400ea030000 04000400ffffffff 10000600ffffffff 20000000ffffffff")
    os.setxattr(path, b"system.posix_acl_access", b"\x02\x00\x00\x00" + entry)
    assert attributes(tree, tree.stat(b"file"), OwnerNames()).xattrs == (
        (b"system.posix_acl_access", b"\x02\x00\x00\x00" + entry),
    )


def test_a_link_has_its_own_attributes_and_target(tree: SourceTree) -> None:
    os.setxattr(write(tree, b"file", b""), b"user.of-the-file", b"x")
    os.symlink(b"file", full(tree, b"link"))
    os.symlink(b"loop/\xff", full(tree, b"loop"))
    got = attributes(tree, tree.stat(b"link"), OwnerNames())
    assert (got.target, got.xattrs) == (b"file", ())
    assert attributes(tree, tree.stat(b"loop"), OwnerNames()).target == b"loop/\xff"


def test_attributes_of_what_has_vanished(tree: SourceTree) -> None:
    write(tree, b"file", b"")
    gone = tree.stat(b"file")
    os.unlink(full(tree, b"file"))
    with pytest.raises(EntryVanished) as caught:
        attributes(tree, gone, OwnerNames())
    assert caught.value.params == {"path": b"file"}


class Attributed:
    """Stands for os.listxattr and os.getxattr where a file system cannot be made to behave so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, values: dict[str, bytes | int] | int) -> None:
        self.fired = 0
        self.values = values
        monkeypatch.setattr(os, "listxattr", self.list)
        monkeypatch.setattr(os, "getxattr", self.get)

    def list(self, path: bytes, follow_symlinks: bool) -> list[str]:
        assert follow_symlinks is False
        self.fired += 1
        if isinstance(self.values, int):
            raise OSError(self.values, "injected")
        return list(self.values)

    def get(self, path: bytes, name: bytes, follow_symlinks: bool) -> bytes:
        assert follow_symlinks is False
        assert isinstance(self.values, dict)
        value = self.values[os.fsdecode(name)]
        if isinstance(value, int):
            raise OSError(value, "injected")
        return value


def test_a_file_system_without_extended_attributes(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tree, b"file", b"")
    fault = Attributed(monkeypatch, errno.ENOTSUP)
    got = attributes(tree, tree.stat(b"file"), OwnerNames())
    assert fault.fired == 1
    assert (got.xattrs, got.xattrs_left_out) == ((), 0)


def test_extended_attributes_that_cannot_be_listed(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tree, b"file", b"")
    fault = Attributed(monkeypatch, errno.EIO)
    with pytest.raises(EntryUnreadable) as caught:
        attributes(tree, tree.stat(b"file"), OwnerNames())
    assert fault.fired == 1
    assert caught.value.params == {"path": b"file", "errno": errno.EIO}


def test_an_attribute_that_refuses_or_is_too_large_is_left_out(
    tree: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tree, b"file", b"")
    room = MAX_XATTRS - len("user.aaa")
    Attributed(
        monkeypatch, {"trusted.x": errno.EPERM, "user.gone": errno.ENODATA, "user.aaa": b"v" * room, "user.b": b""}
    )
    got = attributes(tree, tree.stat(b"file"), OwnerNames())
    assert got.xattrs == ((b"user.aaa", b"v" * room),)
    assert got.xattrs_left_out == 3
