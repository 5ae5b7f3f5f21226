"""The walk, on real directories."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.capture.errors import EntryVanished, SourceMissing, SourceUnreadable
from chatkeep.daemon.capture.exclude import Exclusions
from chatkeep.daemon.capture.tree import MAX_PATH, Found, Kind, SourceTree
from chatkeep.daemon.capture.walk import LISTINGS, Problem, Reason, walk, walk_directories
from tests.support.nobody import as_nobody


@pytest.fixture
def root(tmp_path: Path) -> bytes:
    source = tmp_path / "source"
    source.mkdir()
    return os.fsencode(source)


@pytest.fixture
def tree(root: bytes) -> Iterator[SourceTree]:
    with SourceTree(root) as opened:
        yield opened


def make(root: bytes, path: bytes, content: bytes = b"x") -> bytes:
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(content)
    return full


def everything(tree: SourceTree, *patterns: str) -> tuple[dict[bytes, Found], list[Problem]]:
    found: dict[bytes, Found] = {}
    problems: list[Problem] = []
    for item in walk(tree, Exclusions(patterns)):
        if isinstance(item, Problem):
            problems.append(item)
        else:
            assert item.path not in found
            found[item.path] = item
    return found, problems


def test_order_depends_on_names_only(root: bytes, tree: SourceTree) -> None:
    names = [b"b", b"a.x", b"a/2", b"a/1/z", b"a/1/y", b"B", b"\xff\xfe", b"c/only"]
    shuffled = random.Random(20).sample(names, len(names))
    for name in shuffled:
        make(root, name)
    in_order = [item.path for item in walk(tree)]
    assert in_order == [b"", b"B", b"a", b"a.x", b"b", b"c", b"\xff\xfe", b"a/1", b"a/2", b"a/1/y", b"a/1/z", b"c/only"]


def test_facts_are_those_of_lstat(root: bytes, tree: SourceTree) -> None:
    full = make(root, b"dir/file", b"hello")
    os.chmod(full, 0o4640)
    os.utime(full, ns=(1, -5_000_000_123))
    os.link(full, os.path.join(root, b"dir/second"))
    found, problems = everything(tree)
    facts = os.lstat(full)
    one = found[b"dir/file"]
    assert one[:5] == (b"dir/file", Kind.FILE, 0o4640, facts.st_uid, facts.st_gid)
    assert one[5:10] == (5, facts.st_blocks, -5_000_000_123, facts.st_ctime_ns, 2)
    assert one[10:] == (facts.st_dev, facts.st_ino)
    assert found[b"dir/second"]._replace(path=one.path) == one
    assert found[b"dir"].kind is Kind.DIRECTORY
    assert problems == []


def test_names_are_raw_bytes(root: bytes, tree: SourceTree) -> None:
    composed, decomposed = "\u00e9".encode(), "e\u0301".encode()
    names = [b"\xff\xfe", b"line\nbreak", b"n" * 255, b" ", b"-rf", b"*", b"\xf0\x9f\x92\xac", composed, decomposed]
    for name in names:
        make(root, name)
    found, problems = everything(tree)
    assert sorted(found) == sorted([b"", *names])
    assert problems == []


def test_links_are_entries_and_never_followed(root: bytes, tree: SourceTree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private").touch()
    os.symlink(b".", os.path.join(root, b"loop"))
    os.symlink(b"dangling target", os.path.join(root, b"nowhere"))
    os.symlink(os.fsencode(outside), os.path.join(root, b"out"))
    found, problems = everything(tree)
    assert {path: one.kind for path, one in found.items() if path} == dict.fromkeys(
        (b"loop", b"nowhere", b"out"), Kind.SYMLINK
    )
    assert problems == []


def test_a_link_as_the_source_is_followed_once(root: bytes, tmp_path: Path) -> None:
    make(root, b"file")
    os.symlink(root, tmp_path / "link")
    with SourceTree(os.fsencode(tmp_path / "link")) as tree:
        assert set(everything(tree)[0]) == {b"", b"file"}


def test_special_files_are_reported_and_not_opened(root: bytes, tree: SourceTree) -> None:
    os.mkfifo(os.path.join(root, b"fifo"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.join(root, b"socket"))
        found, problems = everything(tree)
    assert set(found) == {b""}
    assert problems == [Problem(b"fifo", Reason.SPECIAL), Problem(b"socket", Reason.SPECIAL)]
    assert not any(problem.hides_content for problem in problems)


def test_excluded_directories_are_not_entered(root: bytes, tree: SourceTree) -> None:
    for name in (b"keep/a", b"keep/a.tmp", b"cache/deep/b", b"x/cache/c"):
        make(root, name)
    os.mkdir(os.path.join(root, b"cache/locked"), 0)
    found, problems = everything(tree, "cache/", "**/*.tmp")
    assert set(found) == {b"", b"keep", b"keep/a", b"x", b"x/cache", b"x/cache/c"}
    assert problems == []


def test_a_listing_holds_one_directory(root: bytes, tree: SourceTree) -> None:
    for name in (b"a/1", b"a/2", b"b"):
        make(root, name)
    listings = list(walk_directories(tree))
    assert [(one.directory.path, [found.path for found in one.entries]) for one in listings] == [
        (b"", [b"a", b"b"]),
        (b"a", [b"a/1", b"a/2"]),
    ]


def test_unreadable_directories_are_problems_and_the_rest_is_walked(root: bytes) -> None:
    make(root, b"locked/file")
    make(root, b"names only/file")
    make(root, b"open/file")
    os.chmod(os.path.join(root, b"locked"), 0o000)
    os.chmod(os.path.join(root, b"names only"), 0o444)

    def child() -> None:
        with SourceTree(root) as tree:
            found, problems = everything(tree)
        assert set(found) == {b"", b"locked", b"names only", b"open", b"open/file"}
        assert [(one.path, one.reason, one.hides_content) for one in problems] == [
            (b"locked", Reason.UNREADABLE, True),
            (b"names only/file", Reason.UNREADABLE, True),
        ]
        assert all(one.errno for one in problems)

    as_nobody(child, root)


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("absent", "file"):
        with pytest.raises(SourceMissing):
            SourceTree(os.fsencode(tmp_path / name))


def test_a_source_that_refuses(root: bytes) -> None:
    os.chmod(root, 0o000)

    def child() -> None:
        with pytest.raises(SourceUnreadable):
            SourceTree(root)

    as_nobody(child, os.path.dirname(root))


def test_a_source_that_cannot_be_listed_is_never_empty(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    fired: list[object] = []

    def refuse(fd: int) -> list[str]:
        fired.append(fd)
        raise OSError(5, "injected EIO")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(SourceUnreadable):
        list(walk(tree))
    assert fired


def test_a_directory_replaced_by_a_link_does_not_lead_outside(root: bytes, tree: SourceTree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner" / "private").touch()
    make(root, b"a/inner/own")
    make(root, b"b/own")
    listings = walk_directories(tree)
    assert [one.directory.path for one in (next(listings), next(listings))] == [b"", b"a"]
    # now a/inner and b are found, and not yet listed: one parent and one directory become links
    os.rename(os.path.join(root, b"a"), os.path.join(root, b"moved"))
    os.symlink(os.fsencode(outside), os.path.join(root, b"a"))
    os.rename(os.path.join(root, b"b"), os.path.join(root, b"moved b"))
    os.symlink(os.fsencode(outside / "inner"), os.path.join(root, b"b"))
    rest = list(listings)
    assert [(one.directory.path, one.entries) for one in rest] == [(b"a/inner", []), (b"b", [])]
    assert [(one.path, one.reason, one.hides_content) for two in rest for one in two.problems] == [
        (b"a/inner", Reason.CHANGED, True),
        (b"b", Reason.CHANGED, True),
    ]


def test_a_directory_removed_while_walking(root: bytes, tree: SourceTree) -> None:
    os.mkdir(os.path.join(root, b"a"))
    make(root, b"b/file")
    listings = walk_directories(tree)
    next(listings)
    os.rmdir(os.path.join(root, b"a"))
    rest = list(listings)
    assert [(one.directory.path, [problem.reason for problem in one.problems]) for one in rest] == [
        (b"a", [Reason.CHANGED]),
        (b"b", []),
    ]


class Interference:
    """Lets `act` run between the listing of names and the first stat, `times` times; counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int, act: object) -> None:
        self.fired = 0
        real = os.listdir

        def listdir(fd: int) -> list[str]:
            names = real(fd)
            if self.fired < times:
                self.fired += 1
                assert callable(act)
                act()
            return names

        monkeypatch.setattr(os, "listdir", listdir)


