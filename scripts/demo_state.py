"""What a chat database holds, as one number, and whether a copy of it is a state that the writer really committed.

The digest of a database is the sum, modulo 2^256, of the SHA-256 of every row of every table. It does not depend on
the order of rows, so a writer keeps it up to date with each change, and a reader gets the same number from a copy in
one pass.

A ledger is the writer's own record, one line per commit: `monotonic_ns last_id digest`. The same line with ` begun`
at the end is written just before the commit: of a writer that is killed, or still at it, nobody can know whether that
state exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

MODULUS = 1 << 256
BEGUN = "begun"


def row_digest(table: str, row: tuple[object, ...]) -> int:
    """The share of one row in the digest of its database."""
    return int.from_bytes(hashlib.sha256(repr((table, row)).encode()).digest(), "big")


@dataclasses.dataclass(frozen=True)
class State:
    """What a database holds: the last id given to a message or contact, the digest of all rows, rows per table."""

    last_id: int
    digest: str  # 64 hexadecimal digits
    counts: dict[str, int]


def read_state(database: Path) -> State:
    """The state of a database, live or a copy. Nothing is created beside a copy that has no WAL and no journal."""
    with _reading(database) as connection:
        return state_of(connection)


def state_of(connection: sqlite3.Connection) -> State:
    """The same through an open connection."""
    with _one_transaction(connection):
        total, counts = 0, {}
        for table in tables(connection):
            counts[table] = 0
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - names from the schema
                total += row_digest(table, row)
                counts[table] += 1
        return State(last_id(connection), f"{total % MODULUS:064x}", counts)


def tables(connection: sqlite3.Connection) -> list[str]:
    """The tables that hold rows of their own: no virtual tables, and not what the full-text index keeps for itself."""
    listed = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main' ORDER BY name")
    return [name for name, kind in listed if kind == "table" and not name.startswith("sqlite_")]


def last_id(connection: sqlite3.Connection) -> int:
    """The last id given to a message or contact, also when that row was deleted since."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name IN ('messages', 'contacts')").fetchone()
    return int(row[0]) if row else 0


def damage(database: Path) -> list[str]:
    """What SQLite finds wrong with a database: structure, references, full-text index. Empty when it is sound.

    Together with the digest this sees any page of another state, but for one of the full-text index's own table of
    contents (`words_idx`) and free pages: only equality of the files' bytes covers those.
    """
    try:
        with _reading(database) as connection, contextlib.closing(sqlite3.connect(":memory:")) as memory:
            connection.backup(memory)  # the check of a full-text index is a write; the copy must stay as it is
            found = [str(row[0]) for row in memory.execute("PRAGMA integrity_check") if row[0] != "ok"]
            found += [f"dangling reference {row}" for row in memory.execute("PRAGMA foreign_key_check")]
            for (name,) in memory.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%USING fts5%'").fetchall():
                memory.execute(f"INSERT INTO {name}({name}, rank) VALUES('integrity-check', 1)")
            return found
    except sqlite3.DatabaseError as exc:
        return [f"{type(exc).__name__}: {exc}"]


class Ledger:
    """The writer's record of what it committed to one database."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="ascii", buffering=1)  # a line survives the writer's death at once

    def begin(self, last: int, digest: int) -> None:
        """Before COMMIT."""
        self._file.write(f"{time.monotonic_ns()} {last} {digest:064x} {BEGUN}\n")

    def done(self, last: int, digest: int) -> None:
        """After COMMIT returned."""
        self._file.write(f"{time.monotonic_ns()} {last} {digest:064x}\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Match(enum.Enum):
    """How a copy stands to a ledger."""

    COMMITTED = "committed"  # exactly one state that was committed
    COMMITTING = "committing"  # exactly the state whose commit is the ledger's last word
    NONE = "none"  # no state that ever was


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of `compare`; `commit` is the number, from 0, of the matching one of `commits` in the ledger."""

    match: Match
    state: State
    commit: int
    commits: int

    @property
    def equal(self) -> bool:
        """Whether the copy is, row by row, a state that the writer made."""
        return self.match is not Match.NONE


def compare(copy: Path, ledger: Path) -> Verdict:
    """Whether the database `copy` holds exactly one state that the writer of `ledger` committed, and which."""
    state = read_state(copy)
    lines = [line.split() for line in ledger.read_text("ascii").splitlines()]
    committed = [tuple(line[1:3]) for line in lines if len(line) == 3]
    key = (str(state.last_id), state.digest)
    if key in committed:
        return Verdict(Match.COMMITTED, state, committed.index(key), len(committed))
    if lines and lines[-1][3:] == [BEGUN] and tuple(lines[-1][1:3]) == key:
        return Verdict(Match.COMMITTING, state, len(committed), len(committed))
    return Verdict(Match.NONE, state, -1, len(committed))


def media_problems(profile: Path) -> list[str]:
    """The media files that rows of `messages.db` refer to and that are missing, or not what the rows say."""
    found = []
    with _reading(profile / "messages.db") as connection:
        for path, size, digest in connection.execute("SELECT path, size, sha256 FROM media ORDER BY path"):
            file = profile / path
            if not file.is_file():
                found.append(f"{path}: missing")
            elif (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()) != (size, digest):
                found.append(f"{path}: different")
    return found


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below `root` by relative path: mode, owner, mtime, and size with SHA-256, or the target of a link."""
    top = os.fsencode(root)
    described: dict[bytes, tuple[object, ...]] = {b"": _described(top)}
    for folder, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(folder, name)
            described[os.path.relpath(path, top)] = _described(path)
    return described


def _described(path: bytes) -> tuple[object, ...]:
    facts = os.lstat(path)
    common = (stat.filemode(facts.st_mode), facts.st_uid, facts.st_gid, facts.st_mtime_ns)
    if stat.S_ISLNK(facts.st_mode):
        return (*common, os.readlink(path))
    if stat.S_ISREG(facts.st_mode):
        with open(path, "rb") as file:
            return (*common, facts.st_size, hashlib.file_digest(file, "sha256").hexdigest())
    return common


@contextlib.contextmanager
def _reading(database: Path) -> Iterator[sqlite3.Connection]:
    companions = any(database.with_name(database.name + suffix).exists() for suffix in ("-wal", "-journal"))
    mode = "mode=ro" if companions else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def _one_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All tables as of one commit, also while somebody writes; within the caller's transaction if there is one."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
