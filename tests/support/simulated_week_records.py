"""The records of the simulated device: the real ones, in memory, and small files in a real outbox. Beside them what is
true, found out from those files and from what providers acknowledged."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from chatkeep.config.amounts import Size
from chatkeep.config.model import Config, FolderOptions, ProviderConfig, Source
from chatkeep.config.running import OutboxConfig
from chatkeep.daemon.service.engine import figures
from chatkeep.daemon.state import State
from chatkeep.daemon.state.connection import Connection
from chatkeep.daemon.state.rows import Commit, ObjectRow, SnapshotRow
from chatkeep.daemon.state.schema import SCHEMA, SINCE_1
from tests.support.simulated_week_storage import Sealed, Storage, Truth

UNIT = 16
"""Bytes of the smallest object: enough for a number, so that no two are the same."""


class _InMemory(Connection):
    """A database that no disk waits for."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.serial = directory, threading.RLock()
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.executescript(SCHEMA + SINCE_1)

    @property
    def changes(self) -> int:
        """Grows with each row that changes."""
        return self._connection.total_changes


class Records:
    """What the device has on record, and what is so.

    Attributes:
        sealed: everything that was ever committed, by name.
        here: of that what the outbox has, by hash in hex; `waiting`: bytes of it.
        standing: what the records said when they were read last; `true`: what was so then, by provider.
    """

    def __init__(self, place: Path, sources: Sequence[str], limit: int) -> None:
        (place / "outbox" / "tmp").mkdir(parents=True)
        self.sealed: dict[str, Sealed] = {}
        self.here: dict[str, Sealed] = {}
        self.storages: dict[str, Storage] = {}
        self.limit = limit
        self.waiting = 0
        self._place, self._sources = place, sources
        self._connection = _InMemory(place)
        self.state = State(place, self._connection, -1)
        self._numbers = itertools.count(1)
        self._newest: dict[str, str] = {}
        self._read_at = self._looked_at = -1  # of the database's changes
        self._left: list[str] = []
        self.standing: figures.EngineStanding
        self.true: dict[str, Truth] = {}

    @functools.cached_property
    def config(self) -> Config:
        """As the storages are."""
        return Config(
            sources=tuple(Source(self._place / name, name) for name in self._sources),
            providers=tuple(
                ProviderConfig(name, "folder", FolderOptions(self._place / name), one.required)
                for name, one in self.storages.items()
            ),
            state_dir=self._place,
            outbox=OutboxConfig(Size(self.limit)),
        )

    def commit(self, source: str, begun: float, size: int) -> None:
        """A snapshot is made: a pack of so many units, and a manifest that stands on it and on the one before."""
        stream = self.state.stream(source)
        number, clock, seq = next(self._numbers), int(begun * 1e9), stream.seq + 1
        rows: list[ObjectRow] = []
        for is_manifest, body in ((False, b"p%015d" % number * size), (True, b"m%015d" % number)):
            sha = hashlib.sha256(body)
            name = f"d/s/{source}/{sha.hexdigest()}"
            before = (rows[0].name, *filter(None, [self._newest.get(source)])) if is_manifest else ()
            (self.state.outbox.directory / sha.hexdigest()).write_bytes(body)
            self.sealed[name] = self.here[sha.hexdigest()] = Sealed(name, len(body), is_manifest, clock, before)
            for storage in self.storages.values():
                storage.take(self.sealed[name])
            self.waiting += len(body)
            rows.append(ObjectRow(name, sha.digest(), len(body), is_manifest))
        self._newest[source] = rows[1].name
        snapshot = SnapshotRow(seq, rows[1].name, clock, clock, True, b"")
        self.state.commit(Commit(stream.stream, source, 1, snapshot, rows[1].sha256, rows, ()))

    @property
    def unread(self) -> bool:
        """Whether something changed since the last time."""
        return self._read_at != self._connection.changes

    def read(self) -> None:
        """What the records say, which is true. As the daemon reads them after each piece of work, and `status` at any
        time."""
        if not self.unread:
            return
        self.look()
        self._read_at = self._connection.changes
        self.standing = figures.read(self.config, self.state, 1)
        assert (self.standing.waiting, self.standing.full) == (self.waiting, self.waiting > self.limit)
        self.true = {one.name: one.truth() for one in self.storages.values()}
        for one in self.standing.providers:
            assert one.objects == len(self.storages[one.name].lacks)
            self.true[one.name].compare(one)

    def look(self) -> None:
        """What left the outbox since the last time may have."""
        if self._looked_at == self._connection.changes:
            return
        self._looked_at = self._connection.changes
        there = {*os.listdir(self.state.outbox.directory)} - {self.state.outbox.staging.name}
        assert there <= self.here.keys(), "a file that nobody made"
        for gone in self.here.keys() - there:
            one = self.here.pop(gone)
            self.waiting -= one.size
            for storage in self.storages.values():
                if one.name in storage.lacks:
                    assert not storage.required, f"let go before {storage.name} acknowledged it"
                    self._left += [] if storage.left else [storage.name]
                    storage.left[one.name] = one

    def take_left(self) -> list[str]:
        """Who was left behind since the last time."""
        self.look()
        left, self._left = self._left, []
        return left

    def held_up(self) -> int:
        """Bytes that are here for nobody but such as may be away."""
        required = [one for one in self.storages.values() if one.required]
        return sum(one.size for one in self.here.values() if not any(one.name in other.lacks for other in required))
