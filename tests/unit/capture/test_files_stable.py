"""Reads of files, also of files that move under the reader: faults happen between two extents of a read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.capture.errors import EntryUnreadable, EntryVanished
from chatkeep.daemon.capture.files import PIECE, FileIdentity, StableReader
from chatkeep.daemon.capture.tree import SourceTree
from tests.support.nobody import as_nobody

LONG_AGO = 1_700_000_000 * 1_000_000_000


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


def shape(reader: StableReader) -> list[tuple[int, int, bool]]:
    return [(extent.offset, extent.length, extent.data is None) for extent in reader.extents()]


def content(reader: StableReader) -> bytes:
    return b"".join(bytes(extent.length) if extent.data is None else extent.data for extent in reader.extents())


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17])
def test_a_file_is_read_in_pieces_of_the_grid(tree: SourceTree, size: int) -> None:
    body = os.urandom(size)
    write(tree, b"file", body)
    with StableReader(tree, b"file") as reader:
        assert content(reader) == body
        assert reader.stable
        assert reader.identity == FileIdentity.of(tree.stat(b"file"))
        assert reader.found == tree.stat(b"file")
        lengths = [length for _, length, _ in shape(reader)]
    assert lengths == [PIECE] * (size // PIECE) + [size % PIECE] * bool(size % PIECE)


def test_nothing_is_stable_before_the_last_extent_was_taken(tree: SourceTree) -> None:
    write(tree, b"file", bytes(2 * PIECE))
    with StableReader(tree, b"file") as reader:
        assert [reader.stable for _ in reader.extents()] == [False, False]
        assert reader.stable


def test_a_read_can_begin_within_the_file(tree: SourceTree) -> None:
    body = os.urandom(2 * PIECE + 5)
    write(tree, b"file", body)
    with StableReader(tree, b"file", start_offset=PIECE) as reader:
        assert content(reader) == body[PIECE:]
        assert reader.stable
    with StableReader(tree, b"file", start_offset=5 * PIECE) as reader:
        assert content(reader) == b""
    with pytest.raises(ValueError, match="grid"):
        StableReader(tree, b"file", start_offset=1)


def test_short_reads_are_completed(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    body = os.urandom(10_000)
    write(tree, b"file", body)
    real = os.pread
    asked: list[int] = []

    def stingy(fd: int, length: int, offset: int) -> bytes:
        asked.append(offset)
        return real(fd, min(length, 999), offset)

    monkeypatch.setattr(os, "pread", stingy)
    with StableReader(tree, b"file") as reader:
        assert content(reader) == body
        assert reader.stable
    assert len(asked) == 11


def test_a_read_error_is_named(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tree, b"file", b"x")

    def refuse(fd: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(os, "pread", refuse)
    with StableReader(tree, b"file") as reader:
        with pytest.raises(EntryUnreadable) as caught:
            content(reader)
        assert not reader.stable
    assert caught.value.params == {"path": b"file", "errno": errno.EIO}


def sparse(tree: SourceTree, size: int, *data: tuple[int, int]) -> bytes:
    path = write(tree, b"file", b"")
    with open(path, "r+b") as file:
        file.truncate(size)
        for offset, length in data:
            file.seek(offset)
            file.write(b"d" * length)
    return path


HOLE, DATA = True, False


@pytest.mark.parametrize(
    ("size", "data", "expected"),
    [
        (5 << 30, [], [(0, 5 << 30, HOLE)]),
        ((5 << 30) + 7, [], [(0, (5 << 30) + 7, HOLE)]),
        (65_536, [], [(0, 65_536, HOLE)]),
        (65_535, [], [(0, 65_535, DATA)]),  # too short to be worth an extent
        (
            8 * PIECE,
            [(3 * PIECE + 5, 10)],
            [(0, 3 * PIECE, HOLE), (3 * PIECE, PIECE, DATA), (4 * PIECE, 4 * PIECE, HOLE)],
        ),
        (
            4 * PIECE,
            [(PIECE // 2, PIECE)],  # data over a line of the grid: two pieces with zeros in them
            [(0, PIECE, DATA), (PIECE, PIECE, DATA), (2 * PIECE, 2 * PIECE, HOLE)],
        ),
        (
            2 * PIECE + 100,
            [(0, 1), (PIECE, 1)],
            [(0, PIECE, DATA), (PIECE, PIECE, DATA), (2 * PIECE, 100, DATA)],
        ),
        (
            3 * PIECE,
            [(0, PIECE), (2 * PIECE, PIECE)],
            [(0, PIECE, DATA), (PIECE, PIECE, HOLE), (2 * PIECE, PIECE, DATA)],
        ),
    ],
)
def test_holes_are_found_and_end_on_the_grid(
    tree: SourceTree, size: int, data: list[tuple[int, int]], expected: list[tuple[int, int, bool]]
) -> None:
    path = sparse(tree, size, *data)
    with StableReader(tree, b"file") as reader:
        assert shape(reader) == expected
        assert reader.stable
        if size < 1 << 30:
            with open(path, "rb") as file:
                assert content(reader) == file.read()


def test_a_read_can_begin_within_a_hole(tree: SourceTree) -> None:
    sparse(tree, 4 * PIECE, (3 * PIECE, 1))
    with StableReader(tree, b"file", start_offset=PIECE) as reader:
        assert shape(reader) == [(PIECE, 2 * PIECE, HOLE), (3 * PIECE, PIECE, DATA)]


def test_a_file_system_that_knows_no_holes(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(tree, 3 * PIECE)
    fired: list[int] = []

    def refuse(fd: int, offset: int, whence: int) -> int:
        fired.append(whence)
        raise OSError(errno.EINVAL, "injected")

    monkeypatch.setattr(os, "lseek", refuse)
    with StableReader(tree, b"file") as reader:
        assert shape(reader) == [(number * PIECE, PIECE, DATA) for number in range(3)]
        assert reader.stable
    assert fired == [os.SEEK_DATA]


def test_a_dense_file_is_not_asked_for_holes(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(write(tree, b"file", os.urandom(PIECE)), "rb") as file:
        os.fsync(file.fileno())  # some file systems count blocks only when they are allocated

    def never(fd: int, offset: int, whence: int) -> int:
        raise AssertionError("asked")

    monkeypatch.setattr(os, "lseek", never)
    with StableReader(tree, b"file") as reader:
        assert shape(reader) == [(0, PIECE, DATA)]


# --- the file moves while it is read


def _write_inside(path: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(b"other")


def _grow(path: bytes) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def _replace(path: bytes) -> None:
    facts = os.stat(path)
    with open(path + b".new", "wb") as file:
        file.write(bytes(facts.st_size))
    os.utime(path + b".new", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.rename(path + b".new", path)


def _replace_parent(path: bytes) -> None:
    folder = os.path.dirname(path)
    os.rename(folder, folder + b".moved")
    os.symlink(folder + b".moved", folder)


FAULTS: dict[str, Callable[[bytes], None]] = {
    "written": _write_inside,
    "grown": _grow,
    "truncated within": lambda path: os.truncate(path, PIECE + 1),
    "truncated to what was read": lambda path: os.truncate(path, PIECE),
    "truncated to nothing": lambda path: os.truncate(path, 0),
    "replaced": _replace,
    "removed": os.unlink,
    "attributes changed": lambda path: os.chmod(path, 0o600),
    "folder became a link": _replace_parent,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_changes_while_it_is_read_is_not_stable(tree: SourceTree, fault: str) -> None:
    os.mkdir(full(tree, b"dir"))
    path = write(tree, b"dir/file", bytes(3 * PIECE))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))  # so that a write within the same clock step is seen as well
    os.chmod(path, 0o644)
    with StableReader(tree, b"dir/file") as reader:
        extents = reader.extents()
        assert next(extents).length == PIECE
        FAULTS[fault](path)
        for _ in extents:
            pass
        assert not reader.stable


def test_a_second_read_after_the_change_is_stable(tree: SourceTree) -> None:
    path = write(tree, b"file", bytes(2 * PIECE))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    with StableReader(tree, b"file") as reader:
        extents = reader.extents()
        next(extents)
        _grow(path)
        assert [extent.length for extent in extents] == [PIECE]
        assert not reader.stable
    with StableReader(tree, b"file") as reader:
        assert content(reader) == bytes(2 * PIECE) + b"more"
        assert reader.stable


def test_a_file_that_grows_for_ever_is_read_to_its_first_size(tree: SourceTree) -> None:
    path = write(tree, b"file", bytes(PIECE))
    total = 0
    with StableReader(tree, b"file") as reader:
        for extent in reader.extents():
            total += extent.length
            with open(path, "ab") as file:
                file.write(bytes(PIECE))
        assert not reader.stable
    assert total == PIECE


def test_what_is_no_file_is_not_opened_for_reading(tree: SourceTree) -> None:
    os.mkfifo(full(tree, b"fifo"))  # would block for ever without O_NONBLOCK
    os.mkdir(full(tree, b"dir"))
    write(tree, b"file", b"")
    os.symlink(b"file", full(tree, b"link"))
    for path in (b"fifo", b"dir", b"link", b"absent", b"file/below"):
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(EntryVanished):
            StableReader(tree, path)
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_that_refuses(tree: SourceTree) -> None:
    os.chmod(write(tree, b"secret", b"x"), 0)

    def child() -> None:
        with SourceTree(tree.root) as again, pytest.raises(EntryUnreadable) as caught:
            StableReader(again, b"secret")
        assert caught.value.params == {"path": b"secret", "errno": errno.EACCES}

    as_nobody(child, tree.root)


def test_a_file_of_another_owner_is_read_though_its_access_time_cannot_be_kept(tree: SourceTree) -> None:
    """O_NOATIME is refused (EPERM) to whoever does not own the file."""
    os.chmod(write(tree, b"shared", b"x"), 0o644)

    def child() -> None:
        with SourceTree(tree.root) as again, StableReader(again, b"shared") as reader:
            assert content(reader) == b"x"
            assert reader.stable

    as_nobody(child, tree.root)


def test_reading_leaves_the_access_time_alone(tree: SourceTree) -> None:
    path = write(tree, b"file", b"x")
    os.utime(path, ns=(5, LONG_AGO))
    with StableReader(tree, b"file") as reader:
        assert content(reader) == b"x"
    assert os.stat(path).st_atime_ns == 5


def test_closing_twice_is_harmless(tree: SourceTree) -> None:
    write(tree, b"file", b"x")
    reader = StableReader(tree, b"file")
    reader.close()
    reader.close()
