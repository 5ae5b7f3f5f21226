"""A restored tree is compared: nothing that differs gets away."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.proof import differences


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    (top / "folder/empty").mkdir(parents=True)
    (top / "folder/photo.jpg").write_bytes(bytes(range(256)) * 9000)
    (top / "link").symlink_to("folder/photo.jpg")
    with contextlib.closing(sqlite3.connect(top / "messages.db")) as connection:
        connection.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, body)")
        connection.executemany("INSERT INTO messages(body) VALUES(?)", [(f"hello {n}",) for n in range(1000)])
        connection.commit()
    return top


def copy(source: Path) -> Path:
    restored = source.with_name("restored")
    shutil.copytree(source, restored, symlinks=True)
    return restored


def change_row(top: Path) -> None:
    with contextlib.closing(sqlite3.connect(top / "messages.db")) as connection:
        connection.execute("UPDATE messages SET body = 'goodbye' WHERE id = 500")
        connection.commit()


def change_byte(top: Path) -> None:
    with (top / "folder/photo.jpg").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"!")


def relink(top: Path) -> None:
    (top / "link").unlink()
    (top / "link").symlink_to("folder")


def replace_by_file(top: Path) -> None:
    (top / "folder/empty").rmdir()
    (top / "folder/empty").write_bytes(b"")


def test_equal(source: Path) -> None:
    assert differences(source, copy(source)) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (change_row, "messages.db"),
        (change_byte, "folder/photo.jpg"),
        (relink, "link"),
        (replace_by_file, "folder/empty"),
        (lambda top: (top / "folder/photo.jpg").unlink(), "folder/photo.jpg"),
        (lambda top: (top / "messages.db").unlink(), "messages.db"),
        (lambda top: (top / "messages.db").write_bytes(b"SQLite format 3\0" + bytes(5000)), "messages.db"),
    ],
)
def test_what_differs(source: Path, change: Callable[[Path], object], path: str) -> None:
    restored = copy(source)
    change(restored)
    assert differences(source, restored) == [path]


def test_the_same_rows_in_another_file(source: Path) -> None:
    restored = copy(source)
    with contextlib.closing(sqlite3.connect(restored / "messages.db")) as connection:
        connection.execute("CREATE TABLE more(x)")
        connection.execute("DROP TABLE more")
        connection.execute("VACUUM")
    assert (restored / "messages.db").read_bytes() != (source / "messages.db").read_bytes()
    assert differences(source, restored) == []


def test_rows_that_are_still_in_the_log_count(source: Path) -> None:
    restored = copy(source)
    with contextlib.closing(sqlite3.connect(source / "messages.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE messages SET body = 'late' WHERE id = 3")
        assert (source / "messages.db-wal").stat().st_size > 0
        assert differences(source, restored) == ["messages.db"]
        with contextlib.closing(sqlite3.connect(restored / "messages.db", isolation_level=None)) as other:
            other.execute("UPDATE messages SET body = 'late' WHERE id = 3")
        assert differences(source, restored) == []
