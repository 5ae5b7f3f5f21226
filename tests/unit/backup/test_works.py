"""Pages to blobs, and dirty sets in parts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.backup.sealing import Sealer
from chatkeep.daemon.backup.works import PageSealer, aligned, batches
from chatkeep.daemon.capture.buffer import PageRun
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.vault.layers import MAX_BLOB
from tests.support.writers import sealer_of

PAGE = 65536
PER_BLOB = MAX_BLOB // PAGE


def content(page: int) -> bytes:
    return random.Random(page).randbytes(PAGE)


def sealed_runs(sealer: Sealer, runs: list[tuple[int, int]]) -> PageSealer:
    pages = PageSealer(sealer, PAGE, compress=True)
    for first, count in runs:
        data = b"".join(content(page) for page in range(first, first + count))
        pages.add(PageRun(first, memoryview(data), bytes(16 * count)))
    pages.flush()
    sealer.drain()
    return pages


def test_full_aligned_megabytes_are_base_runs_and_the_rest_is_joined(tmp_path: Path) -> None:
    sealer = sealer_of(tmp_path)
    pages = sealed_runs(sealer, [(2, 1), (5, 2), (PER_BLOB - 1, 2 + PER_BLOB + 3)])
    assert [run.ranges for run in pages.runs] == [
        [(PER_BLOB + 1, PER_BLOB)],
        [(2, 1), (5, 2), (PER_BLOB - 1, 2), (2 * PER_BLOB + 1, 3)],
    ]
    sealer.abort()


def test_base_runs_come_out_the_same_whoever_writes_them(tmp_path: Path) -> None:
    sealer = sealer_of(tmp_path)
    alone = sealed_runs(sealer, [(PER_BLOB + 1, PER_BLOB)]).runs[0].place
    among = sealed_runs(sealer, [(1, 4 * PER_BLOB)]).runs[1].place
    assert alone.id == among.id
    assert alone.slot != among.slot
    sealer.abort()


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 40)), max_size=8))
def test_every_page_is_in_one_run_and_no_run_is_too_long(ranges: list[tuple[int, int]]) -> None:
    dirty = DirtySet(130)
    for first, count in ranges:
        dirty.add_range(first, count)

    class Recorder:
        def submit(self, lane: object, kind: object, data: bytes, level: object) -> bytes:
            return data

    pages = PageSealer(Recorder(), PAGE, compress=True)  # type: ignore[arg-type]
    for first, count in dirty.ranges():
        data = b"".join(content(page) for page in range(first, first + count))
        pages.add(PageRun(first, memoryview(data), bytes(16 * count)))
    pages.flush()
    found: dict[int, bytes] = {}
    for run in pages.runs:
        numbers = [page for first, count in run.ranges for page in range(first, first + count)]
        assert numbers == sorted(set(numbers))
        assert len(numbers) <= PER_BLOB
        data = cast("bytes", run.place)
        for at, page in enumerate(numbers):
            assert page not in found
            found[page] = data[at * PAGE : (at + 1) * PAGE]
    assert found == {page: content(page) for page in dirty}


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 40)), max_size=8), st.integers(1, 50))
def test_batches_and_aligned_ranges_cover_the_set(ranges: list[tuple[int, int]], most: int) -> None:
    dirty = DirtySet(130)
    for first, count in ranges:
        dirty.add_range(first, count)
    parts = list(batches(dirty, most))
    assert [page for part in parts for page in part] == list(dirty)
    assert all(len(part) <= most for part in parts)
    cut = list(aligned(dirty, most))
    assert [page for first, count in cut for page in range(first, first + count)] == list(dirty)
    assert all((first - 1) // most == (first + count - 2) // most for first, count in cut)