@pytest.mark.parametrize("traced", [True, False])
def test_a_file_renamed_while_its_directory_is_listed_is_found(
    root: bytes, tree: SourceTree, monkeypatch: pytest.MonkeyPatch, traced: bool
) -> None:
    """Untraced: within one step of the clock, so that the directory's own timestamp does not tell."""
    full = make(root, b"photo")
    before = os.stat(root)

    def rename() -> None:
        os.rename(full, os.path.join(root, b"renamed"))
        if not traced:
            os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))

    fault = Interference(monkeypatch, 1, rename)
    found, problems = everything(tree)
    assert fault.fired == 1
    assert set(found) == {b"", b"renamed"}
    assert problems == []


def test_a_directory_that_never_rests_is_taken_as_it_is(
    root: bytes, tree: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(root, b"steady")
    names = iter(range(100))
    fault = Interference(monkeypatch, 100, lambda: make(root, b"new %d" % next(names)))
    found, problems = everything(tree)
    assert fault.fired == LISTINGS
    assert b"steady" in found
    assert problems == []


def test_a_file_that_vanishes_each_time_is_skipped(
    root: bytes, tree: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    victims = [make(root, b"victim %d" % number) for number in range(LISTINGS)]
    make(root, b"steady")
    fault = Interference(monkeypatch, LISTINGS, lambda: os.unlink(victims.pop()))
    found, problems = everything(tree)
    assert fault.fired == LISTINGS
    assert set(found) == {b"", b"steady"}
    assert problems == []


def test_too_long_paths_are_reported(root: bytes, tree: SourceTree) -> None:
    here = os.open(root, os.O_RDONLY)
    path = b""
    while len(path) <= MAX_PATH:
        name = b"d" * 200
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, path = inner, path + b"/" * bool(path) + name
    os.close(here)
    found, problems = everything(tree)
    assert problems == [Problem(path, Reason.TOO_LONG)]
    assert max(map(len, found)) <= MAX_PATH
    assert len(found) == path.count(b"/") + 1


def test_another_file_system_below_is_noted_and_walked(
    root: bytes, tree: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real mount needs privileges; here one directory's device number differs, as it does at a mount."""
    make(root, b"disk/file")
    real_stat, real_fstat = os.stat, os.fstat
    inodes = {os.stat(os.path.join(root, name)).st_ino for name in (b"disk", b"disk/file")}

    def elsewhere(facts: os.stat_result) -> os.stat_result:
        if facts.st_ino not in inodes:
            return facts
        fields = {name: getattr(facts, name) for name in dir(facts) if name.startswith("st_")}
        return os.stat_result(
            [facts[0], facts[1], facts.st_dev + 1, *facts[3:]], {**fields, "st_dev": facts.st_dev + 1}
        )

    monkeypatch.setattr(os, "stat", lambda *args, **names: elsewhere(real_stat(*args, **names)))
    monkeypatch.setattr(os, "fstat", lambda fd: elsewhere(real_fstat(fd)))
    found, problems = everything(tree)
    assert set(found) == {b"", b"disk", b"disk/file"}
    assert problems == [Problem(b"disk", Reason.MOUNTED)]
    assert not problems[0].hides_content


def test_ten_thousand_files(root: bytes, tree: SourceTree) -> None:
    for folder in range(10):
        os.mkdir(os.path.join(root, b"%d" % folder))
        for number in range(1000):
            os.close(os.open(os.path.join(root, b"%d/%d" % (folder, number)), os.O_CREAT | os.O_WRONLY))
    before = set(os.listdir("/proc/self/fd"))
    found, problems = everything(tree)
    assert len(found) == 10_011
    assert problems == []
    assert set(os.listdir("/proc/self/fd")) == before  # no descriptor stays behind


def test_tree_reaches_nothing_through_links(root: bytes, tree: SourceTree, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "private").touch()
    os.symlink(os.fsencode(tmp_path / "outside"), os.path.join(root, b"out"))
    for path in (b"out/private", b"out", b"absent", b"absent/file"):
        with pytest.raises(EntryVanished):
            tree.open(path)
    assert tree.stat(b"out").kind is Kind.SYMLINK
    with pytest.raises(EntryVanished):
        tree.stat(b"out/private")
    make(root, b"file")
    with pytest.raises(EntryVanished):
        tree.readlink(b"file")
