from __future__ import annotations

import time
import tracemalloc

import pytest

from chatkeep.daemon.vault.errors import Unresolvable
from chatkeep.daemon.vault.layers import (
    BUSY,
    MAX_PAGE,
    PENDING,
    RESET,
    Content,
    Entry,
    Extent,
    FileKind,
    FileRecord,
    Layer,
    Reference,
    Section,
    make_run,
    ranges_of,
)
from chatkeep.daemon.vault.resolve import lock_page, resolve_database, resolve_tree


def reference(number: int) -> Reference:
    return Reference(b"p" * 32, number % 65535, number.to_bytes(32, "big"))


def section(
    page_count: int, *runs: tuple[int, list[int]], flags: int = 0, page_size: int = 4096, digest: bytes = bytes(32)
) -> Section:
    made = tuple(make_run(ranges_of(pages), reference(number)) for number, pages in runs)
    return Section(1, flags, page_size, page_count, digest, made)


def places(sections: list[Section]) -> dict[int, tuple[int, int]]:
    return {
        first + place: (int.from_bytes(piece.reference.id, "big"), at + place)
        for piece in resolve_database(sections).pieces
        for at, first, count in piece
        for place in range(count)
    }


def refused(sections: list[Section]) -> dict[str, object]:
    with pytest.raises(Unresolvable) as caught:
        resolve_database(sections)
    return caught.value.params


# --- databases


def test_the_newest_run_that_has_a_page_wins() -> None:
    stack = [
        section(6, (9, [2]), (8, [2, 3]), digest=b"d" * 32),
        section(5, (7, [3, 4, 6])),
        section(6, (6, [1, 2, 3, 4, 5, 6]), flags=RESET),
    ]
    with pytest.raises(Unresolvable):  # page 6 was cut off by the second section and never written again
        resolve_database(stack)
    stack[0] = section(6, (9, [2]), (8, [2, 3, 6]), digest=b"d" * 32)
    assert places(stack) == {1: (6, 0), 2: (9, 0), 3: (8, 1), 4: (7, 1), 5: (6, 4), 6: (8, 2)}
    plan = resolve_database(stack)
    assert (plan.page_size, plan.page_count, plan.size, plan.digest) == (4096, 6, 6 * 4096, b"d" * 32)


def test_pages_of_before_a_shrink_do_not_come_back() -> None:
    base = section(100, (1, list(range(1, 101))), flags=RESET)
    assert refused([section(100, (3, [52])), section(50), base])["page"] == 51


def test_the_limit_holds_within_the_section_that_lowers_it() -> None:
    assert refused([section(3, (2, [1])), section(2, (1, [2, 3]))]) == {
        "what": "database",
        "reason": "gap",
        "file_id": 1,
        "page": 3,
    }


def test_nothing_older_than_a_reset_counts() -> None:
    old = section(3, (1, [1, 2, 3]))
    assert refused([section(3, (2, [1, 2]), flags=RESET), old])["reason"] == "gap"
    layers = [Layer(sections=(section(3, (2, [1, 2]), flags=RESET), old)), Layer(sections=(old,))]
    assert len(resolve_tree([*layers, _named(1, FileKind.DATABASE)]).sections[1]) == 1


def test_a_hole_in_a_large_run_is_found_in_the_next() -> None:
    newer = [page for page in range(1, 257) if page % 3]
    found = places([section(256, (2, newer)), section(256, (1, list(range(1, 257))), flags=RESET)])
    assert found == {page: (2, newer.index(page)) if page % 3 else (1, page - 1) for page in range(1, 257)}


def test_sections_of_two_page_sizes_without_a_reset_are_damage() -> None:
    assert refused([section(2, (2, [1]), page_size=512), section(2, (1, [1, 2]))])["reason"] == "page-size"


def test_a_database_without_sections_or_pages() -> None:
    assert refused([])["reason"] == "no-section"
    assert resolve_database([section(0)]).pieces == ()


@pytest.mark.parametrize("page_size", [512, 65536])
def test_the_lock_page_alone_may_be_absent(page_size: int) -> None:
    lock = lock_page(page_size)
    assert (lock - 1) * page_size == 1 << 30
    count, most = lock + 1, (1 << 20) // page_size
    bases = [
        make_run([(first, min(most, lock - first))], reference(first)) for first in range(1, lock, most)
    ]  # up to the page before the lock page
    last = make_run([(lock + 1, 1)], reference(0))
    plan = resolve_database([Section(1, RESET, page_size, count, bytes(32), (*bases, last))])
    assert all(not first <= lock < first + length for piece in plan.pieces for _, first, length in piece)
    for runs, missing in [((*bases, bases[0]), lock + 1), ((*bases[1:], last, bases[1]), 1)]:
        assert refused([Section(1, RESET, page_size, count, bytes(32), runs)])["page"] == missing


