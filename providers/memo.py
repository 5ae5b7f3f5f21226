"""What a provider remembers on this machine: ids that it chose before it used them, uploads that were begun, counts.

A memo is a convenience, never the truth about what is stored: lost, a provider is slower or asks more. Whoever keeps
something in it that a repeated request must not choose anew (the id of an object that is being made) writes it before
the request, which is why `set` and `add` are durable when they return.

Keys are short texts; a provider begins each kind of its own with a word and a colon (`id:`, `upload:`), so that two
kinds do not meet.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol, TypeVar

from chatkeep.config.errors import Disposition
from chatkeep.providers import durable
from chatkeep.providers.base import ProviderError

T = TypeVar("T")

_LOG: Final = logging.getLogger(__name__)
_PATIENCE: Final = 30.0  # seconds to wait for another process, whose transactions take milliseconds
_LOOKS: Final = 0.01  # seconds between two looks whether it is done
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS memo(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_COMPANIONS: Final = ("", "-wal", "-shm", "-journal")  # what SQLite keeps beside a database


class MemoUnusable(ProviderError):
    """The system does not let a memo be read or written: no room, no permission. Parameters: path, errno."""

    code = "memo-unusable"
    disposition = Disposition.NEEDS_USER


class Memo(Protocol):
    """Few small values that outlive the process. Every verb may be called from any thread.

    All raise `MemoUnusable`.
    """

    def get(self, key: str) -> bytes | None:
        """The value, or None."""
        ...

    def set(self, key: str, value: bytes) -> None:
        """Puts a value in place of what was there. Durable on return."""
        ...

    def add(self, key: str, value: bytes) -> bytes:
        """Puts a value where there is none, and returns what stands there now: of several that race, all get the same.

        Durable on return.
        """
        ...

    def change(self, key: str, by: Callable[[bytes | None], bytes]) -> bytes:
        """Puts what `by` makes of the value that is there, and returns it. Nobody writes the key in between.

        `by` may be called more than once, and must not use the memo.
        """
        ...

    def delete(self, key: str) -> None:
        """Removes a value; one that is not there is done."""
        ...

    def items(self, prefix: str) -> list[tuple[str, bytes]]:
        """The keys that begin with `prefix`, in the order of their characters, with their values."""
        ...

    def close(self) -> None:
        """Gives back what is open. Twice is once."""
        ...


class MemoryMemo:
    """Remembers until the process ends: for commands that have no state directory, and for tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    def set(self, key: str, value: bytes) -> None:
        with self._lock:
            self._values[key] = bytes(value)

    def add(self, key: str, value: bytes) -> bytes:
        with self._lock:
            return self._values.setdefault(key, bytes(value))

    def change(self, key: str, by: Callable[[bytes | None], bytes]) -> bytes:
        with self._lock:
            self._values[key] = made = by(self._values.get(key))
            return made

    def delete(self, key: str) -> None:
        with self._lock:
            self._values.pop(key, None)

    def items(self, prefix: str) -> list[tuple[str, bytes]]:
        with self._lock:
            return sorted((key, value) for key, value in self._values.items() if key.startswith(prefix))

    def close(self) -> None:
        """Nothing is open."""


