"""Which provider lacks what it ought to have, although nothing waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chatkeep.daemon.state.connection import Connection

CHECKPOINTS: Final = bytes(16)
"""The stream that the outbox has checkpoints under: no source's, since streams are random."""


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

    def send_again(self, name: str, providers: Sequence[str]) -> None:
        """These providers have no copy of a committed object any more. Its bytes are whole, fsynced and under their
        final name in the outbox."""
        with self._connection.transaction() as db:
            db.executemany("DELETE FROM receipts WHERE name=? AND provider=?", [(name, one) for one in providers])
            db.execute("UPDATE objects SET released=0 WHERE name=?", (name,))
