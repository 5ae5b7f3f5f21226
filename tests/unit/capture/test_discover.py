"""Databases told from files: by content, with their companions, also when the content does not show it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from chatkeep.daemon.capture.database import DatabaseKind
from chatkeep.daemon.capture.discover import Classified, Probe, classify, header_probe
from chatkeep.daemon.capture.errors import EntryVanished, SourceUnreadable
from chatkeep.daemon.capture.tree import Found, Kind, SourceTree
from chatkeep.daemon.capture.walk import walk_directories


def entry(path: bytes, size: int = 4096, kind: Kind = Kind.FILE) -> Found:
    return Found(path, kind, 0o644, 0, 0, size, 8, 0, 0, 1, 1, hash(path))


class Recorded:
    """A probe that knows some databases and notes what it was asked."""

    def __init__(self, pages: Mapping[bytes, int] | None = None) -> None:
        self.pages = pages or {}
        self.asked: list[tuple[bytes, bytes | None]] = []

    def __call__(self, found: Found, wal: Found | None) -> DatabaseKind | None:
        self.asked.append((found.path, wal.path if wal else None))
        page_size = self.pages.get(found.path)
        return DatabaseKind(page_size, opaque=False) if page_size else None


def split(
    entries: list[Found],
    probe: Probe,
    remembered: Mapping[bytes, int] | None = None,
    known: Callable[[Found], bool] = lambda _: False,
) -> Classified:
    return classify(entries, probe, remembered=remembered or {}, known_ordinary=known)


def paths(found: list[Found]) -> list[bytes]:
    return [one.path for one in found]


def test_a_database_takes_its_companions(tmp_path: Path) -> None:
    entries = [
        entry(b"d/chat"),
        entry(b"d/chat-journal"),
        entry(b"d/chat-shm"),
        entry(b"d/chat-wal"),
        entry(b"d/photo"),
    ]
    got = split(entries, Recorded({b"d/chat": 4096}))
    assert paths(got.ordinary) == [b"d/photo"]
    (database,) = got.databases
    assert database == (entries[0], 4096, entries[3], entries[2], entries[1], False)


def test_companions_without_their_database_are_files() -> None:
    entries = [entry(b"gone-wal"), entry(b"gone-shm"), entry(b"text"), entry(b"text-wal"), entry(b"text-journal")]
    got = split(entries, Recorded())
    assert got.databases == []
    assert got.ordinary == entries


def test_the_order_of_the_entries_does_not_matter() -> None:
    """`x-wal` may look like a database itself; beside the database `x` it is SQLite's."""
    entries = [entry(b"x-wal"), entry(b"x")]
    got = split(entries, Recorded({b"x": 512, b"x-wal": 512}))
    assert [(one.found.path, one.wal) for one in got.databases] == [(b"x", entries[0])]
    assert got.ordinary == []


def test_only_files_can_be_databases_or_companions() -> None:
    entries = [
        entry(b"dir", kind=Kind.DIRECTORY),
        entry(b"link", kind=Kind.SYMLINK),
        entry(b"x"),
        entry(b"x-wal", 0, Kind.DIRECTORY),
    ]
    probe = Recorded({b"dir": 4096, b"link": 4096, b"x": 4096})
    got = split(entries, probe)
    assert probe.asked == [(b"x", None)]
    assert paths(got.ordinary) == [b"dir", b"link", b"x-wal"]
    assert got.databases[0].wal is None


def test_small_files_are_not_opened() -> None:
    probe = Recorded({b"small": 512, b"exact": 512})
    got = split([entry(b"exact", 512), entry(b"small", 511)], probe)
    assert probe.asked == [(b"exact", None)]
    assert [one.found.path for one in got.databases] == [b"exact"]


def test_known_files_are_not_opened_again() -> None:
    probe = Recorded()
    got = split(
        [entry(b"photo%d" % number) for number in range(100)], probe, known=lambda found: found.path != b"photo7"
    )
    assert probe.asked == [(b"photo7", None)]
    assert len(got.ordinary) == 100


@pytest.mark.parametrize("suffix", [b"-wal", b"-journal"])
def test_a_known_file_is_looked_at_again_when_sqlite_writes_beside_it(suffix: bytes) -> None:
    probe = Recorded({b"x": 1024})
    got = split([entry(b"x"), entry(b"x" + suffix)], probe, known=lambda _: True)
    assert [path for path, _ in probe.asked] == [b"x"]
    assert [one.page_size for one in got.databases] == [1024]


