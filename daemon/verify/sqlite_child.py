"""The process in which SQLite opens one restored database: `python -P -m chatkeep.daemon.verify.sqlite_child`.

Whoever writes the source, or stole a device's key, decides what is in the database, and SQLite parses all of it. So
this process has nothing to lose: no secret, nothing open but its pipes and the database, limits on everything, and,
unless there is a journal to be played back, no way to open anything else: no file, no network, no session that happens
to be open. It is this user's all the same: what breaks out of SQLite can remove files. What it says is not believed
beyond its form (`sqlite_check`).

The database is `db` in the current directory. One line on standard input, JSON: size, seconds, memory (bytes), journal
(whether an interrupted transaction has to be rolled back first). One line on standard output, JSON: outcome, problems.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import resource
import signal
import sqlite3
import sys
from typing import Any, Final

MOST_PROBLEMS: Final = 20
MOST_LETTERS: Final = 200  # of each problem: its text has names from the database
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # <linux/prctl.h>
_DESCRIPTORS: Final = 32
_SETTINGS: Final = (
    "trusted_schema=OFF",  # what a view, trigger, index or CHECK of the schema may call is harmless
    "query_only=ON",
    "cell_size_check=ON",
    "mmap_size=0",  # a read past the end is an error and no signal
    "temp_store=MEMORY",
    "cache_size=-8192",
)


def confine(request: dict[str, Any]) -> None:
    """Takes from this process what it does not need, before it sees a byte of the database."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # a killed command leaves nobody at work
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, request["memory"]),
        (resource.RLIMIT_CPU, request["seconds"]),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        # A rollback writes into the database; nothing else is written.
        (resource.RLIMIT_FSIZE, request["size"] + (1 << 20) if request["journal"] else 0),
    ):
        resource.setrlimit(what, (most, most))


def look(*, journal: bool) -> dict[str, Any]:
    """What SQLite says of the database."""
    # Immutable: no lock, no log and no index are made, and nothing is rolled back.
    how = "mode=rw" if journal else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"file:db?{how}", uri=True, isolation_level=None, timeout=0)) as db:
            if not journal:
                # The file is open, of which not a byte was read; with temporary tables in memory nothing else is.
                resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
            db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            for setting in _SETTINGS:
                db.execute(f"PRAGMA {setting}")
            return _checked(db)
    except MemoryError:
        return {"outcome": "unfinished", "problems": ["memory"]}
    except sqlite3.Error as exc:
        return {"outcome": _outcome(exc), "problems": [str(exc)[:MOST_LETTERS]]}


def _checked(db: sqlite3.Connection) -> dict[str, Any]:
    try:
        return _found(db, "integrity_check")
    except sqlite3.OperationalError as exc:
        # A collation or a tokenizer of the application's own: what does not need it is checked.
        if _outcome(exc) != "foreign":
            raise
        seen = _found(db, "quick_check")
        return seen if seen["outcome"] == "damaged" else {"outcome": "foreign", "problems": [str(exc)[:MOST_LETTERS]]}


def _found(db: sqlite3.Connection, check: str) -> dict[str, Any]:
    rows = [str(row[0])[:MOST_LETTERS] for row in db.execute(f"PRAGMA {check}({MOST_PROBLEMS})")]
    good = rows == ["ok"]
    return {"outcome": "sound" if good else "damaged", "problems": [] if good else rows[:MOST_PROBLEMS]}


def _outcome(exc: sqlite3.Error) -> str:
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT):
        return "damaged"
    if code == sqlite3.SQLITE_ERROR and str(exc).startswith(("no such module", "no such coll", "no such tok")):
        return "foreign"
    return "unfinished"


def main() -> int:
    """Reads the request, and answers it."""
    request = json.loads(sys.stdin.buffer.readline())
    confine(request)
    said = look(journal=request["journal"])
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