class FileMemo:
    """A memo in a file that several processes use at once (SQLite). Only this user may read it.

    A file that is damaged is set aside beside itself and an empty one begun: what is in it can be found out again.

    Args:
        path: the file; it and its directory are made when they are not there.

    Attributes:
        set_aside: where a damaged file was put that was found by this object; None if there was none.

    Raises:
        MemoUnusable: the system refuses the file.
    """

    def __init__(self, path: Path) -> None:
        self.set_aside: Path | None = None
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened = (0, 0)  # device and inode of the file that the connection has
        self._whole(lambda _connection: None)

    def get(self, key: str) -> bytes | None:
        found = self._whole(lambda c: c.execute("SELECT value FROM memo WHERE key=?", (key,)).fetchone())
        return None if found is None else bytes(found[0])

    def set(self, key: str, value: bytes) -> None:
        self._whole(lambda c: c.execute("INSERT OR REPLACE INTO memo VALUES(?,?)", (key, value)))

    def add(self, key: str, value: bytes) -> bytes:
        def step(connection: sqlite3.Connection) -> bytes:
            connection.execute("INSERT OR IGNORE INTO memo VALUES(?,?)", (key, value))
            return bytes(connection.execute("SELECT value FROM memo WHERE key=?", (key,)).fetchone()[0])

        return self._whole(step)

    def change(self, key: str, by: Callable[[bytes | None], bytes]) -> bytes:
        def step(connection: sqlite3.Connection) -> bytes:
            found = connection.execute("SELECT value FROM memo WHERE key=?", (key,)).fetchone()
            made = by(None if found is None else bytes(found[0]))
            connection.execute("INSERT OR REPLACE INTO memo VALUES(?,?)", (key, made))
            return made

        return self._whole(step)

    def delete(self, key: str) -> None:
        self._whole(lambda c: c.execute("DELETE FROM memo WHERE key=?", (key,)))

    def items(self, prefix: str) -> list[tuple[str, bytes]]:
        query = "SELECT key, value FROM memo WHERE key >= ? AND substr(key, 1, ?) = ? ORDER BY key"
        found = self._whole(lambda c: c.execute(query, (prefix, len(prefix), prefix)).fetchall())
        return [(key, bytes(value)) for key, value in found]

    def close(self) -> None:
        with self._lock:
            self._shut()

    def _whole(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction; once more with an empty file when this one turns out to be damaged."""
        with self._lock:
            try:
                return self._once(step)
            except sqlite3.DatabaseError as problem:
                if not _damaged(problem):
                    raise self._unusable(problem) from problem
                cause = problem
            except OSError as problem:
                raise self._unusable(problem) from problem
            try:
                self._begin_anew(cause)
                return self._once(step)
            except (sqlite3.Error, OSError) as problem:
                raise self._unusable(problem) from problem

    def _once(self, step: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is not None and _identity(self._path) != self._opened:
            self._shut()  # another process set the file aside, or somebody removed it: what is written there is lost
        connection = self._connection or self._open()
        try:
            # IMMEDIATE: a step that reads and then writes takes its turn at the beginning. Begun as a reader, it could
            # not become a writer after another one wrote, however long it waits.
            connection.execute("BEGIN IMMEDIATE")
            done = step(connection)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        return done

    def _open(self) -> sqlite3.Connection:
        durable.make_directories(self._path.parent)  # its parents too are this user's alone
        with self._alone():
            # Made by hand: SQLite would make it with the mode that the umask leaves, and its companions after it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(self._path, _PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                # FULL: a commit that returned survives a power cut. With less, an id could be chosen a second time.
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute(_SCHEMA)
            except BaseException:
                connection.close()
                raise
            finally:
                self._opened = _identity(self._path)
        self._connection = connection
        return connection

    def _begin_anew(self, cause: sqlite3.DatabaseError) -> None:
        self._shut()
        with self._alone():
            if _identity(self._path) != self._opened:
                return  # another process was first, and what stands there now is not what was found damaged
            aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
            # The companions first: beside a new file of the old name they would be taken for its own.
            for companion in reversed(_COMPANIONS):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}{companion}", f"{aside}{companion}")
            self.set_aside = aside
        _LOG.warning("memo-damaged: %s (%s); begun anew, the old one is %s", self._path, cause, aside)

    def _shut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process opens or sets aside the file."""
        descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _unusable(self, problem: Exception) -> MemoUnusable:
        number = problem.errno if isinstance(problem, OSError) else _NUMBERS.get(_primary(problem), errno.EIO)
        return MemoUnusable(path=str(self._path), errno=number or errno.EIO)


def _take(descriptor: int) -> None:
    """Waits for the lock as long as SQLite waits for another process, and then raises OSError: one that was stopped
    while it had it must not stop all others."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from None
        time.sleep(_LOOKS)


_NUMBERS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
}


def _primary(problem: Exception) -> int:
    """The first byte of an extended result code says what kind it is: https://sqlite.org/rescode.html"""
    return getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _damaged(problem: sqlite3.DatabaseError) -> bool:
    # ERROR: a file of SQLite that is not a memo (no such column).
    return _primary(problem) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return found.st_dev, found.st_ino
