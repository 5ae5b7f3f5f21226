"""What a database is, whether it changed at all, and databases that are unlike the others."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.daemon.capture.buffer import Buffer
from chatkeep.daemon.capture.database import DatabaseFile, DatabaseKind, look, probe
from chatkeep.daemon.capture.digests import DigestTable, lock_page, page_digests
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.capture.errors import SourceMissing
from chatkeep.daemon.capture.layout import PinState
from tests.support.capturing import GENERATION, SEED, Kept, later
from tests.support.sqlite_app import App, Oracle

KEY = "correct horse"


# Is it a database


def test_a_database_is_told_by_its_content(path: Path) -> None:
    with App(path, page_size=8192) as app:
        app.book()
    assert probe(os.fsencode(path)) == DatabaseKind(8192, opaque=False)
    renamed = path.rename(path.with_name("holiday.jpg"))
    assert probe(os.fsencode(renamed)) == DatabaseKind(8192, opaque=False)


@pytest.mark.parametrize(
    "content",
    [b"", b"minutes of the meeting\n" * 50, b"SQLite format 3\0", b"SQLite format 3\0" + bytes(200)],
    ids=["empty", "text", "cut", "zeros"],
)
def test_other_files_are_none_whatever_they_are_called(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert probe(os.fsencode(path)) is None


def test_nothing_is_no_database(path: Path) -> None:
    with pytest.raises(SourceMissing):
        probe(os.fsencode(path))


def test_an_encrypted_database_is_told_by_its_log_or_remembered(path: Path) -> None:
    with App(path, key=KEY) as app:
        app.book()
        assert not path.read_bytes().startswith(b"SQLite")
        assert probe(os.fsencode(path)) == DatabaseKind(4096, opaque=True)
        app.ask("close")
    assert probe(os.fsencode(path)) is None
    assert probe(os.fsencode(path), hint=4096) == DatabaseKind(4096, opaque=True)
    assert probe(os.fsencode(path), hint=65536) is None, "not a whole number of such pages"


# Has it changed


def test_a_look_tells_every_commit_and_nothing_else(path: Path) -> None:
    with App(path) as app:
        app.book()
        before = look(os.fsencode(path), later())
        assert not look(os.fsencode(path)).changed_since(before)
        app.sql("SELECT count(*) FROM ledger")
        assert not look(os.fsencode(path)).changed_since(before)
        app.book()
        assert look(os.fsencode(path)).changed_since(before)


@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE"])
def test_the_signature_of_a_pin_is_that_of_a_look(path: Path, kept: Callable[..., Kept], mode: str) -> None:
    with App(path, journal_mode=mode) as app:
        app.book()
        keeper = kept()
        keeper.capture()
        assert keeper.last is not None
        assert not look(keeper.path).changed_since(keeper.last)
        app.book()
        assert look(keeper.path).changed_since(keeper.last)


def test_a_commit_under_the_pin_is_a_change_after_it(path: Path) -> None:
    with App(path) as app:
        app.book()
        with DatabaseFile(os.fsencode(path), clock=later) as file:
            with file.pin() as pinned:
                app.book()
            assert look(os.fsencode(path)).changed_since(pinned.signature)


# Special databases


def test_the_lock_page_is_zeros_and_never_dirty(path: Path, tmp_path: Path) -> None:
    size, hole = 65536, lock_page(65536)
    with App(path, page_size=size, journal_mode="DELETE") as app:
        app.book()
        app.ask("close")
    small = path.stat().st_size // size
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # up to the lock page, as if large rows had been there
        file.seek(28)
        file.write(struct.pack(">I", hole - 1))
    buffer = Buffer(4 << 20)
    with App(path, wal_autocheckpoint=0) as app, DigestTable(tmp_path / "digests", size, GENERATION) as table:
        table.apply([(small + 1, page_digests(bytes(size), size, SEED) * (hole - 1 - small))])
        app.book(40, pages=40)
        for mode in ("", "TRUNCATE"):
            if mode:
                app.checkpoint(mode)
            with DatabaseFile(os.fsencode(path)) as file:
                dirty = DirtySet()
                mark = file.scan(table, dirty, SEED, buffer)
                with file.pin() as pinned:
                    pinned.complete(table, dirty, mark)
                    assert pinned.page_count > hole + 3
                    assert hole not in dirty
                    assert hole + 1 in dirty
                    assert len(dirty) < 200
                    pinned.read(hole - 1, 3, buffer.view[: 3 * size])
                    assert bytes(buffer.view[size : 2 * size]) == bytes(size)
                    assert bytes(buffer.view[2 * size : 3 * size]) != bytes(size)
                    assert pinned.copy(dirty, buffer).view


def test_an_encrypted_database_is_captured_without_its_key(
    path: Path, tmp_path: Path, kept: Callable[..., Kept], oracle: Oracle
) -> None:
    with App(path, key=KEY, wal_autocheckpoint=20) as app:
        app.book(10)
        keeper = kept()
        for round_ in range(1, 6):
            outcome = keeper.capture()
            assert outcome.exact
            assert b"SQLite format" not in outcome.truth
            (tmp_path / "image.db").write_bytes(keeper.image)
            assert oracle.judge(tmp_path / "image.db", key=KEY) == 10 * round_
            app.book(10)
        app.ask("close")
    outcome = keeper.capture()
    assert outcome.state is PinState.ROLLBACK
    assert outcome.exact


def test_commits_padded_to_sectors_are_counted_once(path: Path, tmp_path: Path, oracle: Oracle) -> None:
    """Without power-safe overwrite SQLite repeats the last frame of a commit to fill a sector."""
    with App(f"file:{path}?psow=0", page_size=512, synchronous="FULL") as app:
        app.book(5)
        assert path.with_name("chat.db-wal").stat().st_size % 4096 < 536, "no padding"
        with Kept(path, tmp_path, 512) as keeper:
            for round_ in range(1, 4):
                outcome = keeper.capture()
                assert outcome.exact
                (tmp_path / "image.db").write_bytes(keeper.image)
                assert oracle.judge(tmp_path / "image.db") == 5 * round_
                app.book(5)


def test_databases_of_old_versions_of_sqlite_have_the_size_of_their_file(path: Path, tmp_path: Path) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(5)
        app.ask("close")
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.seek(28)
        file.write(struct.pack(">I", pages - 1))
        file.seek(92)
        file.write(bytes(4))  # not of the version that counted the pages
    with DatabaseFile(os.fsencode(path)) as database, database.pin() as pinned:
        assert pinned.page_count == pages


def test_the_capture_knows_no_sqlite_library() -> None:
    # One that opened a watched file would drop its owner's locks when it closed it.
    code = "import sys, chatkeep.daemon.capture.database; print(sorted({'sqlite3', '_sqlite3'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == "[]\n"
