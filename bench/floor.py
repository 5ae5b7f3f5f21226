"""The least that a change of a database can cost: its changed 4 KiB pages, compressed together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash
import zstandard

PAGE = 4096
LEVEL = 3
DIGEST = 16
_STEP = 256 * PAGE
_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True)
class Floor:
    """`pages`: how many differ. `size`: bytes of all of them in one Zstandard frame of level 3."""

    pages: int
    size: int


def databases(profile: Path) -> list[Path]:
    """Every SQLite database below a directory, by content, largest first."""
    found = [path for path in profile.rglob("*") if path.is_file() and not path.is_symlink() and _is_database(path)]
    return sorted(found, key=lambda path: (-path.stat().st_size, path))


def page_digests(file: Path) -> bytes:
    """16 bytes for each page of a file; a last one that is not whole counts as it is."""
    digest = xxhash.xxh3_128_digest
    return b"".join(digest(page) for page in _pages(file))


def floor(before: bytes, file: Path) -> Floor:
    """What changed in `file` since `before` was taken by `page_digests`: pages that are gone cost nothing."""
    count = sum(1 for _ in _changed(before, file))
    # With its size known, the stream is what compressing everything at once would give, in little memory.
    stream = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=_length(before, file))
    size = sum(len(stream.compress(page)) for page in _changed(before, file)) + len(stream.flush())
    return Floor(count, size if count else 0)


def allowed(floor_size: float) -> float:
    """Bytes that may be stored for such a change: 1.35 times the floor and 48 KiB."""
    return 1.35 * floor_size + 48 * 1024


def _length(before: bytes, file: Path) -> int:
    return sum(len(page) for page in _changed(before, file))


def _changed(before: bytes, file: Path) -> Iterator[bytes]:
    for number, page in enumerate(_pages(file)):
        if before[number * DIGEST : (number + 1) * DIGEST] != xxhash.xxh3_128_digest(page):
            yield page


def _pages(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(_STEP):
            for at in range(0, len(block), PAGE):
                yield block[at : at + PAGE]


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
