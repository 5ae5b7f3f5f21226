from __future__ import annotations

import pytest

from chatkeep.daemon.vault.fold import MOST_IN_ALL, Merge, StackEntry, due, merge
from chatkeep.daemon.vault.layers import (
    RESET,
    Entry,
    FileKind,
    FileRecord,
    Layer,
    Reference,
    Section,
    make_run,
    ranges_of,
)
from chatkeep.daemon.vault.resolve import resolve_database

SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR
MARCH = 20_148 * DAY  # 2025-03-01


def section(page_count: int, *runs: tuple[int, list[int]], flags: int = 0, file_id: int = 1) -> Section:
    made = tuple(
        make_run(ranges_of(pages), Reference(b"p" * 32, number, number.to_bytes(32, "big"))) for number, pages in runs
    )
    return Section(file_id, flags, 4096, page_count, page_count.to_bytes(32, "big"), made)


def kept(*sections: Section) -> list[tuple[int, int, list[int]]]:
    """Page count, flags and blobs of what is left of sections, newest first, one a layer."""
    folded = merge([Layer(sections=(own,)) for own in sections])
    return [(own.page_count, own.flags, [run.reference.slot for run in own.runs]) for own in folded.sections]


# --- merging


def test_runs_hidden_by_newer_ones_are_dropped_and_half_hidden_ones_stay() -> None:
    assert kept(section(9, (5, [1, 2])), section(9, (4, [2]), (3, [2, 3])), section(9, (2, [3]), (1, [9]))) == [
        (9, 0, [5]),
        (9, 0, [3]),
        (9, 0, [1]),
    ]


def test_runs_beyond_the_end_are_dropped_and_the_lower_count_stays() -> None:
    assert kept(section(9, (3, [1])), section(5), section(9, (2, [6, 7]), (1, [5, 6]))) == [
        (9, 0, [3]),
        (5, 0, []),
        (9, 0, [1]),
    ]


def test_a_section_that_says_nothing_more_is_dropped() -> None:
    assert kept(section(9, (3, [1])), section(9), section(12), section(9, (1, [2]))) == [(9, 0, [3]), (9, 0, [1])]


def test_nothing_below_a_reset_is_kept() -> None:
    assert kept(section(9, (3, [1])), section(9, (2, [2]), flags=RESET), section(9, (1, [3]))) == [
        (9, 0, [3]),
        (9, RESET, [2]),
    ]


def test_a_reset_outlives_the_section_that_carried_it() -> None:
    assert kept(section(9, (3, [1])), section(9, (2, [1]), flags=RESET), section(9, (1, [3]))) == [(9, RESET, [3])]


def test_sections_that_contradict_each_other_are_left_for_the_reader_to_refuse() -> None:
    odd = Section(1, 0, 512, 9, bytes(32), ())
    assert merge([Layer(sections=(section(9, (1, [1])), odd))]).sections == (section(9, (1, [1])), odd)


def test_a_page_count_without_pages_costs_no_memory() -> None:
    claim = section(4_294_967_294, (1, [1]))
    assert merge([Layer(sections=(claim, claim))]).sections == (claim, claim)


def test_databases_do_not_mix() -> None:
    layers = [Layer(sections=(section(9, (1, [1]), file_id=2), section(9, (2, [1]))))]
    assert {own.file_id: len(own.runs) for own in merge(layers).sections} == {1: 1, 2: 1}


def test_only_the_oldest_fold_forgets() -> None:
    def record(file_id: int) -> FileRecord:
        return FileRecord(file_id, FileKind.FILE, 0, 0, 0, b"", b"", 0, 0, 0)

    layers = [
        Layer(entries=(Entry(b"gone", None), Entry(b"moved", 2))),
        Layer(entries=(Entry(b"gone", 1), Entry(b"was", 3)), files=(record(1), record(2), record(3))),
    ]
    above = merge(layers)
    assert Entry(b"gone", None) in above.entries
    assert [own.file_id for own in above.files] == [1, 2, 3]
    oldest = merge(layers, oldest=True)
    assert oldest.entries == (Entry(b"moved", 2), Entry(b"was", 3))
    assert [own.file_id for own in oldest.files] == [2, 3]


def test_a_day_of_growth_keeps_every_page() -> None:
    sections = [section(100 - age, (age, sorted({1, 100 - age}))) for age in range(50)]
    base = section(50, (99, list(range(1, 51))), flags=RESET)
    whole = [*sections, base]
    folded = merge([Layer(sections=(own,)) for own in sections]).sections
    assert resolve_database([*folded, base]).pieces == resolve_database(whole).pieces


# --- when


