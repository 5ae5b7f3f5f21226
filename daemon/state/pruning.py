"""What prune knows: checkpoints, what they condemned, how far each provider has deleted it.

An object is condemned by the transaction that makes the checkpoint. From then on nothing new refers to it. Its rows go
when every provider has deleted it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from chatkeep.daemon.state.arrivals import CHECKPOINTS as CHECKPOINTS
from chatkeep.daemon.state.arrivals import Arrivals
from chatkeep.daemon.state.connection import Connection
from chatkeep.daemon.state.mirrors import behind


class Role(enum.IntEnum):
    """What a condemned object is, in the order of deletion's opposite: manifests go before packs."""

    PACK = 0
    MANIFEST = 1
    CHECKPOINT = 2  # an older one: goes when all that it condemned is gone


class CheckpointRow(NamedTuple):
    """A checkpoint that this device made. `at`: its time in ns."""

    number: int
    name: str
    sha256: bytes
    at: int


class CondemnedRow(NamedTuple):
    """An object to be deleted, condemned by the checkpoint of this number. `size` in bytes."""

    name: str
    number: int
    role: Role
    size: int


class SweepRow(NamedTuple):
    """How the last sweep of a provider went: at which checkpoint it began, when (ns), and what the storage keeps
    although it was asked to delete it (`refused`: the code of its error; objects, bytes)."""

    number: int
    at: int
    refused: str | None
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PruneCommit:
    """Everything that one checkpoint changes. Its object lies in the outbox, under its hash.

    `condemned` are rows with its number, older checkpoints included. `revived`: names that live again. `packs`: hashes
    of the packs that are condemned; no known blob is in one of them any more. `begun`: some of it was begun to be
    deleted before, under an older number. `raw`: the object, kept for a storage that loses it.
    """

    checkpoint: CheckpointRow
    size: int
    condemned: Sequence[CondemnedRow]
    revived: Sequence[str] = ()
    packs: Collection[bytes] = ()
    begun: bool = False
    raw: bytes = b""


