"""An application with a SQLite database, in a process of its own; and, in another, the oracle that judges images.

The tests' own process must not open a watched file with SQLite: closing it would drop the locks of the capture, and the
other way round. So this file is both the client (`App`, `Oracle`) and the program that they start.

The application keeps books. Every transaction appends a row to `ledger` that carries the number and the hash of the row
before, moves money between accounts, and churns the table `filler`. An image of a moment is right if and only if SQLite
finds it sound, the ledger is an unbroken chain from 1, and the money is all there.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Self

ACCOUNTS = 40
MONEY = 1000 * ACCOUNTS
ROWS = 1500  # about which the churn keeps: some megabytes


class Refused(Exception):
    """What SQLite answered, in the other process: the type's name and the text."""


class _Program:
    """One of our programs, asked one thing at a time."""

    def __init__(self, role: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
        )

    def ask(self, verb: str, **arguments: Any) -> Any:
        self.send(verb, **arguments)
        return self.answer()

    def send(self, verb: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, arguments]).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Refused("the process is gone")
        kind, value = json.loads(line)
        if kind != "ok":
            raise Refused(value)
        return value

    def kill(self) -> None:
        """As the kernel does when memory is short: at this instant, whatever it is doing."""
        self._process.kill()
        self._reap()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process.poll() is None and self._process.stdin is not None:
            self._process.stdin.close()
        self._reap()

    def _reap(self) -> None:
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class App(_Program):
    """The application. It runs until it is closed or killed."""

    def __init__(self, path: str | os.PathLike[str], **settings: Any) -> None:
        super().__init__("app")
        try:
            self.ask("open", path=os.fspath(path), **settings)
        except BaseException:
            self.kill()
            raise

    def book(self, times: int = 1, pages: int = 2, **how: Any) -> int:
        """So many transactions, each changing about so many pages; the number of the last entry."""
        number: int = self.ask("book", times=times, pages=pages, **how)
        return number

    def sql(self, text: str) -> list[list[Any]]:
        rows: list[list[Any]] = self.ask("sql", text=text)
        return rows

    def checkpoint(self, mode: str = "TRUNCATE") -> list[int]:
        """[busy, frames in the log, frames in the database file]."""
        row: list[int] = self.sql(f"PRAGMA wal_checkpoint({mode})")[0]
        return row


class Oracle(_Program):
    """Judges an image that lies by itself in a directory of the test."""

    def __init__(self) -> None:
        super().__init__("oracle")

    def judge(self, path: str | os.PathLike[str], **settings: Any) -> int:
        """The number of the last entry. Refused, with what is wrong, when it is no image of a moment."""
        number: int = self.ask("judge", path=os.fspath(path), **settings)
        return number


# What follows runs in the other process


