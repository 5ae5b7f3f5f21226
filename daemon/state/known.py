"""Blobs of this device that are in the vault already, for streams that begin anew: what they hold is not sent again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from chatkeep.daemon.state.connection import Connection
from chatkeep.daemon.state.mirrors import behind


class KnownBlob(NamedTuple):
    """A blob's id, the hash of its pack, its place there."""

    blob: bytes
    pack: bytes
    slot: int


class Known:
    """The rows of known blobs. Every copy has its own, and a snapshot that uses one takes it: a file that somebody
    sends again is then sealed and uploaded like any other, and storage cannot tell that it was there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def count(self) -> int:
        """How many there are."""
        number: int = self._connection.rows("SELECT count(*) FROM known")[0][0]
        return number

    def copies(self, blob: bytes) -> list[KnownBlob]:
        """The copies of a blob."""
        query = "SELECT blob, pack, slot FROM known WHERE blob=? ORDER BY pack, slot"
        return [KnownBlob(*row) for row in self._connection.rows(query, blob)]

    def add(self, blobs: Iterable[KnownBlob]) -> None:
        """Add blobs; once more is once. None may be in a pack that was condemned or does not open."""
        with self._connection.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO known VALUES(?,?,?)", blobs)

    def clear(self) -> None:
        """Nothing is known any more."""
        with self._connection.transaction() as db:
            db.execute("DELETE FROM known")

    def sound_packs(self, providers: Collection[str]) -> set[bytes]:
        """Hashes of the packs of this device that each of `providers` acknowledged, whose capsule did not fail, and
        that no checkpoint condemned."""
        return self.acknowledged(providers) - self.refused()

    def acknowledged(self, providers: Collection[str]) -> set[bytes]:
        """Hashes of the packs that each of `providers` acknowledged. One that was left behind is brought what the
        others have: it counts only if there is no other."""
        providers = set(providers) - behind(self._connection).keys() or providers
        marks = ",".join("?" * len(set(providers)))
        query = (
            f"SELECT sha256 FROM objects o WHERE is_manifest=0 AND (SELECT count(*) FROM receipts r "  # noqa: S608
            f"WHERE r.name=o.name AND r.provider IN ({marks})) = ?"
        )
        return {row[0] for row in self._connection.rows(query, *sorted(set(providers)), len(set(providers)))}

    def refused(self) -> set[bytes]:
        """Hashes of the packs that nothing new may refer to: condemned, or with a capsule that does not open."""
        query = (
            "SELECT o.sha256 FROM objects o JOIN capsules c ON c.name=o.name WHERE c.failed IS NOT NULL "
            "UNION SELECT o.sha256 FROM objects o JOIN condemned c ON c.name=o.name"
        )
        return {row[0] for row in self._connection.rows(query)}
