"""What is a database and what is an ordinary file: told by content, never by name, one directory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from chatkeep.daemon.capture import wal as log
from chatkeep.daemon.capture.database import DatabaseKind
from chatkeep.daemon.capture.errors import CaptureError
from chatkeep.daemon.capture.layout import HEADER_SIZE, parse_file_header
from chatkeep.daemon.capture.tree import Found, Kind, SourceTree, translated

MIN_DATABASE = 512  # bytes: the smallest page SQLite has
COMPANIONS = (b"-wal", b"-shm", b"-journal")

# (file, its `-wal` where that is long enough to say something) -> what kind of database the file is, None for none.
# May raise CaptureError: then the file is what it was before.
Probe = Callable[[Found, Found | None], DatabaseKind | None]


class Database(NamedTuple):
    """A database file, with those of its companions that exist."""

    found: Found
    page_size: int  # bytes, from the probe; for one that the probe did not know again, the remembered one
    wal: Found | None
    shm: Found | None
    journal: Found | None
    opaque: bool = False  # nothing in the file itself shows that it is a database: its pages are encrypted


class Classified(NamedTuple):
    """The entries of one directory. Every entry is in exactly one place."""

    ordinary: list[Found]  # to be stored as they are: directories, links, files
    databases: list[Database]  # their companions are inside, and are not stored as files


def classify(
    entries: Collection[Found],
    probe: Probe,
    *,
    remembered: Mapping[bytes, int],
    known_ordinary: Callable[[Found], bool],
) -> Classified:
    """Splits the entries of one directory.

    `remembered`: paths captured as databases before, with their page size. One of them stays a database also when its
    content does not show it (pages encrypted by the application, no WAL at the moment), as long as its size is a
    whole number of pages. `known_ordinary`: True for a file found ordinary before and proven unchanged since; it is
    not opened again, unless a WAL or a journal has appeared beside it. A companion without its database is an
    ordinary file: it may be all that is left of one.
    """
    files = {found.path: found for found in entries if found.kind is Kind.FILE}
    databases: list[Database] = []
    taken: set[bytes] = set()
    for _, found in sorted(files.items()):
        # In the order of names `x` comes before `x-wal`, which is SQLite's as long as `x` is a database, whatever it
        # holds.
        if found.size < MIN_DATABASE or found.path in taken:
            continue
        wal, shm, journal = (files.get(found.path + suffix) for suffix in COMPANIONS)
        if wal is None and journal is None and found.path not in remembered and known_ordinary(found):
            continue
        kind = _ask(probe, found, wal) or _as_before(found, remembered)
        if kind is None:
            continue
        databases.append(Database(found, kind.page_size, wal, shm, journal, kind.opaque))
        taken.update(one.path for one in (found, wal, shm, journal) if one is not None)
    return Classified([found for found in entries if found.path not in taken], databases)


def header_probe(tree: SourceTree) -> Probe:
    """A probe that reads the first 100 bytes; without SQLite's magic there, the WAL's header tells (encrypted
    pages)."""

    def probe(found: Found, wal: Found | None) -> DatabaseKind | None:
        header = parse_file_header(_head(tree, found.path, HEADER_SIZE))
        if header is not None:
            return DatabaseKind(header.page_size, opaque=False)
        first = log.parse_header(_head(tree, wal.path, log.HEADER_SIZE)) if wal is not None else None
        # Not a whole number of pages: not what this WAL belongs to.
        if first is None or found.size % first.page_size:
            return None
        return DatabaseKind(first.page_size, opaque=True)

    return probe


def _head(tree: SourceTree, path: bytes, count: int) -> bytes:
    fd = tree.open(path)
    try:
        with translated(path):
            return os.pread(fd, count, 0)
    finally:
        os.close(fd)


def _ask(probe: Probe, found: Found, wal: Found | None) -> DatabaseKind | None:
    try:
        return probe(found, wal if wal is not None and wal.size >= log.HEADER_SIZE else None)
    except CaptureError:
        return None  # whoever captures it meets the same, and has the place to say so


def _as_before(found: Found, remembered: Mapping[bytes, int]) -> DatabaseKind | None:
    page_size = remembered.get(found.path)
    return DatabaseKind(page_size, opaque=True) if page_size and found.size % page_size == 0 else None
