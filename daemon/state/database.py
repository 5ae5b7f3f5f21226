"""The state of one device: what its newest snapshots say, and the one commit that makes a new one."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from chatkeep.daemon.state.capsules import Capsules
from chatkeep.daemon.state.commit import apply_commit
from chatkeep.daemon.state.connection import Connection
from chatkeep.daemon.state.errors import StateBusy, StateDamaged, StateUnusable, refusals
from chatkeep.daemon.state.figures import Figures
from chatkeep.daemon.state.known import Known, KnownBlob
from chatkeep.daemon.state.lineage import Lineage
from chatkeep.daemon.state.mirrors import Mirrors
from chatkeep.daemon.state.outbox import Outbox
from chatkeep.daemon.state.pruning import Pruning
from chatkeep.daemon.state.rows import (
    Commit,
    DatabaseRow,
    FileRow,
    PartialRow,
    RedoRow,
    RunRow,
    SnapshotRow,
    StackRow,
    StreamRow,
)

LOCK: Final = "lock"  # in the state directory
# Whoever looks whether the state is in use holds the lock for an instant (see glance): that is not busy.
_TRIES: Final = 4
_PAUSE: Final = 0.05  # seconds


class State:
    """The records of one device, held by one process at a time.

    All methods may be called from any thread; each is one transaction. `directory` holds `state.db`, `outbox/`,
    `tables/` and the lock. Raises StateBusy when another process holds it, StateDamaged when the database cannot be
    read, StateForeign when it belongs to another vault or device, StateFull when there is no room, StateUnusable when
    the system refuses the directory.
    """

    def __init__(self, directory: Path, connection: Connection, lock: int, moved: Path | None = None) -> None:
        self.directory = directory
        self.moved_aside = moved  # where a damaged database is now that was found in the place of this one
        self.tables = directory / "tables"
        self.outbox = Outbox(connection, directory / "outbox")
        self.pruning = Pruning(connection)
        self.capsules = Capsules(connection)
        self.known = Known(connection)
        self.lineage = Lineage(connection)
        self.mirrors = Mirrors(connection)
        self.figures = Figures(connection)
        self._connection = connection
        self._lock = lock

    @classmethod
    def open(cls, directory: Path, vault: bytes, device: bytes, *, anew: bool = False) -> State:
        """Open or make the state of `device` in `directory`, and take it for this process.

        `anew`: a database that is damaged for good is moved aside, and an empty one begun.
        """
        try:
            for place in (directory, directory / "outbox", directory / "outbox" / "tmp", directory / "tables"):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _take_lock(directory)
        except OSError as error:
            raise StateUnusable(path=str(directory), errno=error.errno) from error
        try:
            try:
                return cls(directory, Connection(directory / "state.db", vault, device), lock)
            except StateDamaged as error:
                if not anew or not error.params.get("for_good"):
                    raise
                moved = move_aside(directory)
                return cls(directory, Connection(directory / "state.db", vault, device), lock, moved)
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Release the database and the lock."""
        self._connection.close()
        os.close(self._lock)

    def give_up(self) -> Path:
        """Moves a database aside that turned out to be damaged for good; nothing more may be asked of it. Its place."""
        self._connection.close()
        return move_aside(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def generation(self) -> bytes:
        """16 random bytes made with the database. A digest table that carries others is of another life."""
        return bytes(self._connection.rows("SELECT value FROM meta WHERE key='generation'")[0][0])

    # -- reading what the newest snapshot of a source says ----------------------------------------------------------

    def stream(self, source: str) -> StreamRow:
        """The active stream of `source`, begun (seq 0) if there is none."""
        with self._connection.transaction() as db:
            row = db.execute(
                "SELECT stream, source, seq, head, head_time, next_file_id FROM streams WHERE source=? AND active=1",
                (source,),
            ).fetchone()
            if row is None:
                row = (secrets.token_bytes(16), source, 0, b"", 0, 1)
                db.execute("INSERT INTO streams VALUES(?,?,?,?,?,?,1)", row)
            return StreamRow(*row)

    def abandon(self, stream: bytes, known: Sequence[KnownBlob] = (), *, lost_from: int = 1) -> None:
        """End a stream whose chain cannot advance: the next backup begins a new one.

        What providers have of it stays. What they do not have is given up from the snapshot of seq `lost_from` on; what
        is before it is sent as ever, since the source may not have it any more. `known`: blobs of it that the new one
        need not send again.
        """
        with self._connection.transaction() as db:
            db.execute("UPDATE streams SET active=0 WHERE stream=?", (stream,))
            db.executemany("INSERT OR IGNORE INTO known VALUES(?,?,?)", known)
            # What no provider ever got, nothing depends on.
            db.execute(
                "DELETE FROM capsules WHERE name IN (SELECT name FROM objects WHERE stream=? AND released=0 AND seq>=? "
                "AND name NOT IN (SELECT name FROM receipts))",
                (stream, lost_from),
            )
            db.execute("UPDATE objects SET released=1 WHERE stream=? AND released=0 AND seq>=?", (stream, lost_from))
            for table in ("redo", "runs", "partials", "databases", "files", "paths", "stack"):
                db.execute(f"DELETE FROM {table} WHERE stream=?", (stream,))  # noqa: S608 the names stand one line above

    def paths(self, stream: bytes) -> dict[bytes, int]:
        """Every path of the newest snapshot, with its file id."""
        return dict(self._connection.rows("SELECT path, file_id FROM paths WHERE stream=?", stream))

    def files(self, stream: bytes) -> Iterator[FileRow]:
        """Every file of the newest snapshot, in the order of their ids."""
        query = "SELECT file_id, identity, record, content FROM files WHERE stream=? ORDER BY file_id"
        return (FileRow(*row) for row in self._connection.rows(query, stream))

    def databases(self, stream: bytes) -> dict[int, DatabaseRow]:
        """The cursors of the source's databases, by file id."""
        query = "SELECT file_id, page_size, page_count, signature, digest FROM databases WHERE stream=?"
        return {row[0]: DatabaseRow(*row) for row in self._connection.rows(query, stream)}

    def runs(self, stream: bytes, file_id: int) -> list[RunRow]:
        """Runs sealed ahead for a database, oldest first."""
        columns = "file_id, page_size, pages, pack, slot, blob"
        query = f"SELECT {columns} FROM runs WHERE stream=? AND file_id=? ORDER BY position"  # noqa: S608 fixed names
        return [RunRow(*row) for row in self._connection.rows(query, stream, file_id)]

    def partials(self, stream: bytes) -> dict[bytes, PartialRow]:
        """The large files that are half sealed, by path."""
        query = "SELECT path, identity, content FROM partials WHERE stream=?"
        return {row[0]: PartialRow(*row) for row in self._connection.rows(query, stream)}

    def stack(self, stream: bytes) -> list[StackRow]:
        """The stack of the newest snapshot, newest layer first."""
        query = (
            "SELECT level, first_seq, last_seq, first_time, last_time, parts, body FROM stack WHERE stream=? "
            "ORDER BY last_seq DESC"
        )
        return [StackRow(*row) for row in self._connection.rows(query, stream)]

    def snapshots(self, stream: bytes) -> list[SnapshotRow]:
        """The snapshots this device made in the stream, newest first."""
        query = "SELECT seq, name, time, clock, complete, statistics FROM snapshots WHERE stream=? ORDER BY seq DESC"
        return [
            SnapshotRow(seq, name, at, clock, bool(done), stats)
            for seq, name, at, clock, done, stats in self._connection.rows(query, stream)
        ]

    # -- the one commit ---------------------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> None:
        """Make a snapshot exist. Before this returns it did not happen; after it, it did, whatever comes.

        Its objects must be whole, fsynced and under their final names in the outbox, or a crash here loses them.
        """
        with self._connection.transaction() as db:
            apply_commit(db, commit)

    def refresh(self, stream: bytes, files: Sequence[FileRow], databases: Sequence[DatabaseRow]) -> None:
        """Rows that learned only that nothing changed: newer identities and signatures of the same content."""
        with self._connection.transaction() as db:
            db.executemany(
                "UPDATE files SET identity=? WHERE stream=? AND file_id=?",
                [(row.identity, stream, row.file_id) for row in files],
            )
            db.executemany(
                "UPDATE databases SET signature=? WHERE stream=? AND file_id=?",
                [(row.signature, stream, row.file_id) for row in databases],
            )

    def note_backup(self, source: str, at_ns: int, problems: int, error: str | None) -> None:
        """Remember how a backup of `source` ended, also one that had nothing to say: None, or the error's code."""
        row = (source, None, problems, error, at_ns) if error else (source, at_ns, problems, None, None)
        with self._connection.transaction() as db:
            db.execute(
                "INSERT INTO backups VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET problems=excluded.problems, "
                "error=excluded.error, error_at=excluded.error_at, "
                "last_success=coalesce(excluded.last_success, last_success)",
                row,
            )

    def redo(self, stream: bytes) -> list[RedoRow]:
        """Digests whose table may not have them yet, in the order of their commits."""
        query = "SELECT file_id, page_size, reach, runs FROM redo WHERE stream=? ORDER BY position"
        return [RedoRow(*row) for row in self._connection.rows(query, stream)]

    def redo_done(self, stream: bytes) -> None:
        """The tables have every digest and were synced: the redo rows may go."""
        with self._connection.transaction() as db:
            db.execute("DELETE FROM redo WHERE stream=?", (stream,))


def move_aside(directory: Path) -> Path:
    """Gives the state database a name of its own, `state.db.damaged-<n>`: somebody may still read something in it."""
    number = next(n for n in itertools.count(1) if not (directory / f"state.db.damaged-{n}").exists())
    target = directory / f"state.db.damaged-{number}"
    with refusals(directory):
        # The log first: cut off between, it is not taken for the log of the database that comes next.
        for end in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(directory / f"state.db{end}", f"{target}{end}")
    return target


def _take_lock(directory: Path) -> int:
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for attempt in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if attempt + 1 < _TRIES:
                time.sleep(_PAUSE)
                continue
            os.close(descriptor)
            raise StateBusy(path=str(directory)) from error
        break
    return descriptor