def test_a_claim_of_sixteen_terabytes_without_runs_is_refused_before_memory_is_taken() -> None:
    claim = section(MAX_PAGE, (1, [1, MAX_PAGE]))
    tracemalloc.start()
    try:
        assert refused([claim])["reason"] == "gap"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_database_of_4_gb_under_119_layers_is_quick() -> None:
    count = 1_000_000
    base = tuple(make_run([(at + 1, min(256, count - at))], reference(at)) for at in range(0, count, 256))
    newer = [
        Section(
            1,
            0,
            4096,
            count,
            bytes(32),
            tuple(
                make_run([(layer + at * 37 + 1, 1) for at in range(own, own + 100)], reference(layer))
                for own in range(0, 2000, 100)
            ),
        )
        for layer in range(119)
    ]
    began = time.process_time()
    plan = resolve_database([*newer, Section(1, RESET, 4096, count, bytes(32), base)])
    assert time.process_time() - began < 2  # a bound against per-page work, with room for a busy machine
    assert sum(length for piece in plan.pieces for _, _, length in piece) == count


# --- trees


def _record(file_id: int, kind: FileKind = FileKind.FILE, size: int = 0, flags: int = 0) -> FileRecord:
    target = b"/etc" if kind is FileKind.SYMLINK else b""
    return FileRecord(file_id, kind, 0o600, 1, 2, b"u", b"g", 3, size, flags, target)


def _named(file_id: int, kind: FileKind) -> Layer:
    return Layer(entries=(Entry(b"name", file_id),), files=(_record(file_id, kind),))


def _tree(*named: tuple[bytes, int | None], files: tuple[FileRecord, ...] = ()) -> Layer:
    return Layer(entries=tuple(Entry(path, file_id) for path, file_id in named), files=files)


def test_the_newest_entry_and_record_win_and_tombstones_hide() -> None:
    tree = resolve_tree(
        [
            _tree((b"a", None), (b"b", 1)),
            _tree((b"c", 3), files=(_record(3), _record(1, size=7))),
            _tree((b"a", 1), (b"c", 2), (b"d", 4), files=(_record(1, size=5), _record(2), _record(4))),
        ]
    )
    assert tree.paths == {b"b": 1, b"c": 3, b"d": 4}
    assert tree.files == {1: _record(1, size=7), 3: _record(3), 4: _record(4)}
    assert not tree.faults


@pytest.mark.parametrize("kind", [FileKind.SYMLINK, FileKind.FILE, FileKind.DATABASE])
def test_paths_below_what_is_no_directory_are_left_out_and_reported(kind: FileKind) -> None:
    tree = resolve_tree(
        [
            _tree(
                (b"l", 1),
                (b"l/passwd", 2),
                (b"l/x/y", 2),
                (b"lx", 2),
                (b"l-/z", 2),
                files=(_record(1, kind), _record(2)),
            )
        ]
    )
    assert set(tree.paths) == {b"l", b"lx", b"l-/z"}
    assert [(fault.params["path"], fault.params["reason"]) for fault in tree.faults] == [
        (b"l/passwd", "not-a-directory"),
        (b"l/x/y", "not-a-directory"),
    ]


def test_a_source_that_is_no_directory_takes_all_below_it_along() -> None:
    tree = resolve_tree([_tree((b"", 1), (b"a", 2), files=(_record(1, FileKind.SYMLINK), _record(2)))])
    assert b"" not in tree.paths
    assert len(tree.faults) == 1


def test_a_path_without_a_record_is_reported() -> None:
    tree = resolve_tree([_tree((b"a", 1))])
    assert not tree.paths
    assert tree.faults[0].params["reason"] == "no-file"


def _content(offset: int, *lengths: int, size: int = 10) -> Content:
    return Content(1, size, offset, tuple(Extent(length, reference(length)) for length in lengths))


@pytest.mark.parametrize(
    ("contents", "whole"),
    [
        ((_content(0, 4, 6),), True),
        ((_content(4, 6), _content(0, 4)), True),
        ((_content(0, 4),), False),
        ((_content(4, 6),), False),
        ((_content(0, 4), _content(4, 6), _content(4, 6)), False),
        ((_content(0, 4), _content(4, 6, size=11)), False),
        ((_content(0, 9, size=9),), False),  # whole in itself, but not the size of the file
        ((), False),
    ],
)
def test_contents_must_tile_the_file(contents: tuple[Content, ...], whole: bool) -> None:
    layer = Layer(entries=(Entry(b"f", 1),), files=(_record(1, size=10),), contents=contents)
    older = Layer(contents=(_content(0, 10),)) if contents else Layer()
    tree = resolve_tree([layer, older])
    if whole:
        assert sum(extent.length for extent in tree.extents(1)) == 10
    else:
        with pytest.raises(Unresolvable):
            tree.extents(1)


@pytest.mark.parametrize("flags", [PENDING, BUSY])
def test_an_older_content_stands_while_the_newer_is_missing(flags: int) -> None:
    newer = Layer(entries=(Entry(b"f", 1),), files=(_record(1, size=99, flags=flags),))
    assert list(resolve_tree([newer, Layer(contents=(_content(0, 10),))]).extents(1)) == [Extent(10, reference(10))]


def test_what_is_restorable() -> None:
    def has(record: FileRecord, *layers: Layer) -> bool:
        return resolve_tree([_tree((b"f", 1), files=(record,)), *layers]).has_content(1)

    assert not has(_record(1, flags=PENDING))
    assert has(_record(1, flags=PENDING), Layer(contents=(_content(0, 10),)))
    assert has(_record(1))
    assert has(_record(1, FileKind.DIRECTORY))
    assert not has(_record(1, FileKind.DATABASE, flags=PENDING))
    assert has(_record(1, FileKind.DATABASE), Layer(sections=(section(0),)))
