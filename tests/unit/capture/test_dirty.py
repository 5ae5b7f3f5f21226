"""The set of dirty pages against Python's own sets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.capture.dirty import DirtySet

PAGES = 60
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "discard", "add_range", "discard_range", "resize"]),
        st.integers(1, PAGES),
        st.integers(0, 20),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_is_a_set(steps: list[tuple[str, int, int]]) -> None:
    dirty, model = DirtySet(PAGES), set[int]()
    for what, page, count in steps:
        inside = page + count - 1 <= dirty.page_count and page <= dirty.page_count
        span = set(range(page, page + count))
        if what == "resize":
            dirty.resize(page)
            model = {one for one in model if one <= page}
        elif not inside:
            continue
        elif what == "add":
            dirty.add(page)
            model.add(page)
        elif what == "discard":
            dirty.discard(page)
            model.discard(page)
        elif what == "add_range":
            dirty.add_range(page, count)
            model |= span
        else:
            dirty.discard_range(page, count)
            model -= span
        assert list(dirty) == sorted(model)
        assert len(dirty) == len(model)
        assert bool(dirty) == bool(model)
        assert all((one in dirty) == (one in model) for one in range(PAGES + 2))


@given(st.sets(st.integers(1, PAGES)))
def test_ranges_are_maximal_and_ascending(pages: set[int]) -> None:
    dirty = DirtySet(PAGES)
    dirty.update(pages)
    ranges = list(dirty.ranges())
    assert [one for first, count in ranges for one in range(first, first + count)] == sorted(pages)
    assert all(first + count < following for (first, count), (following, _) in itertools.pairwise(ranges))


@pytest.mark.parametrize("page", [0, -1, 11, 1 << 32])
def test_a_number_outside_is_refused_and_changes_nothing(page: int) -> None:
    dirty = DirtySet(10)
    with pytest.raises(ValueError):
        dirty.add(page)
    with pytest.raises(ValueError):
        dirty.update([3, page])
    with pytest.raises(ValueError):
        dirty.add_range(page, 1)
    with pytest.raises(ValueError):
        dirty.discard(page)
    assert not dirty
    assert dirty.page_count == 10


def test_ranges_may_not_reach_beyond_the_end() -> None:
    dirty = DirtySet(10)
    with pytest.raises(ValueError):
        dirty.add_range(10, 2)
    dirty.add_range(10, 1)
    assert list(dirty) == [10]


def test_a_page_that_left_by_a_shrink_is_clean_when_the_database_grows_again() -> None:
    dirty = DirtySet(10)
    dirty.add_range(1, 10)
    dirty.resize(4)
    dirty.resize(10)
    assert list(dirty.ranges()) == [(1, 4)]


def test_a_copy_is_its_own() -> None:
    dirty = DirtySet(5)
    dirty.add(2)
    twin = dirty.copy()
    dirty.clear()
    assert list(twin) == [2]
    assert not dirty
