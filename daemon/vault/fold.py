"""Folding: adjacent layers into one that means the same, and when that is due. Pure.

Rules: docs/format.md section 11 (reading a database, folding). A fold of layers moves no page: it points at the blobs
that are there. So it costs a few kilobytes and needs no key that reads.
"""

from __future__ import annotations

import datetime as dt
import functools
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from chatkeep.daemon.vault.layers import RESET, Entry, Layer, Section
from chatkeep.daemon.vault.resolve import Gathered, PageWalk, gather

MOST_AT_A_LEVEL: Final = 60
MOST_BASES: Final = 4  # level 3: merging them writes the name of every file again, so not with each month
MOST_IN_ALL: Final = 120
BASE_LEVEL: Final = 3
_SPARE_PAGES: Final = 1 << 24  # 64 GiB of 4096-byte pages, whose map is 16 MiB

_HOUR: Final = 3600 * 10**9
_DAY: Final = 24 * _HOUR

# --- merging ---------------------------------------------------------------------------------------------------------


def merge(layers: Sequence[Layer], *, oldest: bool = False) -> Layer:
    """One layer that resolves, in any stack, to what these adjacent layers (newest first) resolve to.

    `oldest`: nothing lies below them. What only hides older things is then dropped, and with it every file that no
    path in them names (an id without a path is never named again). Runs are dropped when all their pages are hidden by
    newer ones in here, or lie beyond the database's end.
    """
    gathered = gather(layers)
    if oldest:
        gathered = _only_named(gathered)
    return Layer(
        entries=tuple(Entry(path, file_id) for path, file_id in sorted(gathered.paths.items())),
        files=tuple(record for _, record in sorted(gathered.files.items())),
        contents=tuple(content for _, own in sorted(gathered.contents.items()) for content in own),
        sections=tuple(section for _, own in sorted(gathered.sections.items()) for section in _compact(own)),
    )


def _only_named(gathered: Gathered) -> Gathered:
    named = {file_id for file_id in gathered.paths.values() if file_id is not None}
    return Gathered(
        paths={path: file_id for path, file_id in gathered.paths.items() if file_id is not None},
        files={file_id: record for file_id, record in gathered.files.items() if file_id in named},
        contents={file_id: own for file_id, own in gathered.contents.items() if file_id in named},
        sections={file_id: own for file_id, own in gathered.sections.items() if file_id in named},
    )


def _compact(sections: Sequence[Section]) -> Sequence[Section]:
    """The sections of one database without what cannot be reached through them."""
    head = sections[0]
    pages = sum(run.count for section in sections for run in section.runs)
    # A map far larger than the pages there are would be paid for by a page count alone; such sections stay as they are.
    # So do sections of several page sizes: they contradict each other, and the reader must be able to say so.
    if head.page_count > max(_SPARE_PAGES, 8 * pages) or any(own.page_size != head.page_size for own in sections):
        return sections
    walk = PageWalk(head.page_count)
    kept: list[Section] = []
    for section in sections:
        limit = walk.limit
        walk.enter(section)
        runs = tuple(run for run in section.runs if walk.take(run))
        if runs or not kept or section.page_count < limit:
            kept.append(msgspec.structs.replace(section, runs=runs))
        elif section.flags & RESET:
            kept[-1] = msgspec.structs.replace(kept[-1], flags=kept[-1].flags | RESET)
    return kept


# --- when ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StackEntry:
    """One entry of a stack. Times: of its first and last snapshot, ns, as in their manifests (never falling)."""

    level: int
    first_seq: int
    last_seq: int
    first_time: int
    last_time: int


@dataclass(frozen=True, slots=True)
class Merge:
    """Entries `start` up to, not including, `stop` of a stack (0 is the newest) become one of `level`."""

    start: int
    stop: int
    level: int


@functools.lru_cache(maxsize=512)
def _month_of_day(day: int) -> int:
    date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
    return date.year * 12 + date.month


_PERIODS: Final[tuple[tuple[int, Callable[[int], int]], ...]] = (
    (3, lambda ns: _month_of_day(ns // _DAY)),
    (2, lambda ns: ns // _DAY),
    (1, lambda ns: ns // _HOUR),
)


def due(stack: Sequence[StackEntry], now_ns: int) -> list[Merge]:
    """What to merge before a snapshot at `now_ns` is put on top of `stack` (newest first). Disjoint, newest first.

    Entries below level 1, 2, 3 that end in an earlier UTC hour, day, month become one of that level; one alone stays,
    for the next time. Beyond 60 entries of a level below 3, that level is merged at once; beyond 4 of level 3, these;
    and the stack, the new snapshot included, never exceeds 120.
    """
    merges = _by_time(stack, now_ns)
    if not merges and not _crowded([entry.level for entry in stack]):
        return []
    items = _applied(stack, merges)
    while level := _crowded([item.level for item in items]):
        items = _collapse(items, level - 1)
    return [item for item in items if item.stop - item.start > 1]


def _by_time(stack: Sequence[StackEntry], now_ns: int) -> list[Merge]:
    """Levels rise and times fall along a stack, so the entries of each rule are one run, found by bisection: this is
    asked before every snapshot."""
    merges: list[Merge] = []
    end = len(stack)
    for level, period in _PERIODS:
        end = bisect_left(stack, level, hi=end, key=lambda entry: entry.level)
        if not end or period(stack[end - 1].last_time) >= period(now_ns):
            continue
        now = period(now_ns)
        start = bisect_left(stack, True, hi=end, key=lambda entry: period(entry.last_time) < now)
        if end - start > 1:
            merges.insert(0, Merge(start, end, level))
            end = start
    return merges


def _applied(stack: Sequence[StackEntry], merges: Sequence[Merge]) -> list[Merge]:
    """The stack after the merges; an entry that stays is a merge of itself alone."""
    items: list[Merge] = []
    at = 0
    for merge_of in [*merges, Merge(len(stack), len(stack), 0)]:
        items.extend(Merge(place, place + 1, stack[place].level) for place in range(at, merge_of.start))
        if merge_of.stop > merge_of.start:
            items.append(merge_of)
        at = merge_of.stop
    return items


def _crowded(levels: Sequence[int]) -> int:
    """1 + the level that has too many entries, the lowest first; 0 when none has."""
    counts = [levels.count(level) for level in range(BASE_LEVEL)]
    for level, count in enumerate(counts):
        if count > MOST_AT_A_LEVEL:
            return level + 1
    if len(levels) - sum(counts) > MOST_BASES:
        return BASE_LEVEL + 1
    if len(levels) >= MOST_IN_ALL:
        return counts.index(max(counts)) + 1
    return 0


def _collapse(items: Sequence[Merge], level: int) -> list[Merge]:
    """All entries of a level, which stand together, as one of the next level (of level 3, if that is theirs)."""
    inside = [item for item in items if min(item.level, BASE_LEVEL) == level]
    one = Merge(inside[0].start, inside[-1].stop, min(level + 1, BASE_LEVEL))
    return [
        *(item for item in items if item.stop <= one.start),
        one,
        *(item for item in items if item.start >= one.stop),
    ]
