"""The set of pages that may differ from what was captured last.

One byte per page, not one bit: a fifth of a per mille of the database, and every operation, searching for the ends of
ranges included, is then one call into C. Twenty million pages fit in 20 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_DIRTY = b"\1"
_CLEAN = b"\0"


class DirtySet:
    """A set of page numbers 1 ... `page_count`.

    Adding a number outside is a ValueError: a damaged one must not make the set grow.
    """

    __slots__ = ("_marks",)

    def __init__(self, page_count: int = 0) -> None:
        # Index 0 is never used: marks are addressed by the page's own number.
        self._marks = bytearray(page_count + 1)

    @property
    def page_count(self) -> int:
        """The highest page number there is."""
        return len(self._marks) - 1

    def add(self, page: int) -> None:
        """Add one page."""
        if not 0 < page < len(self._marks):
            raise ValueError(page)
        self._marks[page] = 1

    def update(self, pages: Iterable[int]) -> None:
        """Add many. Numbers are checked before the first is added."""
        wanted = set(pages)
        if wanted and not (min(wanted) > 0 and max(wanted) < len(self._marks)):
            raise ValueError(max(wanted))
        marks = self._marks
        for page in wanted:
            marks[page] = 1

    def add_range(self, first: int, count: int) -> None:
        """Add `count` pages from `first` on."""
        self._fill(first, count, _DIRTY)

    def discard(self, page: int) -> None:
        """Take one page out."""
        if not 0 < page < len(self._marks):
            raise ValueError(page)
        self._marks[page] = 0

    def discard_range(self, first: int, count: int) -> None:
        """Take `count` pages out, from `first` on."""
        self._fill(first, count, _CLEAN)

    def clear(self) -> None:
        """Take every page out."""
        self._marks = bytearray(len(self._marks))

    def resize(self, page_count: int) -> None:
        """Pages beyond a smaller count leave the set; pages of a larger one enter clean."""
        surplus = len(self._marks) - 1 - page_count
        if surplus > 0:
            del self._marks[page_count + 1 :]
        else:
            self._marks.extend(bytes(-surplus))

    def copy(self) -> DirtySet:
        """The same pages in a set of their own."""
        twin = DirtySet()
        twin._marks = bytearray(self._marks)
        return twin

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(first page, number of pages), ascending, maximal. The set must not change meanwhile."""
        marks = self._marks
        first = marks.find(_DIRTY)
        while first >= 0:
            end = marks.find(_CLEAN, first)
            if end < 0:
                end = len(marks)
            yield first, end - first
            first = marks.find(_DIRTY, end)

    def __contains__(self, page: int) -> bool:
        return 0 < page < len(self._marks) and self._marks[page] == 1

    def __len__(self) -> int:
        return self._marks.count(_DIRTY)

    def __bool__(self) -> bool:
        return self._marks.find(_DIRTY) >= 0

    def __iter__(self) -> Iterator[int]:
        for first, count in self.ranges():
            yield from range(first, first + count)

    def _fill(self, first: int, count: int, mark: bytes) -> None:
        if count < 0 or first < 1 or first + count > len(self._marks):
            raise ValueError((first, count))
        self._marks[first : first + count] = mark * count
