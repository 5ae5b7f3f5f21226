"""Sources that tests make: databases, the clock they are backed up by, and the comparison with what was restored."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.trees import describe
from tests.support.whole import Device

HOUR = 3_600_000_000_000


class Clock:
    """Wall time in ns that a test moves. It starts a day ahead, so nothing in the source is fresh to it."""

    def __init__(self) -> None:
        self.now = time.time_ns() + 24 * HOUR

    def __call__(self) -> int:
        self.now += 1_000_000_000
        return self.now


@contextlib.contextmanager
def database(path: Path, **pragmas: object) -> Iterator[sqlite3.Connection]:
    """A connection that is closed, and so checkpointed, before anything is captured."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name, value in pragmas.items():
            connection.execute(f"PRAGMA {name}={value}")
        yield connection


def fill(path: Path, rows: int, seed: int = 0, **pragmas: object) -> None:
    """A database, or more rows in one."""
    source = random.Random(seed)
    with database(path, **pragmas) as db:
        db.execute("CREATE TABLE IF NOT EXISTS message(id INTEGER PRIMARY KEY, text TEXT, blob BLOB)")
        db.execute("BEGIN")
        for _ in range(rows):
            db.execute(
                "INSERT INTO message(text, blob) VALUES(?,?)", (source.randbytes(20).hex(), source.randbytes(300))
            )
        db.execute("COMMIT")


def back_and_forth(device: Device, source: Path, target: Path) -> None:
    """What is restored equals the source."""
    device.restore(target)
    assert describe(target) == describe(source)
