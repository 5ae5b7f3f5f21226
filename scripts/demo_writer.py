"""The live half of the demonstration's chat application: small transactions, each recorded in a ledger."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from scripts.demo_profile import (
    EPOCH_MS,
    PEOPLE,
    SIGNS,
    add_media,
    message_row,
    open_contacts,
    open_messages,
    sentence,
)
from scripts.demo_state import MODULUS, Ledger, row_digest, state_of

LEDGERS = ("messages", "contacts")  # <name>.db in the profile, <name>.ledger beside it
STOP_CHECK = 0.2  # seconds between looks at the stop file
_STOP = (signal.SIGTERM, signal.SIGINT)


class Book:
    """One database with its digest, kept up to date row by row, and its ledger."""

    def __init__(self, connection: sqlite3.Connection, ledger: Ledger) -> None:
        self.connection = connection
        self._ledger = ledger
        self.slowest_ns = 0  # the longest wait for a commit, from BEGIN on: what a backup must not make long
        state = state_of(connection)
        self.last_id, self._digest = state.last_id, int(state.digest, 16)
        # After a kill this is the state that recovery left: committed, and perhaps not in the ledger yet.
        self._ledger.done(self.last_id, self._digest)

    def put(self, table: str, **row: object) -> None:
        """Inserts one row, or changes the columns given of the row with this `id`."""
        if self.get(table, id=row["id"]):
            self._count(-1, table, id=row["id"])
            changes = ", ".join(f"{name} = ?" for name in row)
            self._do(f"UPDATE {table} SET {changes} WHERE id = ?", *row.values(), row["id"])  # noqa: S608
        else:
            self._do(f"INSERT INTO {table}({', '.join(row)}) VALUES({_marks(row)})", *row.values())
        self._count(1, table, id=row["id"])

    def add(self, table: str, *row: object) -> None:
        """Inserts a whole row."""
        self._do(f"INSERT INTO {table} VALUES({_marks(row)})", *row)
        self._digest += row_digest(table, row)

    def remove(self, table: str, **key: object) -> None:
        """Deletes the rows with this key."""
        self._count(-1, table, **key)
        self._do(f"DELETE FROM {table} WHERE {_where(key)}", *key.values())  # noqa: S608

    def get(self, table: str, **key: object) -> list[tuple[object, ...]]:
        """The rows with this key."""
        return self._do(f"SELECT * FROM {table} WHERE {_where(key)}", *key.values())  # noqa: S608

    def _count(self, sign: int, table: str, **key: object) -> None:
        self._digest += sign * sum(row_digest(table, row) for row in self.get(table, **key))

    def _do(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        return self.connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def transaction(self, *, keep: bool = True) -> Iterator[None]:
        """One transaction, committed and recorded; or rolled back, and then it must never be seen anywhere."""
        before = self.last_id, self._digest
        started = time.monotonic_ns()
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            commits = self.connection.execute("SELECT commits FROM ticks").fetchone()[0]
            self.put("ticks", id=1, commits=commits + 1)  # no two states are equal, so a copy matches one place only
            self._digest %= MODULUS
            if keep:
                self._ledger.begin(self.last_id, self._digest)
                self.connection.execute("COMMIT")
                self._ledger.done(self.last_id, self._digest)
        finally:
            self.slowest_ns = max(self.slowest_ns, time.monotonic_ns() - started)
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
                self.last_id, self._digest = before

    def close(self) -> None:
        """Closes database and ledger."""
        self.connection.close()
        self._ledger.close()


class Writer:
    """The application: `step` does one thing that a person at a chat would cause."""

    def __init__(self, profile: Path, ledgers: Path, seed: int = 1) -> None:
        _refuse_inside(profile, ledgers)
        self._profile = profile
        connections = (open_messages(profile), open_contacts(profile))
        self.books = [
            Book(one, Ledger(ledgers / f"{name}.ledger")) for name, one in zip(LEDGERS, connections, strict=True)
        ]
        self._messages, self._contacts = self.books
        # another sequence for every run over the same profile, yet one that can be had again
        self._rng = random.Random(f"{seed} {self._messages.last_id}")
        (self._media,) = self._messages.connection.execute("SELECT coalesce(max(id), 0) FROM media").fetchone()
        self._steps: tuple[tuple[int, Callable[[], None]], ...] = (
            (60, self._talk),
            (14, self._read),
            (6, self._react),
            (5, self._share),
            (3, self._edit),
            (2, self._delete),
            (3, self._change_mind),
            (5, self._meet),
            (2, self._checkpoint),
        )

    def step(self) -> None:
        """One action, at random."""
        weights, actions = zip(*self._steps, strict=True)
        self._rng.choices(actions, weights)[0]()

    def close(self) -> None:
        """Closes the databases: SQLite puts the WAL back into the file and removes it."""
        for book in self.books:
            book.close()

    def _some_message(self) -> int | None:
        newest = self._messages.last_id
        number = newest - min(int(self._rng.paretovariate(0.5)), newest) + 1
        return number if self._messages.get("messages", id=number) else None

    def _say(self, media: int | None = None) -> None:
        book, rng = self._messages, self._rng
        number = book.last_id = book.last_id + 1
        chat, sender, sent_ms, body, media, uid = message_row(rng, number, media)
        book.put("messages", id=number, chat=chat, sender=sender, sent_ms=sent_ms, body=body, media=media, uid=uid)
        book.add("receipts", number, rng.randint(0, PEOPLE), None)

    def _talk(self) -> None:
        with self._messages.transaction():
            for _ in range(self._rng.randint(1, 5)):
                self._say()

    def _change_mind(self) -> None:
        with self._messages.transaction(keep=False):
            for _ in range(self._rng.randint(1, 40)):
                self._say()

    def _read(self) -> None:
        with self._messages.transaction():
            unread = "SELECT message, reader FROM receipts WHERE read_ms IS NULL ORDER BY message DESC LIMIT 20"
            for message, reader in self._messages.connection.execute(unread).fetchall():
                self._messages.remove("receipts", message=message, reader=reader)
                self._messages.add("receipts", message, reader, EPOCH_MS + self._messages.last_id * 61_000)

    def _react(self) -> None:
        number = self._some_message()
        with self._messages.transaction():
            if number is not None:
                (reaction,) = self._messages.connection.execute(
                    "SELECT coalesce(max(id), 0) + 1 FROM reactions"
                ).fetchone()
                sender, sign = self._rng.randint(0, PEOPLE), self._rng.choice(SIGNS)
                self._messages.put("reactions", id=reaction, message=number, sender=sender, sign=sign)

    def _share(self) -> None:
        """First the file, whole, then the row that refers to it."""
        self._media += 1
        path, size, digest = add_media(self._profile, self._rng, self._media)
        with self._messages.transaction():
            self._messages.put("media", id=self._media, path=path, size=size, sha256=digest)
            self._say(self._media)

    def _edit(self) -> None:
        number = self._some_message()
        with self._messages.transaction():
            if number is not None:
                self._messages.put("messages", id=number, body=sentence(self._rng, 12) + " (edited)")

    def _delete(self) -> None:
        number = self._some_message()
        with self._messages.transaction():
            if number is not None:
                self._messages.remove("receipts", message=number)
                self._messages.remove("reactions", message=number)
                self._messages.remove("messages", id=number)

    def _meet(self) -> None:
        """Somebody was seen, or is new."""
        book, rng = self._contacts, self._rng
        with book.transaction():
            if rng.random() < 0.3:
                book.last_id += 1
                number = f"+99 {rng.randrange(10**9):09d}/{book.last_id}"
                book.put("contacts", id=book.last_id, name=sentence(rng, 1).title(), number=number, about=None)
            else:
                book.put(
                    "contacts", id=rng.randint(1, book.last_id), about=sentence(rng, 3), seen_ms=EPOCH_MS + book.last_id
                )

    def _checkpoint(self) -> None:
        mode = self._rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))
        self._messages.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()


def write(
    profile: Path,
    ledgers: Path,
    *,
    rate: float = 10.0,
    commits: int | None = None,
    stop: Path | None = None,
    seed: int = 1,
    ready: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Writes to the profile, `rate` steps a second (0: as fast as it goes), until SIGTERM, SIGINT, or `stop` exists.

    `commits` bounds the number of steps. Neither `ledgers` nor `stop` may lie in the profile: they would be backed up.
    Returns steps done and the longest commit in microseconds. Raises ValueError.
    """
    if stop is not None:
        _refuse_inside(profile, stop)
    # Blocked and waited for: a signal is then only seen between steps, and ends the wait for the next one at once.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    writer = Writer(profile, ledgers, seed)
    done = 0
    try:
        ready()
        started = time.monotonic()
        while (commits is None or done < commits) and not (stop is not None and stop.exists()):
            wait = max(started + done / rate - time.monotonic(), 0) if rate else 0
            if signal.sigtimedwait(_STOP, min(wait, STOP_CHECK)) is not None:
                break
            if wait <= STOP_CHECK:
                writer.step()
                done += 1
    finally:
        writer.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return {"steps": done, "slowest_us": max(book.slowest_ns for book in writer.books) // 1000}


def _marks(row: Collection[object]) -> str:
    return ", ".join("?" * len(row))


def _where(key: Collection[str]) -> str:
    return " AND ".join(f"{name} = ?" for name in key)


def _refuse_inside(profile: Path, path: Path) -> None:
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(profile)):
        raise ValueError(f"{path} lies within the profile")
