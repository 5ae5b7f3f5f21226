"""Providers that were left behind: what they lack left the outbox, and can only be copied from one that has it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from chatkeep.daemon.state.connection import Connection

if TYPE_CHECKING:
    from chatkeep.daemon.state.figures import Records

_KEY: Final = "mirror:"  # a provider's name follows; the value is since when, in ns


# Whoever acknowledged it counts, configured or not, away or not: who goes by those that answer just now finds that it
# lacks nothing, and is sent manifests that stand on what it never gets. What a manifest came with is where the manifest
# is, also if these records forgot who acknowledged it.
_LACKING: Final = (
    "FROM objects o WHERE released=1 AND name NOT IN (SELECT name FROM condemned) "
    "AND (EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name AND r.provider<>?1) OR (stream, seq) IN "
    "(SELECT m.stream, m.seq FROM objects m JOIN receipts r ON r.name=m.name WHERE m.is_manifest=1 "
    "AND r.provider<>?1)) "
    "AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name AND r.provider=?1)"
)


class Left(NamedTuple):
    """An object that left the outbox although a provider lacks it."""

    name: str
    size: int
    sha256: bytes
    is_manifest: bool
    stream: bytes
    seq: int


class Mirrors:
    """Who was left behind, and what they lack. Each method is one transaction.

    Attributes:
        turns: held by whoever decides what leaves the outbox, and by whoever finds that a provider has caught up. Else
            one of them could go by what the other has just changed, and an object would leave that nobody brings there.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.turns = threading.RLock()

    def behind(self) -> dict[str, int]:
        """Providers that were left behind, and since when (ns). Nothing is uploaded to one before it has caught up:
        whoever sees a manifest there is to find everything that it stands on."""
        return behind(self._connection)

    def leave(self, providers: Iterable[str], at_ns: int) -> None:
        """These are not waited for any more. Before anything leaves the outbox that they lack."""
        rows = [(_KEY + name, at_ns.to_bytes(8, "big")) for name in providers]
        with self._connection.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO meta VALUES(?,?)", rows)

    def lacking(self, provider: str) -> list[Left]:
        """What lives, left the outbox, and was acknowledged by another one and never by this one: in the order in which
        it was made, so everything comes after what it stands on."""
        query = f"SELECT name, size, sha256, is_manifest, stream, seq {_LACKING} ORDER BY position"
        rows = self._connection.rows(query, provider)
        return [Left(name, size, sha, bool(manifest), stream, seq) for name, size, sha, manifest, stream, seq in rows]

    def holders(self, provider: str) -> dict[str, frozenset[str]]:
        """Who acknowledged what this provider lacks, by object."""
        query = f"SELECT h.name, h.provider FROM receipts h WHERE h.name IN (SELECT name {_LACKING})"  # noqa: S608
        found: dict[str, set[str]] = {}
        for name, holder in self._connection.rows(query, provider):
            found.setdefault(name, set()).add(holder)
        return {name: frozenset(holders) for name, holders in found.items()}

    def held_up(self, provider: str, leaders: Collection[str]) -> int:
        """Bytes that are in the outbox for the sake of this provider: every one of `leaders` has them."""
        marks = ",".join("?" * len(leaders))
        query = (
            f"SELECT coalesce(sum(size), 0) FROM objects o WHERE released=0 AND (SELECT count(*) FROM receipts r "  # noqa: S608
            f"WHERE r.name=o.name AND r.provider IN ({marks})) = ? "
            "AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name AND r.provider=?)"
        )
        size: int = self._connection.rows(query, *leaders, len(leaders), provider)[0][0]
        return size

    def lacks(self, provider: str) -> bool:
        """Whether it lacks something that left the outbox and that another one acknowledged."""
        return bool(self._connection.rows(f"SELECT 1 {_LACKING} LIMIT 1", provider))

    def caught_up(self, provider: str) -> bool:
        """It is as far as the outbox, if it lacks nothing any more that another one has; whether that is so."""
        with self._connection.transaction() as db:
            if db.execute(f"SELECT 1 {_LACKING} LIMIT 1", (provider,)).fetchone() is not None:
                return False
            db.execute("DELETE FROM meta WHERE key=?", (_KEY + provider,))
        return True

    def elsewhere(self, providers: Collection[str]) -> list[Left]:
        """What lives, left the outbox, and was acknowledged, but by none of `providers`."""
        marks = ",".join("?" * len(providers))
        query = (
            "SELECT name, size, sha256, is_manifest, stream, seq FROM objects o WHERE released=1 "  # noqa: S608
            "AND name NOT IN (SELECT name FROM condemned) AND EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name) "
            f"AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name AND r.provider IN ({marks})) "
            "AND (stream, seq) NOT IN (SELECT m.stream, m.seq FROM objects m JOIN receipts r ON r.name=m.name "
            f"WHERE m.is_manifest=1 AND r.provider IN ({marks})) ORDER BY position"
        )
        rows = self._connection.rows(query, *providers, *providers)
        return [Left(name, size, sha, bool(manifest), stream, seq) for name, size, sha, manifest, stream, seq in rows]

    def write_off(self, names: Iterable[str]) -> None:
        """Nobody has these any more, and nobody is to be brought them."""
        with self._connection.transaction() as db:
            db.executemany("DELETE FROM receipts WHERE name=?", [(name,) for name in names])

    def arrived(self, name: str, provider: str, at_ns: int) -> None:
        """A provider holds an object that it lacked, durably; what it stands on arrived before."""
        with self._connection.transaction() as db:
            db.execute("INSERT OR IGNORE INTO receipts VALUES(?,?,?)", (name, provider, at_ns))
            db.execute(
                "INSERT INTO frontiers SELECT stream, ?, seq, ? FROM objects WHERE name=? AND is_manifest=1 "
                "ON CONFLICT DO UPDATE SET seq=max(seq, excluded.seq), at=excluded.at",
                (provider, at_ns, name),
            )

    def found(self, names: Collection[str], provider: str, at_ns: int) -> int:
        """A provider was seen to hold these, durably. Those that this device did not make are passed over; how many
        it did.

        Each manifest moves the frontier if everything of its stream up to it is there.
        """
        with self._connection.transaction() as db:
            known = [name for (name,) in db.execute("SELECT name FROM objects ORDER BY position") if name in names]
            db.executemany("INSERT OR IGNORE INTO receipts VALUES(?,?,?)", [(one, provider, at_ns) for one in known])
            # What was swept there and copied again by chance is to be swept again.
            db.executemany("DELETE FROM swept WHERE name=? AND provider=?", [(one, provider) for one in known])
            first_lacking = dict(
                db.execute(
                    "SELECT stream, min(seq) FROM objects o WHERE name NOT IN (SELECT name FROM condemned) "
                    "AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name AND r.provider=?) "
                    "AND (released=0 OR EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name)) GROUP BY stream",
                    (provider,),
                )
            )
            reached: dict[bytes, int] = {}
            for stream, seq in db.execute(
                "SELECT stream, seq FROM objects o JOIN receipts r ON r.name=o.name WHERE is_manifest=1 AND provider=?",
                (provider,),
            ):
                if seq < first_lacking.get(stream, seq + 1):
                    reached[stream] = max(seq, reached.get(stream, 0))
            db.executemany(
                "INSERT INTO frontiers VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET "
                "at=CASE WHEN excluded.seq>seq THEN excluded.at ELSE at END, seq=max(seq, excluded.seq)",
                [(stream, provider, seq, at_ns) for stream, seq in reached.items()],
            )
        return len(known)


def behind(records: Records) -> dict[str, int]:
    """Providers that were left behind, and since when (ns)."""
    rows = records.rows("SELECT key, value FROM meta WHERE key LIKE 'mirror:%'")
    return {key.removeprefix(_KEY): int.from_bytes(value, "big") for key, value in rows}


def amount(records: Records, provider: str) -> tuple[int, int]:
    """Objects and bytes that left the outbox and that a provider lacks which was left behind; none for any other."""
    if provider not in behind(records):
        return 0, 0
    objects, size = records.rows(f"SELECT count(*), coalesce(sum(size), 0) {_LACKING}", provider)[0]
    return objects, size
