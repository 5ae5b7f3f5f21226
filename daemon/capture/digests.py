"""Digests of pages: what was captured last, page by page, and what the next capture is compared with.

The digests are XXH3-128 with a secret seed (docs/format.md, section 12): they find what changed, and prove nothing
against an attacker.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Protocol, Self

import blake3
import xxhash

from chatkeep.daemon.capture.errors import TableIncomplete

DIGEST_SIZE = 16
UNKNOWN = bytes(DIGEST_SIZE)  # an entry that equals no page: what is not known is dirty
CHUNK_PAGES = 4096  # digests handed out at a time: 64 KiB

_MAGIC = b"CKDIGT\0\1"
_HEADER = struct.Struct(">8s16sI4x")
_LOCK_BYTE = 1 << 30  # SQLite's lock bytes; the page that holds them is never used (sqlite.org, fileformat2, 1.4)


def lock_page(page_size: int) -> int:
    """The number of the page that SQLite never uses because its lock bytes lie in it."""
    return _LOCK_BYTE // page_size + 1


def page_digests(pages: bytes | bytearray | memoryview, page_size: int, seed: int) -> bytes:
    """16 bytes for each page of `pages`, which holds whole pages. `seed`: 64 bits."""
    view = memoryview(pages)
    if len(view) % page_size:
        raise ValueError(len(view))
    digest = xxhash.xxh3_128_digest
    return b"".join([digest(view[at : at + page_size], seed) for at in range(0, len(view), page_size)])


def page_table_digest(digests: Iterable[bytes], page_size: int, page_count: int, key: bytes, seed: int) -> bytes:
    """The digest of a whole database from those of its pages, in order, in pieces of whole digests.

    The lock page counts as zeros whatever its entry says. TableIncomplete when another entry is unknown: a digest over
    it would vouch for a page that nobody read. ValueError when there are not `page_count` digests.
    """
    total = blake3.blake3(struct.pack(">IQ", page_size, page_count), key=key)
    hole = lock_page(page_size)
    first = 1
    for piece in digests:
        count = len(piece) // DIGEST_SIZE
        if first <= hole < first + count:
            at = (hole - first) * DIGEST_SIZE
            piece = piece[:at] + page_digests(bytes(page_size), page_size, seed) + piece[at + DIGEST_SIZE :]
        unknown = _first_unknown(piece)
        if unknown is not None:
            raise TableIncomplete(page=first + unknown)
        total.update(piece)
        first += count
    if first != page_count + 1:
        raise ValueError(first - 1)
    return total.digest()


def differing(found: bytes, known: bytes, first: int) -> list[int]:
    """Page numbers whose digests in `found` (from page `first` on) are not those in `known`, which may be shorter."""
    if found == known:
        return []
    size = DIGEST_SIZE
    return [first + at // size for at in range(0, len(found), size) if found[at : at + size] != known[at : at + size]]


class Digests(Protocol):
    """Digests of pages 1 ... `count`; `read` gives UNKNOWN for pages that have none."""

    @property
    def page_size(self) -> int:
        """Bytes in a page."""

    @property
    def count(self) -> int:
        """The highest page that may have a digest."""

    def read(self, first: int, pages: int) -> bytes:
        """16 bytes for each of `pages` pages from `first` on."""


class DigestTable:
    """The digests of the last committed capture: a flat file in our own state directory.

    It is not written atomically and need not be: changes come from a redo record of the state database, and `apply` and
    `truncate` give the same table however often they are repeated. `generation` ties the file to that database: a table
    of another generation, another page size or another format is dropped and begins empty, so that every page is dirty.
    """

    def __init__(self, path: str | bytes | os.PathLike[str], page_size: int, generation: bytes) -> None:
        self._page_size = page_size
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        header = _HEADER.pack(_MAGIC, generation, page_size)
        try:
            if os.pread(self._fd, _HEADER.size, 0) != header:
                os.ftruncate(self._fd, 0)
                self._write(header, 0)
        except BaseException:
            self.close()
            raise
        # A crash can leave a part of an entry at the end: it is no digest.
        self._count = (os.fstat(self._fd).st_size - _HEADER.size) // DIGEST_SIZE

    @property
    def page_size(self) -> int:
        """Bytes in a page."""
        return self._page_size

    @property
    def count(self) -> int:
        """Pages the table reaches to; single entries below may be unknown."""
        return self._count

    def read(self, first: int, pages: int) -> bytes:
        """As `Digests.read`."""
        known = min(pages, max(0, self._count - first + 1))
        found = os.pread(self._fd, known * DIGEST_SIZE, self._at(first)) if known else b""
        return found + bytes(pages * DIGEST_SIZE - len(found))

    def apply(self, runs: Iterable[tuple[int, bytes]]) -> None:
        """Set digests: (first page, 16 bytes per page). Pages skipped beyond the end become unknown."""
        for first, digests in runs:
            self._write(digests, self._at(first))
            self._count = max(self._count, first - 1 + len(digests) // DIGEST_SIZE)

    def truncate(self, count: int) -> None:
        """Forget the digests beyond page `count`: pages that come back after a shrink must be dirty."""
        if count < self._count:
            os.ftruncate(self._fd, self._at(count + 1))
            self._count = count

    def sync(self) -> None:
        """Make what was applied durable."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file; safe to repeat."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, piece: bytes, at: int) -> None:
        left = memoryview(piece)
        while left:  # a full disk takes a part; what stood in place of the rest would be believed
            written = os.pwrite(self._fd, left, at)
            left, at = left[written:], at + written

    def _at(self, page: int) -> int:
        return _HEADER.size + (page - 1) * DIGEST_SIZE


