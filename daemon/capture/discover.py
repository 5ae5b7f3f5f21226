"""What is a database and what is an ordinary file: told by content, never by name, one directory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from chatkeep.daemon.capture.errors import CaptureError
from chatkeep.daemon.capture.tree import Found, Kind, SourceTree, translated

MIN_DATABASE = 512  # bytes: the smallest page SQLite has
HEADER = 100  # bytes: SQLite's file header (https://www.sqlite.org/fileformat2.html section 1.3)
COMPANIONS = (b"-wal", b"-shm", b"-journal")
_MAGIC = b"SQLite format 3\x00"
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_WAL_HEADER = 32  # bytes

# (file, its `-wal` where that holds a header) -> page size in bytes when the file is a database, else None.
# May raise CaptureError: then the file is what it was before.
Probe = Callable[[Found, Found | None], int | None]


class Database(NamedTuple):
    """A database file, with those of its companions that exist."""

    found: Found
    page_size: int  # bytes, from the probe; for one that the probe did not know again, the remembered one
    wal: Found | None
    shm: Found | None
    journal: Found | None


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
        page_size = _ask(probe, found, wal) or _as_before(found, remembered)
        if page_size is None:
            continue
        databases.append(Database(found, page_size, wal, shm, journal))
        taken.update(one.path for one in (found, wal, shm, journal) if one is not None)
    return Classified([found for found in entries if found.path not in taken], databases)


def header_probe(tree: SourceTree) -> Probe:
    """A probe that reads the first 100 bytes; without SQLite's magic there, the WAL's header tells (encrypted
    pages)."""

    def probe(found: Found, wal: Found | None) -> int | None:
        page_size = database_page_size(_head(tree, found.path, HEADER))
        if page_size is None and wal is not None:
            page_size = wal_page_size(_head(tree, wal.path, _WAL_HEADER))
            # Not a whole number of pages: not what this WAL belongs to.
            if page_size is not None and found.size % page_size:
                return None
        return page_size

    return probe


def database_page_size(header: bytes) -> int | None:
    """The page size in SQLite's file header, or None when this is no such header."""
    if len(header) < HEADER or not header.startswith(_MAGIC):
        return None
    size = int.from_bytes(header[16:18], "big")
    return _valid(65536 if size == 1 else size)


def wal_page_size(header: bytes) -> int | None:
    """The page size in a WAL's header (section 4.1 of the same page), or None when this is no such header."""
    if len(header) < _WAL_HEADER or header[:4] not in _WAL_MAGIC:
        return None
    return _valid(int.from_bytes(header[8:12], "big"))


def _valid(page_size: int) -> int | None:
    return page_size if 512 <= page_size <= 65536 and page_size.bit_count() == 1 else None


def _head(tree: SourceTree, path: bytes, count: int) -> bytes:
    fd = tree.open(path)
    try:
        with translated(path):
            return os.pread(fd, count, 0)
    finally:
        os.close(fd)


def _ask(probe: Probe, found: Found, wal: Found | None) -> int | None:
    try:
        return probe(found, wal if wal is not None and wal.size >= _WAL_HEADER else None)
    except CaptureError:
        return None  # whoever captures it meets the same, and has the place to say so


def _as_before(found: Found, remembered: Mapping[bytes, int]) -> int | None:
    page_size = remembered.get(found.path)
    return page_size if page_size and found.size % page_size == 0 else None