class _Books:
    def __init__(self) -> None:
        self._db: Any = None
        self._random = random.Random(0)
        self._acknowledge: int | None = None

    def open(
        self, path: str, seed: int = 0, key: str | None = None, acknowledge: str | None = None, **pragmas: Any
    ) -> None:
        self._random.seed(seed)
        if acknowledge is not None:
            self._acknowledge = os.open(acknowledge, os.O_WRONLY | os.O_CREAT, 0o600)
        module: Any = import_module("sqlite3" if key is None else "sqlcipher3.dbapi2")
        self._db = module.connect(path, isolation_level=None, timeout=20, uri=path.startswith("file:"))
        if key is not None:
            self._db.execute(f"PRAGMA key='{key}'")
        mode = pragmas.pop("journal_mode", "WAL")
        pragmas.setdefault("synchronous", "NORMAL")
        for name, value in pragmas.items():
            self._db.execute(f"PRAGMA {name}={value}")
        self._db.execute(f"PRAGMA journal_mode={mode}")
        if not self._db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'").fetchone()[0]:
            self._db.executescript(
                "BEGIN; CREATE TABLE ledger (n INTEGER PRIMARY KEY, link BLOB);"
                "CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER);"
                "CREATE TABLE filler (id INTEGER PRIMARY KEY, tag TEXT, body BLOB);"
                "CREATE INDEX by_tag ON filler (tag);"
                f"WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < {ACCOUNTS})"
                "INSERT INTO account SELECT i, 1000 FROM k; COMMIT;"
            )
        # What an application committed and did not live to acknowledge, the next one has seen.
        self._acknowledged(self._last()[0])

    def book(self, times: int, pages: int, end: str = "COMMIT") -> int:
        number = 0
        for _ in range(times):
            self._db.execute("BEGIN IMMEDIATE")
            number = self._write(pages)
            if end:
                self._db.execute(end)
            if end == "COMMIT":
                self._acknowledged(number)
        return number

    def _acknowledged(self, number: int) -> None:
        if self._acknowledge is not None:
            os.pwrite(self._acknowledge, struct.pack("<Q", number), 0)

    def _last(self) -> tuple[int, bytes]:
        return self._db.execute("SELECT n, link FROM ledger ORDER BY n DESC LIMIT 1").fetchone() or (0, b"")

    def _write(self, pages: int) -> int:
        db, dice = self._db, self._random
        last, link = self._last()
        link = hashlib.sha256(link + struct.pack("<Q", last + 1)).digest()
        db.execute("INSERT INTO ledger VALUES (?, ?)", (last + 1, link))
        amount = dice.randrange(100)
        giver, taker = dice.sample(range(1, ACCOUNTS + 1), 2)
        db.execute("UPDATE account SET money = money - ? WHERE id = ?", (amount, giver))
        db.execute("UPDATE account SET money = money + ? WHERE id = ?", (amount, taker))
        rows, number = db.execute("SELECT coalesce(max(id), 0), count(*) FROM filler").fetchone()
        for _ in range(pages):
            choice = dice.random()
            if choice < (0.5 if number < ROWS else 0.1) or not rows:
                body = dice.randbytes(dice.randrange(100, 3000))
                db.execute("INSERT INTO filler (tag, body) VALUES (?, ?)", (dice.randbytes(8).hex(), body))
            elif choice < 0.75:
                tag = dice.randbytes(8).hex()
                db.execute("UPDATE filler SET tag = ? WHERE id = ?", (tag, dice.randint(1, rows)))
            else:
                first = dice.randint(1, rows)
                db.execute("DELETE FROM filler WHERE id BETWEEN ? AND ?", (first, first + dice.randrange(3)))
        return last + 1

    def sql(self, text: str) -> list[list[Any]]:
        return [list(row) for row in self._db.execute(text).fetchall()]

    def storm(self, seed: int, steps: int, switch: bool = False) -> int:
        """Random work, as fast as it goes: everything an application may do to its database.

        `switch`: it also changes the journal mode, if it is alone.
        """
        dice = random.Random(seed)
        for _ in range(steps):
            self._gust(dice)
            if switch and dice.random() < 0.05:
                with suppress(self._db.OperationalError):
                    self._db.execute(f"PRAGMA journal_mode={dice.choice(('WAL', 'DELETE', 'PERSIST'))}").fetchall()
        return self._last()[0]

    def _gust(self, dice: random.Random) -> None:
        choice = dice.random()
        if choice < 0.70:
            self.book(dice.randrange(1, 6), dice.choice((1, 2, 2, 5, 40)))
        elif choice < 0.82:
            self.book(1, dice.choice((2, 60)), end="ROLLBACK")
        elif choice < 0.94:
            self._db.execute(
                f"PRAGMA wal_checkpoint({dice.choice(('PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'))})"
            ).fetchall()
        elif choice < 0.96:
            self._db.execute("DELETE FROM filler WHERE id % 3 = ?", (dice.randrange(3),))
        elif choice < 0.98:
            self._db.execute("VACUUM")
        else:
            self._db.execute(f"PRAGMA cache_size={dice.choice((5, 20, 2000))}")

    def close(self) -> None:
        self._db.close()


def _judge(path: str, key: str | None = None) -> int:
    module: Any = import_module("sqlite3" if key is None else "sqlcipher3.dbapi2")
    db = module.connect(path)
    try:
        if key is not None:
            db.execute(f"PRAGMA key='{key}'")
        verdict = db.execute("PRAGMA integrity_check").fetchall()
        if verdict != [("ok",)]:
            raise ValueError(f"integrity: {verdict[:3]}")
        link, expected = b"", 0
        for number, found in db.execute("SELECT n, link FROM ledger ORDER BY n"):
            expected += 1
            link = hashlib.sha256(link + struct.pack("<Q", expected)).digest()
            if (number, found) != (expected, link):
                raise ValueError(f"ledger: {number} where {expected} belongs")
        money = db.execute("SELECT sum(money), count(*) FROM account").fetchone()
        if money != (MONEY, ACCOUNTS):
            raise ValueError(f"money: {money}")
        return expected
    finally:
        db.close()


def _settle(path: str) -> None:
    """Recover, and bring everything that is committed into the database file."""
    db = sqlite3.connect(path)
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    db.close()
    if busy:
        raise ValueError("busy")


def _serve(verbs: dict[str, Callable[..., Any]]) -> None:
    for line in sys.stdin.buffer:
        verb, arguments = json.loads(line)
        try:
            reply = ["ok", verbs[verb](**arguments)]
        except Exception as exc:  # whatever it is, the test is told
            reply = ["error", f"{type(exc).__name__}: {exc}"]
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    if sys.argv[1] == "oracle":
        _serve({"judge": _judge, "settle": _settle})
    else:
        books = _Books()
        _serve({name: getattr(books, name) for name in ("open", "book", "sql", "storm", "close")})
