"""How far everything is, read from the records: for showing, never for deciding what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from chatkeep.daemon.state.mirrors import amount, behind
from chatkeep.daemon.state.rows import BackupNote


class Newest(NamedTuple):
    """The newest snapshot of a source: stream, number (0: there is none), when it was taken (ns), whether nothing is
    pending."""

    stream: bytes
    seq: int
    clock: int | None
    complete: bool


class Lag(NamedTuple):
    """How far a provider is.

    Attributes:
        objects, waiting: that it lacks; the second in bytes.
        newest, oldest: when the newest snapshot was taken that it has, and the oldest that it lacks (ns).
        frontiers: by stream, the newest seq up to which it has everything.
        left_behind: since when it is not waited for (ns): it is brought up from another provider before anything is
            uploaded to it. None: it is waited for.
    """

    objects: int
    waiting: int
    newest: int | None
    oldest: int | None
    frontiers: Mapping[bytes, int]
    left_behind: int | None = None


class Records(Protocol):
    """The state database, taken or only looked at."""

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Every row of a query."""


class Figures:
    """Questions about all sources and about one provider. Each is one statement or a few."""

    def __init__(self, connection: Records) -> None:
        self._connection = connection

    def backups(self) -> dict[str, BackupNote]:
        """How the last backup of each source ended, by source."""
        return {source: BackupNote(*rest) for source, *rest in self._connection.rows("SELECT * FROM backups")}

    def sources(self) -> dict[str, Newest]:
        """The newest snapshot of each source that ever was asked about."""
        query = (
            "SELECT s.source, s.stream, s.seq, n.clock, coalesce(n.complete, 0) FROM streams s "
            "LEFT JOIN snapshots n ON n.stream=s.stream AND n.seq=s.seq WHERE s.active=1"
        )
        return {
            source: Newest(stream, seq, clock, bool(complete))
            for source, stream, seq, clock, complete in self._connection.rows(query)
        }

    def waiting(self, provider: str) -> tuple[int, int]:
        """Objects and bytes that a provider lacks, also of those that left the outbox if it was left behind."""
        query = (
            "SELECT count(*), coalesce(sum(size), 0) FROM objects o WHERE released=0 AND NOT EXISTS "
            "(SELECT 1 FROM receipts r WHERE r.name=o.name AND r.provider=?)"
        )
        objects, size = self._connection.rows(query, provider)[0]
        left, left_size = amount(self._connection, provider)
        return objects + left, size + left_size

    def lag(self, provider: str) -> Lag:
        """How far a provider is."""
        objects, size = self.waiting(provider)
        oldest = None
        if objects:
            anywhere = "EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name)"
            which = f"(o.released=0 OR {anywhere})" if provider in behind(self._connection) else "o.released=0"
            query = (
                "SELECT min(n.clock) FROM objects o JOIN snapshots n ON n.stream=o.stream AND n.seq=o.seq "  # noqa: S608
                f"WHERE {which} AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name AND r.provider=?)"
            )
            oldest = self._connection.rows(query, provider)[0][0]
        query = (
            "SELECT max(n.clock) FROM frontiers f JOIN snapshots n ON n.stream=f.stream AND n.seq=f.seq "
            "WHERE f.provider=?"
        )
        newest = self._connection.rows(query, provider)[0][0]
        frontiers = dict(self._connection.rows("SELECT stream, seq FROM frontiers WHERE provider=?", provider))
        return Lag(objects, size, newest, oldest, frontiers, behind(self._connection).get(provider))
