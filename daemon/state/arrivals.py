"""Which provider lacks what it ought to have, although nothing waits for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from chatkeep.daemon.state.connection import Connection

CHECKPOINTS: Final = bytes(16)
"""The stream that the outbox has checkpoints under: no source's, since streams are random."""


class FoundPack(NamedTuple):
    """A pack of this device in storage. `stream`, `seq`: a snapshot that it came with; `providers`: who has it."""

    name: str
    sha256: bytes
    size: int
    stream: bytes
    seq: int
    providers: Sequence[str]


class Arrivals:
    """Receipts that are wanting, or that no longer say the truth. Each method is one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def unreceived(self, provider: str) -> set[str]:
        """What lives, left the outbox, and was acknowledged by other providers and never by this one."""
        query = (
            "SELECT name FROM objects o WHERE released=1 AND stream<>? AND name NOT IN (SELECT name FROM condemned) "
            "AND EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name) "
            "AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.name=o.name AND r.provider=?)"
        )
        return {name for (name,) in self._connection.rows(query, CHECKPOINTS, provider)}

    def checkpoint_copy(self) -> bytes | None:
        """The bytes of the newest checkpoint that this device made: every storage may lose it."""
        rows = self._connection.rows("SELECT value FROM meta WHERE key='newest_checkpoint'")
        return bytes(rows[0][0]) if rows else None

    def restate(self, found: Iterable[FoundPack], gone: Collection[str], at_ns: int) -> None:
        """Which packs storage has, instead of what was noted of those that left the outbox. Nobody has those named in
        `gone`."""
        with self._connection.transaction() as db:
            db.execute(
                "DELETE FROM receipts WHERE name IN (SELECT name FROM objects WHERE is_manifest=0 AND released=1)"
            )
            for table in ("capsules", "objects"):
                db.executemany(f"DELETE FROM {table} WHERE name=?", [(name,) for name in gone])  # noqa: S608
            for one in found:
                db.execute(
                    "INSERT OR IGNORE INTO objects(name, stream, seq, is_manifest, sha256, size, released) "
                    "VALUES(?,?,?,0,?,?,1)",
                    (one.name, one.stream, one.seq, one.sha256, one.size),
                )
                rows = [(one.name, provider, at_ns) for provider in one.providers]
                db.executemany("INSERT OR IGNORE INTO receipts VALUES(?,?,?)", rows)

    def forget(self) -> None:
        """Nothing is known any more of who has what left the outbox, checkpoints aside. Of manifests neither: a
        provider would be found to lack the packs that they came with, and be sent nothing while nobody has those."""
        with self._connection.transaction() as db:
            query = "DELETE FROM receipts WHERE name IN (SELECT name FROM objects WHERE released=1 AND stream<>?)"
            db.execute(query, (CHECKPOINTS,))

    def left(self) -> dict[bytes, tuple[str, int, bytes, int]]:
        """Packs that left the outbox, by their hash: name, size, stream, seq."""
        query = "SELECT sha256, name, size, stream, seq FROM objects WHERE is_manifest=0 AND released=1"
        return {sha256: tuple(rest) for sha256, *rest in self._connection.rows(query)}

    def send_again(self, name: str, providers: Sequence[str]) -> None:
        """These providers have no copy of a committed object any more. Its bytes are whole, fsynced and under their
        final name in the outbox."""
        with self._connection.transaction() as db:
            db.executemany("DELETE FROM receipts WHERE name=? AND provider=?", [(name, one) for one in providers])
            db.execute("UPDATE objects SET released=0 WHERE name=?", (name,))
