"""A look at the state of a device without taking it: for `status` and `verify` while a backup may be at work.

Reads only. SQLite in this mode never checkpoints, so the one connection that writes stays the only one that does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from chatkeep.daemon.state.database import LOCK
from chatkeep.daemon.state.errors import StateDamaged
from chatkeep.daemon.state.figures import Figures
from chatkeep.daemon.state.lineage import Copied, Lost, decode_checkpoint
from chatkeep.daemon.state.mirrors import amount, behind
from chatkeep.daemon.state.rows import BackupNote, SnapshotRow, SnapshotStatistics
from chatkeep.daemon.state.schema import VERSION


@dataclass(frozen=True, slots=True)
class SourceGlance:
    """What is known of one source. `snapshot` is the newest; None when there is none yet."""

    stream: bytes
    seq: int
    snapshot: SnapshotRow | None
    statistics: SnapshotStatistics | None


class SweepGlance(NamedTuple):
    """What a provider is still to delete, and, if its storage refused, what it keeps: the code of the error, objects,
    bytes. `oldest`: when it got the oldest checkpoint that waits (ns), None if it did not yet."""

    waiting_objects: int
    waiting_bytes: int
    oldest: int | None
    refused: str | None
    held_objects: int
    held_bytes: int


@dataclass(frozen=True, slots=True)
class ProviderGlance:
    """What is known of one provider: what it still lacks, how the last upload ended, and since when it is not waited
    for (`left_behind`; None: it is). Times in ns."""

    waiting_objects: int
    waiting_bytes: int
    frontiers: dict[bytes, int]
    last_success: int | None
    last_error: str | None
    last_error_at: int | None
    left_behind: int | None = None


class Glance:
    """The state as it is now. Raises StateDamaged when it cannot be read."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "state.db"
        with self._translated():
            # nolock would be wrong and immutable too: a backup may be writing.
            self._connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (1, VERSION):  # of version 1, the newer tables are not looked at
                raise StateDamaged(path=str(self._path), reason=f"version {version}")
            self._prunes = version > 1
        self.figures = Figures(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def vault(self) -> bytes:
        """The id of the vault that the records are of."""
        return bytes(self.rows("SELECT value FROM meta WHERE key='vault'")[0][0])

    def sources(self) -> dict[str, SourceGlance]:
        """Active streams by the name of their source."""
        query = (
            "SELECT s.source, s.stream, s.seq, n.name, n.time, n.clock, n.complete, n.statistics FROM streams s "
            "LEFT JOIN snapshots n ON n.stream=s.stream AND n.seq=s.seq WHERE s.active=1"
        )
        found = {}
        for source, stream, seq, name, at, clock, complete, raw in self.rows(query):
            row = None if name is None else SnapshotRow(seq, name, at, clock, bool(complete), raw)
            found[source] = SourceGlance(stream, seq, row, None if row is None else SnapshotStatistics.decode(raw))
        return found

    def backups(self) -> dict[str, BackupNote]:
        """How the last backup of each source ended, by source."""
        return {source: BackupNote(*rest) for source, *rest in self.rows("SELECT * FROM backups")}

    def provider(self, name: str) -> ProviderGlance:
        """What is known of a provider, also of one that never got anything."""
        query = (
            "SELECT count(*), coalesce(sum(size),0) FROM objects WHERE released=0 AND name NOT IN "
            "(SELECT name FROM receipts WHERE provider=?)"
        )
        objects, size = self.rows(query, name)[0]
        left, left_size = amount(self, name)
        frontiers = dict(self.rows("SELECT stream, seq FROM frontiers WHERE provider=?", name))
        upload = self.rows("SELECT last_success, last_error, last_error_at FROM uploads WHERE provider=?", name)
        success, error, error_at = upload[0] if upload else (None, None, None)
        since = behind(self).get(name)
        return ProviderGlance(objects + left, size + left_size, frontiers, success, error, error_at, since)

    def lost(self) -> Lost | None:
        """Whether these records do not say what is in the vault."""
        rows = self.rows("SELECT value FROM meta WHERE key='lost_since'")
        return Lost.decode(rows[0][0]) if rows else None

    def copied(self) -> Copied | None:
        """When it was last noticed that there is another copy of these records."""
        rows = self.rows("SELECT value FROM meta WHERE key='copied'")
        return Copied.decode(rows[0][0]) if rows else None

    def capsules(self) -> tuple[int, list[str]]:
        """How many objects nobody proved yet, and the names of those that do not open."""
        if not self._prunes:
            return 0, []
        count: int = self.rows("SELECT count(*) FROM capsules WHERE failed IS NULL")[0][0]
        return count, [name for (name,) in self.rows("SELECT name FROM capsules WHERE failed IS NOT NULL ORDER BY 1")]

    def waiting(self) -> tuple[int, int]:
        """Objects in the outbox and their bytes."""
        row = self.rows("SELECT count(*), coalesce(sum(size),0) FROM objects WHERE released=0")[0]
        return row[0], row[1]

    def lacking(self) -> int:
        """Objects that wait in the outbox and whose file is not there, or of another size."""
        query = "SELECT sha256, size FROM objects WHERE released=0"
        count = 0
        for sha256, size in self.rows(query):
            try:
                count += (self._path.parent / "outbox" / sha256.hex()).stat().st_size != size
            except OSError:
                count += 1
        return count

    def expected(self, provider: str) -> list[tuple[str, int]]:
        """Name and size of every object that `provider` acknowledged and is to keep."""
        query = "SELECT o.name, o.size FROM objects o JOIN receipts r ON r.name=o.name WHERE r.provider=?"
        query += " AND o.name NOT IN (SELECT name FROM condemned)" if self._prunes else ""
        return self.rows(query + " ORDER BY 1", provider)

    def knows(self, provider: str) -> bool:
        """Whether anything was ever acknowledged by a provider."""
        return bool(self.rows("SELECT 1 FROM receipts WHERE provider=? LIMIT 1", provider))

    def doomed(self) -> set[str]:
        """Names of condemned objects that somebody may have deleted already."""
        if not self._prunes:
            return set()
        query = "SELECT name FROM condemned WHERE number <= (SELECT max(number) FROM sweeps)"
        return {name for (name,) in self.rows(query)}

    def origin(self, name: str) -> tuple[bytes, int]:
        """The stream and seq of the snapshot that an object came with."""
        stream, seq = self.rows("SELECT stream, seq FROM objects WHERE name=?", name)[0]
        return stream, seq

    def last_checkpoint(self) -> int:
        """The highest number of a checkpoint of this device that is known of; 0 for none."""
        if not self._prunes:
            return 0
        made: int = self.rows("SELECT coalesce(max(number), 0) FROM checkpoints")[0][0]
        seen = self.rows("SELECT value FROM meta WHERE key='checkpoint'")
        return max(made, decode_checkpoint(seen[0][0]) if seen else 0)

    def sweep(self, provider: str) -> SweepGlance:
        """What a provider is still to delete."""
        if not self._prunes:
            return SweepGlance(0, 0, None, None, 0, 0)
        objects, size, number = self.rows(
            "SELECT count(*), coalesce(sum(size),0), min(number) FROM condemned WHERE is_manifest<2 AND name NOT IN "
            "(SELECT name FROM swept WHERE provider=?)",
            provider,
        )[0]
        query = "SELECT r.at FROM checkpoints c JOIN receipts r ON r.name=c.name WHERE c.number=? AND r.provider=?"
        oldest = self.rows(query, number, provider)
        held = self.rows("SELECT refused, objects, bytes FROM sweeps WHERE provider=?", provider)
        refused, kept, kept_bytes = held[0] if held and held[0][0] else (None, 0, 0)
        waiting = (max(0, objects - kept), max(0, size - kept_bytes))
        return SweepGlance(*waiting, oldest[0][0] if oldest else None, refused, kept, kept_bytes)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Every row of a query."""
        with self._translated():
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateDamaged(path=str(self._path), reason=str(error)) from error


def exists(directory: Path) -> bool:
    """Whether there is a state in the directory."""
    return (directory / "state.db").exists()


def is_in_use(directory: Path) -> bool:
    """Whether a process holds the state now."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two that look do not see each other; given back at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