def test_an_empty_wal_says_nothing() -> None:
    probe = Recorded()
    split([entry(b"x"), entry(b"x-wal", 0), entry(b"y"), entry(b"y-wal", 32)], probe)
    assert (b"x", None) in probe.asked
    assert (b"y", b"y-wal") in probe.asked


def test_a_remembered_database_stays_one_while_its_size_fits() -> None:
    entries = [entry(b"empty", 0), entry(b"fits", 8192), entry(b"fits-shm"), entry(b"odd", 8193)]
    probe = Recorded()
    got = split(entries, probe, remembered={b"empty": 4096, b"fits": 4096, b"odd": 4096}, known=lambda _: True)
    assert [path for path, _ in probe.asked] == [b"fits", b"odd"]  # remembered: asked, whatever else is known
    assert [(*one[:2], one.shm, one.opaque) for one in got.databases] == [(entries[1], 4096, entries[2], True)]
    assert paths(got.ordinary) == [b"empty", b"odd"]


def test_the_probe_knows_better_than_memory() -> None:
    got = split([entry(b"x", 8192)], Recorded({b"x": 8192}), remembered={b"x": 4096})
    assert got.databases[0].page_size == 8192


@pytest.mark.parametrize("refusal", [EntryVanished(path=b"x"), SourceUnreadable(path=b"x", errno=13)])
def test_a_file_that_cannot_be_probed_is_left_to_its_reader(refusal: Exception) -> None:
    fired: list[bytes] = []

    def probe(found: Found, wal: Found | None) -> DatabaseKind | None:
        fired.append(found.path)
        raise refusal

    assert paths(split([entry(b"x")], probe).ordinary) == [b"x"]
    assert split([entry(b"x")], probe, remembered={b"x": 4096}).databases[0].page_size == 4096
    assert fired == [b"x", b"x"]


# --- on real files


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[SourceTree]:
    with SourceTree(os.fsencode(tmp_path)) as opened:
        yield opened


def classified(tree: SourceTree) -> Classified:
    (listing,) = walk_directories(tree)
    return split(listing.entries, header_probe(tree))


def test_real_databases_are_found_whatever_their_names(tree: SourceTree, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "no suffix") as wal_mode:
        wal_mode.execute("PRAGMA page_size = 8192")
        wal_mode.execute("PRAGMA journal_mode = WAL")
        wal_mode.execute("CREATE TABLE t(x)")
    rollback = sqlite3.connect(tmp_path / "photo.jpg")
    rollback.execute("PRAGMA page_size = 1024")
    rollback.execute("CREATE TABLE t(x)")
    rollback.commit()
    (tmp_path / "fake.db").write_bytes(b"not a database" * 100)
    got = classified(tree)
    assert [(one.found.path, one.page_size) for one in got.databases] == [(b"no suffix", 8192), (b"photo.jpg", 1024)]
    wal, shm = got.databases[0].wal, got.databases[0].shm
    assert (wal and wal.path, shm and shm.path) == (b"no suffix-wal", b"no suffix-shm")
    assert paths(got.ordinary) == [b"fake.db"]
    wal_mode.close()
    rollback.close()


def test_an_encrypted_database_is_known_by_its_wal(tree: SourceTree, tmp_path: Path) -> None:
    live = sqlite3.connect(tmp_path / "clear")
    live.execute("PRAGMA journal_mode = WAL")
    live.execute("CREATE TABLE t(x)")
    wal = (tmp_path / "clear-wal").read_bytes()
    live.close()
    for name, size in ((b"opaque", 3 * 4096), (b"stranger", 3 * 4096 + 512)):
        with open(os.path.join(tree.root, name), "wb") as file:
            file.write(os.urandom(size))
        with open(os.path.join(tree.root, name + b"-wal"), "wb") as file:
            file.write(wal)
    got = classified(tree)
    assert [(one.found.path, one.page_size, one.opaque) for one in got.databases] == [
        (b"clear", 4096, False),
        (b"opaque", 4096, True),
    ]
    assert paths(got.ordinary) == [b"stranger", b"stranger-wal"]


def test_a_file_that_vanishes_before_it_is_probed(tree: SourceTree, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4096))
    (listing,) = walk_directories(tree)
    (tmp_path / "file").unlink()
    assert paths(split(listing.entries, header_probe(tree)).ordinary) == [b"file"]
