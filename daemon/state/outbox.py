"""The outbox: committed objects on their way to the providers, and who has what."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from chatkeep.daemon.state.connection import Connection
from chatkeep.daemon.state.errors import refusals
from chatkeep.daemon.state.rows import Queued

NOTHING_LOST: Final = 1 << 62
"""A seq that no snapshot has."""


class Outbox:
    """Rows of committed objects and the directory with their bytes, one file each, named by its hash."""

    def __init__(self, connection: Connection, directory: Path) -> None:
        self._connection = connection
        self.directory = directory
        self.staging = directory / "tmp"
        self._proven: dict[Path, tuple[int, ...]] = {}

    def queue(self, provider: str) -> list[Queued]:
        """What `provider` still needs, in upload order: the packs of a snapshot, its manifest, then the next one's."""
        query = (
            "SELECT name, size, sha256, is_manifest, stream, seq FROM objects WHERE released=0 AND name NOT IN "
            "(SELECT name FROM receipts WHERE provider=?) ORDER BY position"
        )
        return [
            Queued(name, self.directory / sha.hex(), size, sha, bool(manifest), stream, seq)
            for name, size, sha, manifest, stream, seq in self._connection.rows(query, provider)
        ]

    def note_proven(self, path: Path) -> None:
        """This process has just read the whole object at `path` back from the disk and found it right."""
        self._proven[path] = _look(path)

    def is_proven(self, path: Path) -> bool:
        """Whether the file is the one that this process proved, not touched since. A later process proves it anew."""
        try:
            return self._proven.get(path) == _look(path)
        except OSError:
            return False

    def record_receipt(self, name: str, provider: str, at_ns: int) -> None:
        """`provider` holds the object, durably. A manifest moves the frontier, which never jumps over a snapshot."""
        with self._connection.transaction() as db:
            row = db.execute("SELECT stream, seq, is_manifest FROM objects WHERE name=?", (name,)).fetchone()
            assert row is not None, "a receipt for an object nobody committed"
            stream, seq, is_manifest = row
            db.execute("INSERT OR IGNORE INTO receipts VALUES(?,?,?)", (name, provider, at_ns))
            if is_manifest:
                missing = db.execute(
                    "SELECT count(*) FROM objects WHERE stream=? AND seq<=? AND name NOT IN "
                    "(SELECT name FROM receipts WHERE provider=?) AND released=0",
                    (stream, seq, provider),
                ).fetchone()[0]
                assert missing == 0, "a manifest was acknowledged before everything it stands on"
                db.execute(
                    "INSERT INTO frontiers VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET seq=excluded.seq, at=excluded.at",
                    (stream, provider, seq, at_ns),
                )

    def release(self, providers: Sequence[str]) -> list[Path]:
        """Let go of objects that every one of `providers` has; returns the outbox files that may be unlinked.

        The row says released before the file goes: a crash between leaves a file without use, never a row without file.
        """
        if not providers:
            return []
        marks = ",".join("?" * len(providers))
        with self._connection.transaction() as db:
            rows = db.execute(
                f"SELECT o.name, o.sha256 FROM objects o WHERE released=0 AND (SELECT count(*) FROM receipts r "  # noqa: S608
                f"WHERE r.name=o.name AND r.provider IN ({marks})) = ?",
                (*providers, len(set(providers))),
            ).fetchall()
            db.executemany("UPDATE objects SET released=1 WHERE name=?", [(name,) for name, _ in rows])
        paths = [self.directory / sha.hex() for _, sha in rows]
        for path in paths:
            self._proven.pop(path, None)
        return paths

    def note_upload(self, provider: str, at_ns: int, error: str | None) -> None:
        """Remember how the last upload to `provider` ended: None for success, else the error's code."""
        with self._connection.transaction() as db:
            db.execute("INSERT OR IGNORE INTO uploads(provider) VALUES(?)", (provider,))
            if error is None:
                db.execute(
                    "UPDATE uploads SET last_success=?, last_error=NULL, last_error_at=NULL WHERE provider=?",
                    (at_ns, provider),
                )
            else:
                db.execute(
                    "UPDATE uploads SET last_error=?, last_error_at=? WHERE provider=?", (error, at_ns, provider)
                )

    def uploads(self) -> dict[str, tuple[int | None, str | None, int | None]]:
        """Per provider: time of the last success, code and time of the last error (ns)."""
        return {row[0]: (row[1], row[2], row[3]) for row in self._connection.rows("SELECT * FROM uploads")}

    def frontier(self, stream: bytes, provider: str) -> int:
        """The newest seq of the stream up to which `provider` has everything; 0 for nothing."""
        rows = self._connection.rows("SELECT seq FROM frontiers WHERE stream=? AND provider=?", stream, provider)
        return rows[0][0] if rows else 0

    def waiting(self) -> tuple[int, int]:
        """Objects in the outbox and their bytes."""
        row = self._connection.rows("SELECT count(*), coalesce(sum(size),0) FROM objects WHERE released=0")[0]
        return row[0], row[1]

    def known_objects(self) -> Iterator[tuple[str, int]]:
        """Name and size of every object this device ever committed and that some provider may be asked for."""
        return iter(self._connection.rows("SELECT name, size FROM objects ORDER BY position"))

    def lost_from(self, stream: bytes) -> int:
        """The lowest seq of which an object that waits has no file, or one of another size; NOTHING_LOST for none."""
        query = "SELECT seq, sha256, size FROM objects WHERE stream=? AND released=0 ORDER BY seq"
        for seq, sha, size in self._connection.rows(query, stream):
            try:
                found = (self.directory / sha.hex()).stat().st_size
            except OSError:
                found = -1
            if found != size:
                return int(seq)
        return NOTHING_LOST

    def recover(self) -> list[bytes]:
        """Bring outbox and rows together after a crash; returns the streams whose chain cannot advance.

        Files without a row are of a snapshot that never was; released rows whose file stayed are unlinked again. A row
        that needs its file and has none, or one of another size, is a lost object: its stream is to be abandoned.
        """
        with self._connection.serial, refusals(self.directory):
            for leftover in (self.directory / "tmp").iterdir():
                leftover.unlink()
            query = "SELECT sha256, size, stream FROM objects WHERE released=0"
            wanted = {sha.hex(): (size, stream) for sha, size, stream in self._connection.rows(query)}
            present = {
                entry.name: entry.stat().st_size
                for entry in os.scandir(self.directory)
                if entry.is_file(follow_symlinks=False)
            }
            for name in present.keys() - wanted.keys():
                (self.directory / name).unlink()
            return sorted({stream for name, (size, stream) in wanted.items() if present.get(name) != size})


def _look(path: Path) -> tuple[int, ...]:
    facts = path.stat(follow_symlinks=False)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
