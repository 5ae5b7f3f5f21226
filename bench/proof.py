"""Whether a restored tree is what was backed up: nobody is measured for work that came out wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from bench.floor import databases

_STEP = 1 << 20
_COMPANIONS = (b"-wal", b"-shm", b"-journal")


def differences(source: Path, restored: Path) -> list[str]:
    """Every path that is missing, of another kind, or holds other bytes; none means that the trees are equal.

    Databases whose bytes differ are compared row by row: a copy may hold in its file what the source has in its log.
    Logs, and files that only the copy has, are judged by the rows and names that the source has.
    """
    known = {os.fsencode(path.relative_to(source)) for path in databases(source)}
    found = []
    for name in _names(os.fsencode(source)):
        if name.endswith(_COMPANIONS) and name.rsplit(b"-", 1)[0] in known:
            continue
        here, there = os.path.join(os.fsencode(source), name), os.path.join(os.fsencode(restored), name)
        if not _same(here, there) and not (name in known and _same_rows(here, there)):
            found.append(os.fsdecode(name))
    return found


def _names(top: bytes) -> Iterator[bytes]:
    for folder, directories, files in os.walk(top):
        for name in directories + files:
            yield os.path.relpath(os.path.join(folder, name), top)


def _same(here: bytes, there: bytes) -> bool:
    try:
        one, other = os.lstat(here), os.lstat(there)
    except FileNotFoundError:
        return False
    if stat.S_IFMT(one.st_mode) != stat.S_IFMT(other.st_mode):
        return False
    if stat.S_ISLNK(one.st_mode):
        return os.readlink(here) == os.readlink(there)
    if not stat.S_ISREG(one.st_mode):
        return True
    return one.st_size == other.st_size and _same_bytes(here, there)


def _same_bytes(here: bytes, there: bytes) -> bool:
    with open(here, "rb") as one, open(there, "rb") as other:
        while block := one.read(_STEP):
            if block != other.read(_STEP):
                return False
    return True


def _same_rows(here: bytes, there: bytes) -> bool:
    try:
        return _rows(here) == _rows(there)
    except sqlite3.DatabaseError:
        return False


def _rows(path: bytes) -> str:
    """A digest over the schema and all rows of all tables, in the order of their keys."""
    total = hashlib.sha256()
    with contextlib.closing(sqlite3.connect(os.fsdecode(path), isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for row in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"):
            total.update(repr(row).encode())
        listed = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type <> 'virtual' ORDER BY name"
        for (table,) in connection.execute(listed).fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - names from the schema
                total.update(repr(row).encode())
    return total.hexdigest()
