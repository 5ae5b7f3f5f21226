"""Objects in one SQLite file, as a provider for Chatkeep: a whole vault in a file that is easy to carry."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from chatkeep.config.key import Key
from chatkeep.providers import base
from chatkeep.providers.probing import observe
from chatkeep.providers.registry import Opening, ProviderType

WAIT = 10.0
"""Seconds to wait for another writer of the file. SQLite lets one write at a time."""

_SCHEMA = "CREATE TABLE IF NOT EXISTS objects(name TEXT PRIMARY KEY, body BLOB NOT NULL, stored REAL NOT NULL)"
_MEANINGS: dict[int, type[base.ProviderError]] = {
    sqlite3.SQLITE_FULL: base.QuotaExceeded,
    sqlite3.SQLITE_TOOBIG: base.QuotaExceeded,
    sqlite3.SQLITE_READONLY: base.PermissionRefused,
    sqlite3.SQLITE_PERM: base.PermissionRefused,
    sqlite3.SQLITE_CANTOPEN: base.StorageMissing,
    sqlite3.SQLITE_NOTADB: base.StorageMissing,
    sqlite3.SQLITE_ERROR: base.StorageMissing,  # it has no table of objects
    sqlite3.SQLITE_CORRUPT: base.ObjectDamaged,
}


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """The keys of the type `sqlite`."""

    place: ClassVar[tuple[str, ...]] = ("path",)

    path: Annotated[Path, Key("The file that holds the vault. chatkeep init makes it.", example="/mnt/stick/vault.db")]


class SqliteProvider:
    """A table of names and bodies. A transaction makes an object whole or absent, and a primary key makes a second put
    of a name fail, so little is left to do here but to say it in the words of the contract."""

    def __init__(self, name: str, path: Path, *, create: bool = False) -> None:
        self.name = name
        self._path = path
        if create:
            with self._file("rwc") as file:
                file.execute(_SCHEMA)

    def put(self, name: str, body: bytes) -> None:
        base.validate_name(name)
        with self._file(object=name) as file:
            row = (name, body, time.time())
            if file.execute("INSERT INTO objects VALUES(?, ?, ?) ON CONFLICT DO NOTHING", row).rowcount:
                return
        try:
            if self.get(name) != body:
                raise base.ObjectConflict(provider=self.name, object=name)
        except base.ObjectNotFound as deleted:  # between the two; the next put finds the name free
            raise base.Unavailable(provider=self.name, object=name) from deleted

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise ValueError("length")
        base.validate_name(name)
        with self._file(object=name) as file:
            size = self._row(file, name)[0]
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            wanted = size - start if length is None else min(length, size - start)
            cut = "SELECT substr(body, ?, ?) FROM objects WHERE name = ?"
            row = file.execute(cut, (start + 1, wanted, name)).fetchone()
        if row is None:  # deleted meanwhile
            raise base.ObjectNotFound(provider=self.name, object=name)
        return row[0] or b""  # nothing of a body is NULL here

    def stat(self, name: str) -> base.ObjectStat:
        base.validate_name(name)
        with self._file(object=name) as file:
            size, stored = self._row(file, name)
        return base.ObjectStat(name, size, stored)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        return self._pages(prefix)

    def delete(self, name: str) -> None:
        base.validate_name(name)
        with self._file(object=name) as file:
            file.execute("DELETE FROM objects WHERE name = ?", (name,))

    def probe(self) -> base.Capabilities:
        seen = observe(self)
        return dataclasses.replace(seen, free_bytes=shutil.disk_usage(self._path.parent).free)

    def close(self) -> None:
        pass  # nothing is held between two calls

    def _pages(self, prefix: str) -> Iterator[base.ObjectStat]:
        after, full = "", True
        while full:  # a page at a time: no lock is held while the caller works
            with self._file() as file:
                rows = file.execute(
                    "SELECT name, length(body), stored FROM objects "
                    "WHERE name > ? AND substr(name, 1, ?) = ? ORDER BY name LIMIT 1000",
                    (after, len(prefix), prefix),
                ).fetchall()
            full = len(rows) == 1000
            after = rows[-1][0] if rows else ""
            yield from (base.ObjectStat(*row) for row in rows if base.is_name(row[0]))

    def _row(self, file: sqlite3.Connection, name: str) -> tuple[int, float]:
        found = file.execute("SELECT length(body), stored FROM objects WHERE name = ?", (name,))
        row: tuple[int, float] | None = found.fetchone()
        if row is None:
            raise base.ObjectNotFound(provider=self.name, object=name)
        return row

    @contextlib.contextmanager
    def _file(self, mode: str = "rw", **about: object) -> Iterator[sqlite3.Connection]:
        """The open file, for one transaction; what SQLite says of it is translated. It is never made here by the way:
        a stick that is not plugged in must not become a file on another disk."""
        try:
            uri = f"{Path(os.path.abspath(self._path)).as_uri()}?mode={mode}"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=WAIT)) as file:
                file.execute("PRAGMA synchronous = EXTRA")  # on return it survives a power cut
                with file:
                    yield file
        except sqlite3.Error as problem:
            code = getattr(problem, "sqlite_errorcode", 0) & 0xFF  # the low byte: the rest says more than is needed
            kind = _MEANINGS.get(code, base.Unavailable)
            raise kind(provider=self.name, path=str(self._path), sqlite=code, **about) from problem


def _open(opening: Opening) -> base.Provider:
    return SqliteProvider(opening.name, opening.options.path, create=opening.create)


TYPE = ProviderType(options=SqliteOptions, open=_open)