class Pruning:
    """The rows of checkpoints and condemned objects. Each method is one transaction.

    Attributes:
        arrivals: what providers lack.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.arrivals: Final = Arrivals(connection)

    def checkpoints(self) -> list[CheckpointRow]:
        """Those that this device made and remembers, oldest first."""
        rows = self._connection.rows("SELECT number, name, sha256, at FROM checkpoints ORDER BY number")
        return [CheckpointRow(*row) for row in rows]

    def condemned(self) -> list[CondemnedRow]:
        """What is not deleted everywhere yet."""
        rows = self._connection.rows("SELECT name, number, is_manifest, size FROM condemned ORDER BY name")
        return [CondemnedRow(name, number, Role(role), size) for name, number, role, size in rows]

    def begun(self) -> int:
        """The newest checkpoint that some provider began to delete by; 0 for none."""
        number: int = self._connection.rows("SELECT coalesce(max(number), 0) FROM sweeps")[0][0]
        return number

    def doomed(self) -> set[str]:
        """Names of condemned objects that somebody may have deleted already."""
        rows = self._connection.rows("SELECT name FROM condemned WHERE number <= (SELECT max(number) FROM sweeps)")
        return {name for (name,) in rows}

    def streams(self) -> dict[bytes, tuple[str, int, bytes, bool]]:
        """Every stream by its id: its source, newest seq and its manifest's hash, and whether it goes on."""
        rows = self._connection.rows("SELECT stream, source, seq, head, active FROM streams")
        return {stream: (source, seq, head, bool(active)) for stream, source, seq, head, active in rows}

    def newest_names(self) -> set[str]:
        """What storage must have, whatever it lists: the newest manifest of each stream, and the newest checkpoint."""
        rows = self._connection.rows(
            "SELECT n.name FROM streams s JOIN snapshots n ON n.stream=s.stream AND n.seq=s.seq WHERE s.active=1 "
            "UNION ALL SELECT name FROM checkpoints WHERE number=(SELECT max(number) FROM checkpoints)"
        )
        return {name for (name,) in rows}

    def frontiers(self) -> dict[tuple[bytes, str], int]:
        """By stream and provider: the newest seq up to which the provider has everything."""
        rows = self._connection.rows("SELECT stream, provider, seq FROM frontiers")
        return {(stream, provider): seq for stream, provider, seq in rows}

    def is_given_up(self, name: str, providers: Collection[str]) -> bool:
        """Whether one of `providers` will never get a checkpoint: it was lost on this device, or is older than them."""
        waits = self._connection.rows("SELECT 1 FROM objects WHERE name=? AND released=0", name)
        # One that was left behind gets it from another.
        providers = set(providers) - behind(self._connection).keys()
        return not waits and any(self.received(name, provider) is None for provider in providers)

    def objects(self) -> dict[str, tuple[bytes, int, bool]]:
        """Packs that this device made and remembers, by name: hash, size, and whether the outbox still has them."""
        rows = self._connection.rows("SELECT name, sha256, size, released FROM objects WHERE is_manifest=0")
        return {name: (sha256, size, not released) for name, sha256, size, released in rows}

    def waiting_manifests(self) -> set[bytes]:
        """Hashes of the manifests that some provider lacks."""
        rows = self._connection.rows("SELECT sha256 FROM objects WHERE is_manifest=1 AND released=0")
        return {sha256 for (sha256,) in rows}

    def references(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """What the newest snapshots refer to: parts of layers, contents of files (finished or not), packs of runs."""
        parts = [raw for (raw,) in self._connection.rows("SELECT parts FROM stack")]
        query = "SELECT content FROM files WHERE content IS NOT NULL UNION ALL SELECT content FROM partials"
        contents = [raw for (raw,) in self._connection.rows(query)]
        return parts, contents, [pack for (pack,) in self._connection.rows("SELECT DISTINCT pack FROM runs")]

    def commit(self, change: PruneCommit) -> None:
        """Make a checkpoint exist. Its bytes are whole, fsynced and under their final name in the outbox."""
        one = change.checkpoint
        with self._connection.transaction() as db:
            db.execute("INSERT INTO checkpoints VALUES(?,?,?,?)", one)
            db.execute(
                "INSERT INTO objects(name, stream, seq, is_manifest, sha256, size) VALUES(?,?,?,1,?,?)",
                (one.name, CHECKPOINTS, one.number, one.sha256, change.size),
            )
            for table in ("condemned", "swept"):
                statement = f"DELETE FROM {table} WHERE name=?"  # noqa: S608 the names stand one line above
                db.executemany(statement, [(name,) for name in change.revived])
            db.executemany("INSERT OR REPLACE INTO condemned VALUES(?,?,?,?)", change.condemned)
            db.executemany("DELETE FROM known WHERE pack=?", [(pack,) for pack in change.packs])
            db.execute("INSERT OR REPLACE INTO meta VALUES('newest_checkpoint',?)", (change.raw,))
            if change.begun:  # under the new number too, so that nobody takes it back
                db.execute("INSERT OR IGNORE INTO sweeps VALUES('', 0, 0, NULL, 0, 0)")
                db.execute("UPDATE sweeps SET number=? WHERE provider=''", (one.number,))

    # -- deleting ---------------------------------------------------------------------------------------------------

    def is_ready(self, name: str, provider: str) -> bool:
        """Whether the provider has this checkpoint and everything that was made before it."""
        query = (
            "SELECT count(*) FROM objects WHERE released=0 AND position <= (SELECT position FROM objects WHERE name=?) "
            "AND name NOT IN (SELECT name FROM receipts WHERE provider=?)"
        )
        return self.received(name, provider) is not None and not self._connection.rows(query, name, provider)[0][0]

    def received(self, name: str, provider: str) -> int | None:
        """When the provider acknowledged an object (ns, by this device's clock), if it did."""
        rows = self._connection.rows("SELECT at FROM receipts WHERE name=? AND provider=?", name, provider)
        return rows[0][0] if rows else None

    def received_at(self, name: str, provider: str, at_ns: int) -> None:
        """Correct when the provider acknowledged an object."""
        with self._connection.transaction() as db:
            db.execute("UPDATE receipts SET at=? WHERE name=? AND provider=?", (at_ns, name, provider))

    def to_sweep(self, provider: str) -> list[CondemnedRow]:
        """What the provider has not deleted yet, by checkpoint; of one, manifests, packs, older checkpoints."""
        rows = self._connection.rows(
            "SELECT name, number, is_manifest, size FROM condemned WHERE name NOT IN "
            "(SELECT name FROM swept WHERE provider=?) ORDER BY number, is_manifest=2, is_manifest=0, name",
            provider,
        )
        return [CondemnedRow(name, number, Role(role), size) for name, number, role, size in rows]

    def sweep(self, provider: str) -> SweepRow | None:
        """How the last sweep of a provider went."""
        query = "SELECT number, at, refused, objects, bytes FROM sweeps WHERE provider=?"
        rows = self._connection.rows(query, provider)
        return SweepRow(*rows[0]) if rows else None

    def note_sweep(self, provider: str, row: SweepRow) -> None:
        """Remember how far a sweep is. Before the first object is deleted, so that nobody takes back what may be gone.

        The number never falls: what was begun stays begun.
        """
        with self._connection.transaction() as db:
            db.execute(
                "INSERT INTO sweeps VALUES(?,?,?,?,?,?) ON CONFLICT DO UPDATE SET number=max(number, excluded.number), "
                "at=excluded.at, refused=excluded.refused, objects=excluded.objects, bytes=excluded.bytes",
                (provider, *row),
            )

    def record_swept(self, names: Iterable[str], provider: str, at_ns: int) -> None:
        """The provider does not have these any more."""
        with self._connection.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO swept VALUES(?,?,?)", [(name, provider, at_ns) for name in names])

    def forget(self, providers: Sequence[str]) -> int:
        """Drop every row of what none of `providers`, all that are configured, has any more. Returns how many."""
        if not providers:
            return 0
        marks = ",".join("?" * len(providers))
        with self._connection.transaction() as db:
            query = (
                f"SELECT name FROM condemned c WHERE (SELECT count(*) FROM swept s WHERE s.name=c.name "  # noqa: S608
                f"AND s.provider IN ({marks})) = ?"
            )
            gone = db.execute(query, (*providers, len(set(providers)))).fetchall()
            for table in ("receipts", "objects", "snapshots", "checkpoints", "capsules", "swept", "condemned"):
                db.executemany(f"DELETE FROM {table} WHERE name=?", gone)  # noqa: S608 the names stand one line above
        return len(gone)
