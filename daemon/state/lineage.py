"""What this device remembers of itself, to notice that its records are older than what it has done, or are a copy."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from chatkeep.daemon.state.connection import Connection

_TIME: Final = struct.Struct(">Q")
_SEEN: Final = "seen:"  # a stream's id follows


class Lost(NamedTuple):
    """The records do not say what is in the vault: since when that is known (ns), and the code of why."""

    since: int
    code: str

    @classmethod
    def decode(cls, raw: bytes) -> Lost:
        """From the row."""
        return cls(*_stamped(raw))


class Copied(NamedTuple):
    """It was noticed that there is another copy of the records: when (ns), and how."""

    at: int
    how: str

    @classmethod
    def decode(cls, raw: bytes) -> Copied:
        """From the row."""
        return cls(*_stamped(raw))


class Lineage:
    """Rows about the records themselves. Each method is one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def heads(self) -> dict[bytes, dict[int, str]]:
        """Of every stream that these records made, the names of its manifests by seq; seq 0 has none.

        Those that were pruned and deleted are not remembered; the newest seq always is, with its hash.
        """
        found: dict[bytes, dict[int, str]] = {}
        for stream, seq, name in self._connection.rows(
            "SELECT s.stream, n.seq, n.name FROM streams s LEFT JOIN snapshots n ON n.stream=s.stream"
        ):
            own = found.setdefault(stream, {})
            if seq is not None:
                own[seq] = name
        return found

    def is_blank(self) -> bool:
        """Whether these records never had a snapshot."""
        return not self._connection.rows("SELECT 1 FROM snapshots LIMIT 1")

    def active(self) -> dict[bytes, tuple[str, int]]:
        """The streams that go on: source and newest seq."""
        rows = self._connection.rows("SELECT stream, source, seq FROM streams WHERE active=1")
        return {stream: (source, seq) for stream, source, seq in rows}

    def incomplete(self, sources: Iterable[str]) -> list[str]:
        """Those of `sources` whose newest snapshot lacks something, or that have none."""
        rows = self._connection.rows(
            "SELECT s.source FROM streams s JOIN snapshots n ON n.stream=s.stream AND n.seq=s.seq "
            "WHERE s.active=1 AND n.complete=1"
        )
        whole = {source for (source,) in rows}
        return [source for source in sources if source not in whole]

    def seen(self) -> set[bytes]:
        """Streams of this device that these records did not make, and that were told of already."""
        rows = self._connection.rows("SELECT key FROM meta WHERE key LIKE 'seen:%'")
        return {bytes.fromhex(key.removeprefix(_SEEN)) for (key,) in rows}

    def last_checkpoint(self) -> int:
        """The highest number of a checkpoint of this device that is known of; 0 for none."""
        made: int = self._connection.rows("SELECT coalesce(max(number), 0) FROM checkpoints")[0][0]
        seen = self._read("checkpoint")
        return made if seen is None else max(made, decode_checkpoint(seen))

    def note_seen(self, streams: Iterable[bytes], checkpoint: int) -> None:
        """These streams, and checkpoints up to this number, are no news any more."""
        with self._connection.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO meta VALUES(?,?)", [(_SEEN + one.hex(), b"") for one in streams])
            db.execute("INSERT OR REPLACE INTO meta VALUES('checkpoint',?)", (_TIME.pack(checkpoint),))

    def machine(self) -> bytes | None:
        """What stands for the machine that made these records; None before that was asked."""
        return self._read("machine")

    def note_machine(self, machine: bytes) -> None:
        """These records are of this machine from now on."""
        with self._connection.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES('machine',?)", (machine,))

    def lost(self) -> Lost | None:
        """Whether it is known that the records do not say what is in the vault."""
        raw = self._read("lost_since")
        return None if raw is None else Lost.decode(raw)

    def note_lost(self, at_ns: int, code: str) -> Lost:
        """Remember since when. The first time counts."""
        with self._connection.transaction() as db:
            raw = _TIME.pack(at_ns) + code.encode()
            db.execute("INSERT OR IGNORE INTO meta VALUES('lost_since',?)", (raw,))
            raw = db.execute("SELECT value FROM meta WHERE key='lost_since'").fetchone()[0]
        return Lost.decode(raw)

    def found_again(self) -> None:
        """The records are whole again, or begin anew."""
        with self._connection.transaction() as db:
            db.execute("DELETE FROM meta WHERE key='lost_since'")

    def copied(self) -> Copied | None:
        """When it was last noticed that there is another copy of these records."""
        raw = self._read("copied")
        return None if raw is None else Copied.decode(raw)

    def note_copied(self, at_ns: int, how: str) -> None:
        """Remember it for a while: a person should look."""
        with self._connection.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES('copied',?)", (_TIME.pack(at_ns) + how.encode(),))

    def settle_copied(self) -> None:
        """What was noticed of another copy is of no concern any more: these records were read back since."""
        with self._connection.transaction() as db:
            db.execute("DELETE FROM meta WHERE key='copied'")

    def _read(self, key: str) -> bytes | None:
        rows = self._connection.rows("SELECT value FROM meta WHERE key=?", key)
        return bytes(rows[0][0]) if rows else None


def decode_checkpoint(raw: bytes) -> int:
    """The number in the row of the newest checkpoint that was seen."""
    return int(_TIME.unpack(raw)[0])


def _stamped(raw: bytes) -> tuple[int, str]:
    return _TIME.unpack_from(raw)[0], raw[_TIME.size :].decode()