class Overlay:
    """Digests over digests: what the table will hold once the capture at hand is committed.

    It is what pre-copied pages are compared with, the source of the redo record, and of the page-table digest.
    """

    def __init__(self, under: Digests) -> None:
        self._under = under
        self._reach = under.count  # pages of `under` that still count
        self._count = under.count
        self._runs: dict[int, bytes] = {}
        self._firsts: list[int] = []  # the keys of `_runs`, ascending

    @property
    def page_size(self) -> int:
        """Bytes in a page."""
        return self._under.page_size

    @property
    def count(self) -> int:
        """The highest page that may have a digest."""
        return self._count

    def put(self, first: int, digests: bytes) -> None:
        """Set digests from page `first` on. A later one wins."""
        self._cut(first, len(digests) // DIGEST_SIZE)
        self._insert(first, bytes(digests))
        self._count = max(self._count, first - 1 + len(digests) // DIGEST_SIZE)

    def truncate(self, count: int) -> None:
        """Pages beyond are unknown, also when the table grows again."""
        if count < self._count:
            self._cut(count + 1, self._count - count)
            self._count = count
        self._reach = min(self._reach, count)

    def read(self, first: int, pages: int) -> bytes:
        """As `Digests.read`."""
        known = min(pages, max(0, self._reach - first + 1))
        found = bytearray(self._under.read(first, known) if known else b"")
        found.extend(bytes(pages * DIGEST_SIZE - len(found)))
        for start, end in self._overlaps(first, pages):
            run = self._runs[start]
            low, high = max(start, first), min(end, first + pages)
            found[(low - first) * DIGEST_SIZE : (high - first) * DIGEST_SIZE] = run[
                (low - start) * DIGEST_SIZE : (high - start) * DIGEST_SIZE
            ]
        return bytes(found)

    def runs(self) -> list[tuple[int, bytes]]:
        """What `DigestTable.apply` takes, ascending, after `DigestTable.truncate(reach)`."""
        return [(first, self._runs[first]) for first in self._firsts]

    @property
    def reach(self) -> int:
        """How many pages of the table below still count: truncate it to this before `apply`."""
        return self._reach

    def chunks(self, page_count: int) -> Iterator[bytes]:
        """All digests 1 ... `page_count` in order, for `page_table_digest`."""
        for first in range(1, page_count + 1, CHUNK_PAGES):
            yield self.read(first, min(CHUNK_PAGES, page_count + 1 - first))

    def _insert(self, first: int, digests: bytes) -> None:
        if first not in self._runs:
            insort(self._firsts, first)
        self._runs[first] = digests

    def _overlaps(self, first: int, pages: int) -> list[tuple[int, int]]:
        order = self._firsts
        # Runs never overlap each other, so only one that starts before `first` can reach into the range.
        at = max(0, bisect_right(order, first) - 1)
        found = []
        while at < len(order) and order[at] < first + pages:
            start = order[at]
            at += 1
            end = start + len(self._runs[start]) // DIGEST_SIZE
            if end > first:
                found.append((start, end))
        return found

    def _cut(self, first: int, pages: int) -> None:
        for start, end in self._overlaps(first, pages):
            run = self._runs.pop(start)
            del self._firsts[bisect_left(self._firsts, start)]
            if start < first:
                self._insert(start, run[: (first - start) * DIGEST_SIZE])
            if end > first + pages:
                self._insert(first + pages, run[(first + pages - start) * DIGEST_SIZE :])


def _first_unknown(digests: bytes) -> int | None:
    at = digests.find(UNKNOWN)
    while at >= 0:
        if at % DIGEST_SIZE == 0:
            return at // DIGEST_SIZE
        at = digests.find(UNKNOWN, at + 1)
    return None