def stack(*entries: tuple[int, int]) -> list[StackEntry]:
    """Entries (level, time), newest first."""
    return [
        StackEntry(level, len(entries) - place, len(entries) - place, time, time)
        for place, (level, time) in enumerate(entries)
    ]


def test_nothing_is_due_within_the_hour() -> None:
    assert due([], MARCH) == []
    assert due(stack((0, MARCH + 50 * SECOND), (0, MARCH), (3, MARCH - DAY)), MARCH + HOUR - 1) == []


def test_the_first_snapshot_of_an_hour_merges_the_hour_before() -> None:
    entries = stack((0, MARCH + 50 * SECOND), (0, MARCH), (3, MARCH - DAY))
    assert due(entries, MARCH + HOUR) == [Merge(0, 2, 1)]


def test_the_first_of_a_day_takes_the_last_hour_along() -> None:
    entries = stack((0, MARCH + 23 * HOUR + 1), (0, MARCH + 23 * HOUR), (1, MARCH + 9 * HOUR), (2, MARCH - 1))
    assert due(entries, MARCH + DAY) == [Merge(0, 3, 2)]


def test_the_first_of_a_month_takes_everything_of_the_month_before() -> None:
    entries = stack((0, MARCH - 1), (1, MARCH - HOUR), (2, MARCH - DAY), (2, MARCH - 2 * DAY), (3, MARCH - 40 * DAY))
    assert due(entries, MARCH) == [Merge(0, 4, 3)]
    assert due(entries, MARCH - 1) == []


def test_days_hours_and_minutes_are_merged_apart_when_the_machine_was_off() -> None:
    entries = stack(
        (0, MARCH + DAY + 5 * HOUR),
        (0, MARCH + DAY + 4 * HOUR),
        (1, MARCH + HOUR),
        (1, MARCH),
        (2, MARCH - DAY),
        (2, MARCH - 2 * DAY),
    )
    assert due(entries, MARCH + DAY + 6 * HOUR) == [Merge(0, 2, 1), Merge(2, 4, 2), Merge(4, 6, 3)]


def test_one_alone_waits_for_the_next() -> None:
    assert due(stack((0, MARCH), (3, MARCH - DAY)), MARCH + 3 * HOUR) == []
    assert due(stack((0, MARCH + HOUR), (0, MARCH), (3, MARCH - DAY)), MARCH + 3 * HOUR) == [Merge(0, 2, 1)]


def test_a_clock_that_went_back_merges_nothing() -> None:
    assert due(stack((0, MARCH), (1, MARCH - 1)), MARCH - 400 * DAY) == []


@pytest.mark.parametrize("level", [0, 1, 2])
def test_more_than_sixty_of_a_level_are_merged_at_once(level: int) -> None:
    crowd = [(level, MARCH + place) for place in range(61, 0, -1)]
    assert due(stack(*crowd[1:], (3, MARCH)), MARCH + 99) == []
    assert due(stack(*crowd, (3, MARCH)), MARCH + 99) == [Merge(0, 61, level + 1)]


def test_bases_are_merged_when_there_are_more_than_four() -> None:
    bases = [(3, MARCH - place * 40 * DAY) for place in range(5)]
    assert due(stack(*bases[:4]), MARCH) == []
    assert due(stack(*bases), MARCH) == [Merge(0, 5, 3)]


def test_a_full_stack_merges_its_largest_level() -> None:
    levels = [0] * 30 + [1] * 55 + [2] * 34
    entries = [(level, MARCH + 200 - place) for place, level in enumerate(levels)]
    assert due(stack(*entries), MARCH + 300) == []
    assert due(stack(*entries, (3, MARCH)), MARCH + 300) == [Merge(30, 85, 2)]


@pytest.mark.parametrize(("interval", "days"), [(60, 366), (5, 9), (3600, 366), (7 * 3600, 3 * 366), (86400, 8 * 366)])
def test_a_stack_never_exceeds_its_bound(interval: int, days: int) -> None:
    entries: list[StackEntry] = []
    now, highest, merges = MARCH, 0, 0
    for number in range(days * 86400 // interval):
        now += interval * SECOND
        for one in reversed(due(entries, now)):
            newest, oldest = entries[one.start], entries[one.stop - 1]
            entries[one.start : one.stop] = [
                StackEntry(one.level, oldest.first_seq, newest.last_seq, oldest.first_time, newest.last_time)
            ]
            merges += 1
        entries.insert(0, StackEntry(0, number, number, now, now))
        highest = max(highest, len(entries))
        assert entries[0].level == 0
    assert highest <= MOST_IN_ALL
    assert merges > days // 60
    assert [entry.first_seq for entry in entries[:-1]] == [entry.last_seq + 1 for entry in entries[1:]]
    assert sorted(entry.level for entry in entries) == [entry.level for entry in entries]
