"""A listing that comes in pages, and goes on or does not."""

from __future__ import annotations

import pytest

from chatkeep.providers import base
from chatkeep.providers.paging import BARREN, Pages


def test_what_is_new_in_its_order() -> None:
    pages = Pages("cloud")
    assert pages.new(["b", "a", "b"]) == ["b", "a"]
    assert pages.new(["a", "c"]) == ["c"]


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_circle_ends(length: int) -> None:
    pages, asked = Pages("cloud"), 0

    def ask() -> None:
        nonlocal asked
        while True:
            asked += 1
            pages.new([str(asked % length)])

    with pytest.raises(base.Unavailable) as caught:
        ask()
    assert asked == length + BARREN + 1
    assert caught.value.params == {"provider": "cloud", "reason": "circle"}


def test_pages_with_nothing_may_come_in_between() -> None:
    pages = Pages("cloud")
    for number in range(3):
        assert pages.new([str(number)]) == [str(number)]
        for _ in range(BARREN):
            assert pages.new([]) == []
