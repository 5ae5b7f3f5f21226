"""What was found out about a storage, and how long it is believed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from chatkeep.providers.learned import FRESH, Learned
from chatkeep.providers.memo import MemoryMemo


@dataclasses.dataclass(frozen=True)
class Habits:
    careful: bool
    word: str = ""


class Clock:
    def __init__(self) -> None:
        self.at = 1e9

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def memo() -> MemoryMemo:
    return MemoryMemo()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def learned(memo: MemoryMemo, clock: Clock, version: int = 1) -> Learned[Habits]:
    return Learned(memo, "habits:x", Habits, version, now=clock)


def test_believed_for_a_week_by_this_process_and_the_next(memo: MemoryMemo, clock: Clock) -> None:
    first = learned(memo, clock)
    assert (first.fresh(), first.last()) == (None, None)
    assert first.keep(Habits(True, "a")) == Habits(True, "a")
    for each in (first, learned(memo, clock)):
        for later, believed in ((0.0, True), (FRESH - 1, True), (FRESH, False), (-1.0, False)):
            clock.at = 1e9 + later
            assert each.fresh() == (Habits(True, "a") if believed else None), later
            assert each.last() == Habits(True, "a")


def test_what_another_process_asked_since(memo: MemoryMemo, clock: Clock) -> None:
    first = learned(memo, clock)
    first.keep(Habits(True))
    clock.at += FRESH
    learned(memo, clock).keep(Habits(False))
    assert first.fresh() == Habits(False)


def test_for_this_process_only(memo: MemoryMemo, clock: Clock) -> None:
    first = learned(memo, clock)
    first.keep(Habits(True), lasting=False)
    assert first.fresh() == Habits(True)
    assert learned(memo, clock).last() is None


def test_found_wrong(memo: MemoryMemo, clock: Clock) -> None:
    first = learned(memo, clock)
    first.keep(Habits(True))
    first.forget()
    assert (first.fresh(), learned(memo, clock).last()) == (None, None)


def test_what_another_version_kept_is_forgotten(memo: MemoryMemo, clock: Clock) -> None:
    learned(memo, clock).keep(Habits(True))
    assert learned(memo, clock, version=2).last() is None


@pytest.mark.parametrize(
    "kept",
    [
        b"exclusive",
        b"[]",
        b"\xff",
        json.dumps({"careful": True}).encode(),
        json.dumps({"version": 1, "careful": True}).encode(),
        json.dumps({"version": 1, "learned": "soon", "careful": True}).encode(),
        json.dumps({"version": 1, "learned": 1e9, "bold": True}).encode(),
    ],
)
def test_what_is_not_of_this_form_is_asked(memo: MemoryMemo, clock: Clock, kept: bytes) -> None:
    memo.set("habits:x", kept)
    assert (learned(memo, clock).fresh(), learned(memo, clock).last()) == (None, None)
