"""An application that writes: python -m bench.commits DATABASE RECORDS --rate N, until its standard input ends.

It commits one message at a time to a database in WAL mode, with the usual automatic checkpoints, at a steady rate, and
records of each commit when it began, when it was done, and whether it was refused. It never waits for a lock: what an
application with a timeout would feel as a delay is counted as BUSY here.
"""

from __future__ import annotations

import argparse
import gc
import random
import select
import sqlite3
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct("<qqB")
_TABLES = ("message", "messages")
_RECENT = 200


class Commit(NamedTuple):
    """One attempt: CLOCK_MONOTONIC in ns before BEGIN and after COMMIT, and whether SQLite answered BUSY."""

    start: int
    end: int
    busy: bool


@dataclass(frozen=True)
class Shape:
    """The message table: its columns, which one is the row's id, which must be unique."""

    table: str
    columns: tuple[str, ...]
    key: int
    unique: frozenset[int]


def shape_of(connection: sqlite3.Connection) -> Shape:
    """Learn the table from its schema. LookupError without a table of messages."""
    for table in _TABLES:
        columns = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (table,)).fetchall()
        keys = [at for at, (_, key) in enumerate(columns) if key]
        if len(keys) == 1:
            names = tuple(name for name, _ in columns)
            indexes = 'SELECT name FROM pragma_index_list(?) WHERE "unique" = 1'
            unique = {
                names.index(column)
                for (index,) in connection.execute(indexes, (table,)).fetchall()
                for (column,) in connection.execute("SELECT name FROM pragma_index_info(?)", (index,)).fetchall()
            }
            return Shape(table, names, keys[0], frozenset(unique - {keys[0]}))
    raise LookupError("the database has no table of messages")


class Application:
    """Writes messages that are like those there are."""

    def __init__(self, database: Path, seed: int) -> None:
        self._connection = sqlite3.connect(database, isolation_level=None, timeout=0)
        self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._shape = shape_of(self._connection)
        self._rng = random.Random(seed)
        key, table = self._shape.columns[self._shape.key], self._shape.table
        (self._newest,) = self._connection.execute(f"SELECT max({key}) FROM {table}").fetchone()  # noqa: S608
        marks = ", ".join("?" * len(self._shape.columns))
        self._insert = f"INSERT INTO {table} VALUES({marks})"
        self._select = f"SELECT * FROM {table} WHERE {key} >= ? LIMIT 1"  # noqa: S608

    def commit(self) -> Commit:
        """One new message, in one transaction."""
        # Like a recent one: people talk in few chats, about now, so what is new lies close together in every index.
        row = self._like(max(1, self._newest - self._rng.randint(0, _RECENT)))
        start = time.monotonic_ns()
        busy = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(self._insert, row)
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            busy = True
        end = time.monotonic_ns()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        return Commit(start, end, busy)

    def close(self) -> None:
        """Close the database: SQLite puts the log back into the file."""
        self._connection.close()

    def _like(self, number: int) -> Sequence[object]:
        row = list(self._connection.execute(self._select, (number,)).fetchone())
        self._newest += 1
        row[self._shape.key] = self._newest
        for at in self._shape.unique:
            row[at] = self._rng.randbytes(16).hex().upper()
        return row


def read_commits(file: Path) -> list[Commit]:
    """What a writer recorded."""
    raw = file.read_bytes()
    whole = len(raw) - len(raw) % _RECORD.size
    return [Commit(start, end, bool(busy)) for start, end, busy in _RECORD.iter_unpack(raw[:whole])]


def main(arguments: list[str] | None = None) -> int:
    """The command line. Says `ready` when the database is open."""
    parser = argparse.ArgumentParser(prog="commits")
    parser.add_argument("database", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    application = Application(options.database, options.seed)
    # A collection in the middle of a commit would be measured as the database's.
    gc.disable()
    with options.records.open("wb") as records:
        print("ready", flush=True)
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            records.write(_RECORD.pack(*application.commit()))
            due = max(due + 1 / options.rate, time.monotonic())
    application.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
