"""An application whose every committed state is known from the number of its messages: what a restored copy holds is
one of those states, or it is none.

Run as a process of its own, since SQLite's locks are of a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.sources import database

TOP: Final = Path(__file__).resolve().parents[2]
KEPT: Final = 200
PICTURE: Final = 20_000


def text(number: int) -> str:
    """Of a message."""
    return hashlib.sha256(b"%d" % number).hexdigest() * 6


def picture(number: int) -> bytes:
    """That comes with a message."""
    return number.to_bytes(8, "big") + random.Random(number).randbytes(PICTURE)


def begin(source: Path) -> None:
    """The application's files before its first message."""
    with database(source / "messages.db", journal_mode="WAL", page_size=1024) as db:
        db.execute("CREATE TABLE message(id INTEGER PRIMARY KEY, text TEXT)")
        db.execute("CREATE TABLE counter(n INTEGER)")
        db.execute("INSERT INTO counter VALUES(0)")
    (source / "picture").write_bytes(picture(0))


def committed(copy: Path) -> int:
    """The number of messages of a restored copy, which must be what the application had committed then."""
    with database(copy / "messages.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (count,) = db.execute("SELECT n FROM counter").fetchone()
        found = db.execute("SELECT id, text FROM message ORDER BY id").fetchall()
    first = max(1, count - KEPT + 1)
    assert found == [(number, text(number)) for number in range(first, count + 1)], f"not as it was at {count}"
    seen = (copy / "picture").read_bytes()
    assert seen == picture(int.from_bytes(seen[:8], "big")), "a picture that there never was"
    return int(count)


@contextlib.contextmanager
def committing(source: Path, note: Path) -> Iterator[None]:
    """The application, at work for the block. `note` has a number of messages that is committed."""
    command = [sys.executable, "-m", "tests.support.committing", str(source), str(note)]
    with subprocess.Popen(command, cwd=TOP) as process:
        try:
            while not note.exists():
                assert process.poll() is None, "nobody writes"
                time.sleep(0.005)
            yield
            assert process.poll() is None, "nobody wrote any more"
        finally:
            process.kill()


def _whole(path: Path, body: bytes, beside: Path) -> None:
    """Exchanges a file: it is the old one or the new one at any moment."""
    beside.write_bytes(body)
    os.replace(beside, path)


def main() -> None:
    """Arguments: the source, the note. A message every few milliseconds, a picture with every twentieth."""
    source, note = map(Path, sys.argv[1:])
    db = sqlite3.connect(source / "messages.db", isolation_level=None)
    (number,) = db.execute("SELECT n FROM counter").fetchone()
    while True:
        number += 1
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO message VALUES(?,?)", (number, text(number)))
        db.execute("UPDATE counter SET n = ?", (number,))
        db.execute("DELETE FROM message WHERE id <= ?", (number - KEPT,))
        db.execute("COMMIT")
        _whole(note, b"%d" % number, note.with_suffix(".new"))
        if number % 20 == 0:
            _whole(source / "picture", picture(number), note.with_suffix(".picture"))
        time.sleep(0.005)


if __name__ == "__main__":
    main()
