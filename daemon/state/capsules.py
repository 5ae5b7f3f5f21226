"""Capsules that nobody could open yet, where they were sealed: kept until somebody unlocks and proves them.

The device that seals a pack or a manifest cannot open it. One bit that flipped in a capsule would show at the restore,
as 16 MiB that are lost; with its few bytes kept here, it shows at the next unlock, while the content is still there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from chatkeep.daemon.state.connection import Connection


class Capsule(NamedTuple):
    """An object's name, and what proves it: a pack's footer, or a manifest's beginning up to its commitment."""

    name: str
    proof: bytes


class FailedCapsule(NamedTuple):
    """An object that does not open: its name, the code of the error, its hash, and the stream that it was made in."""

    name: str
    code: str
    sha256: bytes
    stream: bytes


class Capsules:
    """The rows of capsules that are not proven. Each method is one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def unproven(self) -> list[Capsule]:
        """Those that were not tried yet."""
        return [Capsule(*row) for row in self._connection.rows("SELECT name, proof FROM capsules WHERE failed IS NULL")]

    def proven(self, names: Iterable[str]) -> None:
        """They open: nothing more is to be remembered of them."""
        with self._connection.transaction() as db:
            db.executemany("DELETE FROM capsules WHERE name=?", [(name,) for name in names])

    def failed(self, name: str, code: str) -> None:
        """It does not open. Nothing known is in it any more."""
        with self._connection.transaction() as db:
            db.execute("UPDATE capsules SET failed=? WHERE name=?", (code, name))
            db.execute("DELETE FROM known WHERE pack IN (SELECT sha256 FROM objects WHERE name=?)", (name,))

    def failures(self) -> list[FailedCapsule]:
        """Those that were tried and do not open."""
        query = (
            "SELECT c.name, c.failed, o.sha256, o.stream FROM capsules c JOIN objects o ON o.name=c.name "
            "WHERE c.failed IS NOT NULL ORDER BY c.name"
        )
        return [FailedCapsule(*row) for row in self._connection.rows(query)]

    def forget_failures(self) -> None:
        """What is newest of every source stands without them: older snapshots stay as they are."""
        with self._connection.transaction() as db:
            db.execute("DELETE FROM capsules WHERE failed IS NOT NULL")
