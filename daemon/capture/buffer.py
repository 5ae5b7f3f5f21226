"""The memory that pinned pages are copied into, and what is done with them once the pin is gone."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chatkeep.daemon.capture.digests import DIGEST_SIZE, Digests, page_digests

DEFAULT_ROOM = 64 << 20  # what a short pin should copy at most: beyond it, pages are copied beforehand


class Buffer:
    """Memory whose pages exist before the pin: faulting them in under the pin made it twenty times as long.

    It is used again for capture after capture. `view` is its whole length.
    """

    def __init__(self, size: int = DEFAULT_ROOM, part: memoryview | None = None) -> None:
        populated = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        # A view keeps its mapping: it goes with the last of them.
        self.view = memoryview(mmap.mmap(-1, size, flags=populated)) if part is None else part

    def __len__(self) -> int:
        return len(self.view)

    def split(self, sizes: Sequence[int]) -> list[Buffer]:
        """Parts of this memory, one after the other, for several databases in one pin."""
        parts: list[Buffer] = []
        at = 0
        for size in sizes:
            parts.append(Buffer(size, self.view[at : at + size]))
            at += size
        return parts

    def close(self) -> None:
        """Let go of the memory; it is given back when no view of it is left."""
        self.view.release()


@dataclass(frozen=True, slots=True)
class PageRun:
    """Consecutive pages: `data` holds them in order, `digests` 16 bytes for each.

    `data` is a view of the buffer, good until the buffer is used again.
    """

    first: int
    data: memoryview
    digests: bytes

    @property
    def count(self) -> int:
        """How many pages."""
        return len(self.digests) // DIGEST_SIZE


@dataclass(frozen=True, slots=True)
class Copied:
    """Pages of one image, in ascending order, packed one after the other into `view`. `ranges`: (first, count)."""

    page_size: int
    ranges: Sequence[tuple[int, int]]
    view: memoryview

    def changed(self, digests: Digests, seed: int) -> Iterator[PageRun]:
        """The pages whose digest is not the one on record, in runs. Done after the pin: it needs the copy only."""
        size = self.page_size
        at = 0
        for first, count in self.ranges:
            data = self.view[at : at + count * size]
            at += count * size
            found = page_digests(data, size, seed)
            for start, end in _differing_runs(found, digests.read(first, count)):
                yield PageRun(
                    first + start, data[start * size : end * size], found[start * DIGEST_SIZE : end * DIGEST_SIZE]
                )


def _differing_runs(found: bytes, known: bytes) -> Iterator[tuple[int, int]]:
    if found == known:
        return
    start: int | None = None
    total = len(found) // DIGEST_SIZE
    for index in range(total):
        piece = slice(index * DIGEST_SIZE, (index + 1) * DIGEST_SIZE)
        if found[piece] != known[piece]:
            start = index if start is None else start
        elif start is not None:
            yield start, index
            start = None
    if start is not None:
        yield start, total
