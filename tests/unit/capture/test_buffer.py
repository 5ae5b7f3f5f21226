"""What is told of copied pages after the pin."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.capture.buffer import Buffer, Copied
from chatkeep.daemon.capture.digests import DigestTable, page_digests
from tests.support.capturing import GENERATION, SEED

SIZE = 512


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("buffer")


@given(st.sets(st.integers(1, 30), min_size=1), st.sets(st.integers(1, 30)), st.integers(0, 30))
def test_exactly_the_pages_that_changed_are_given_in_runs(
    place: Path, copied: set[int], changed: set[int], known: int
) -> None:
    pages = {page: page.to_bytes(2, "big") * (SIZE // 2) for page in range(1, 31)}
    path = place / "digests"
    path.unlink(missing_ok=True)
    with DigestTable(path, SIZE, GENERATION) as table:
        old = [bytes(SIZE) if page in changed else pages[page] for page in range(1, known + 1)]
        table.apply([(1, page_digests(b"".join(old), SIZE, SEED))])
        ranges: list[tuple[int, int]] = []
        for page in sorted(copied):
            if ranges and sum(ranges[-1]) == page:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
            else:
                ranges.append((page, 1))
        view = memoryview(b"".join(pages[page] for page in sorted(copied)))
        found: dict[int, bytes] = {}
        for run in Copied(SIZE, ranges, view).changed(table, SEED):
            assert len(run.data) == run.count * SIZE
            assert run.digests == page_digests(run.data, SIZE, SEED)
            assert not set(range(run.first - 1, run.first + run.count + 1)) & set(found), "two runs touch"
            for at in range(run.count):
                found[run.first + at] = bytes(run.data[at * SIZE : (at + 1) * SIZE])
    expected = {page for page in copied if page > known or page in changed}
    assert found == {page: pages[page] for page in expected}


def test_the_memory_is_there_before_it_is_used() -> None:
    with open("/proc/self/statm", encoding="ascii") as memory:
        before = int(memory.read().split()[1])
        buffer = Buffer(32 << 20)
        memory.seek(0)
        resident = int(memory.read().split()[1]) - before
    assert resident * os.sysconf("SC_PAGE_SIZE") >= 30 << 20
    assert len(buffer) == 32 << 20
    buffer.close()
