"""The one connection to the state database: serialised, every statement in a transaction, errors translated."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from chatkeep.daemon.state.errors import StateDamaged, StateError, StateForeign, StateFull, StateUnusable
from chatkeep.daemon.state.schema import SCHEMA, SINCE_1, VERSION

_REFUSED: Final = {
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


class Connection:
    """One connection, used from any thread, one statement or transaction at a time.

    There is no second one: two connections that checkpoint and write at once can meet SQLite's WAL-reset race.
    """

    def __init__(self, path: Path, vault: bytes, device: bytes) -> None:
        self._directory = path.parent
        self.serial = threading.RLock()
        self._connection = _connect(path, vault, device)

    def close(self) -> None:
        """Release the database."""
        with self.serial:
            self._connection.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Every row of a query."""
        with self.serial, _translated(self._directory):
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, durably, or none of it."""
        with self.serial, _translated(self._directory):
            try:
                # Inside: an interrupt right after it must not leave the transaction open for the next one to fail on.
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _connect(path: Path, vault: bytes, device: bytes) -> sqlite3.Connection:
    with _translated(path.parent):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            connection.execute("PRAGMA journal_mode=WAL")
            # FULL: a commit that returned survives power loss. With less, an acknowledged snapshot could be forgotten.
            connection.execute("PRAGMA synchronous=FULL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version in (0, 1):
                _bring_up(connection, version, [("vault", vault), ("device", device)])
            elif version != VERSION:
                raise StateForeign(path=str(path), found=f"version {version}", expected=f"version {VERSION}")
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            for key, expected in (("vault", vault), ("device", device)):
                if meta.get(key) != expected:
                    raise StateForeign(
                        path=str(path),
                        found=f"{key} {bytes(meta.get(key, b'')).hex()}",
                        expected=f"{key} {expected.hex()}",
                    )
            return connection
        except BaseException:
            connection.close()
            raise


def _bring_up(connection: sqlite3.Connection, version: int, rows: list[tuple[str, bytes]]) -> None:
    """Make the tables, or those that an older version lacks, in one transaction: killed in it, the next start does."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in (SCHEMA + SINCE_1 if version == 0 else SINCE_1).split(";"):
        connection.execute(statement)
    if version == 0:
        rows = [*rows, ("generation", secrets.token_bytes(16))]
        connection.executemany("INSERT INTO meta VALUES(?,?)", rows)
    connection.execute(f"PRAGMA user_version={VERSION}")
    connection.execute("COMMIT")


@contextlib.contextmanager
def _translated(directory: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _refusal(error, directory) from error


def _refusal(error: sqlite3.Error, directory: Path) -> StateError:
    """What SQLite met. Only what it read and found wrong is damage: records are set aside for that, so a system that
    merely refuses must never look like it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code in _REFUSED and _is_full(directory)):
        return StateFull(path=str(directory))
    if code in _REFUSED:
        return StateUnusable(path=str(directory), errno=_REFUSED[code])
    for_good = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return StateDamaged(path=str(directory / "state.db"), reason=str(error), for_good=for_good)


def _is_full(directory: Path) -> bool:
    # SQLite tells a full disk as such only when a write of its main file met it; a sync or a new log are "I/O errors".
    try:
        room = os.statvfs(directory)
    except OSError:
        return False
    return room.f_bavail == 0 or (room.f_files > 0 and room.f_favail == 0)
