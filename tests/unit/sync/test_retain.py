"""Passes that hold what lives: when one is due, and that none is left half done."""

from __future__ import annotations

import random

import pytest

from chatkeep.config.errors import Disposition
from chatkeep.daemon.sync.retain import KEY, Mark, due, extend, load
from chatkeep.providers import base
from chatkeep.providers.memo import MemoryMemo
from tests.support.memory_provider import MemoryProvider

PERIOD = 1000.0


class Locking(MemoryProvider):
    """Remembers until when each object is held. `refuses`: calls that fail before one goes well."""

    def __init__(self) -> None:
        super().__init__("cloud")
        self.held: dict[str, float] = {}
        self.calls = 0
        self.refuses = 0

    def retain(self, name: str, until: float) -> None:
        self.calls += 1
        if self.refuses:
            self.refuses -= 1
            raise base.PermissionRefused(provider=self.name, object=name)
        self.stat(name)
        self.held[name] = max(until, self.held.get(name, 0))


@pytest.fixture
def provider() -> Locking:
    found = Locking()
    for number in range(5):
        found.put(f"a/{number}", b"")
    return found


def test_when_a_pass_is_due() -> None:
    assert due(None, PERIOD, 50.0) == 1050.0
    done, begun = Mark(1050.0, done=True), Mark(1050.0, done=False)
    assert due(done, PERIOD, 51.0) is None
    assert due(done, PERIOD, 549.0) is None
    assert due(done, PERIOD, 550.0) == 1550.0
    assert due(done, PERIOD, 5000.0) == 6000.0
    assert due(begun, PERIOD, 51.0) == 1050.0  # goes on
    assert due(begun, PERIOD, 551.0) == 1551.0  # took too long
    assert due(done, PERIOD, -500.0) == 500.0  # a clock that was set back
    assert due(done, PERIOD / 4, 51.0) == 301.0  # a shorter period was configured
    assert due(done, PERIOD * 4, 51.0) == 4051.0  # a longer one


def test_whatever_lives_is_always_held_for_half_a_period() -> None:
    """A year of puts and passes at random times: no object ever has less than half a period left after a pass."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    now, mark, held = 0.0, None, dict[int, float]()
    for turn in range(3000):
        now += chance.random() * PERIOD / 20
        held[turn] = now + PERIOD
        until = due(mark, PERIOD, now)
        if until is not None:
            for each in held:
                held[each] = max(held[each], until)
            mark = Mark(until, done=True)
        assert min(held.values()) >= now + PERIOD / 2, seed


def test_a_pass_holds_everything_until_one_time(provider: Locking) -> None:
    memo = MemoryMemo()
    names = [f"a/{number}" for number in range(5)]
    done = extend(provider, memo, PERIOD, lambda: [*names, "a/gone"], 50.0)
    assert (done.objects, done.problem) == (5, None)
    assert provider.held == dict.fromkeys(names, 1050.0)
    assert load(memo) == Mark(1050.0, done=True)
    assert extend(provider, memo, PERIOD, lambda: names, 60.0).objects == 0
    assert provider.calls == 6


def test_a_pass_that_is_refused_half_way_is_told_and_goes_on(provider: Locking) -> None:
    memo = MemoryMemo()
    names = [f"a/{number}" for number in range(5)]
    provider.refuses = 1
    done = extend(provider, memo, PERIOD, lambda: names, 50.0)
    assert done.problem is not None
    assert done.problem.disposition is Disposition.NEEDS_USER
    assert (done.problem.params["object"], done.problem.params["reason"]) == ("a/0", "permission-refused")
    assert load(memo) == Mark(1050.0, done=False)
    assert extend(provider, memo, PERIOD, lambda: names, 70.0).objects == 5
    assert set(provider.held.values()) == {1050.0}


def test_one_object_that_is_refused_each_time_keeps_no_other_from_being_held(provider: Locking) -> None:
    class Odd(Locking):
        def retain(self, name: str, until: float) -> None:
            if name == "a/1":
                raise base.PermissionRefused(provider=self.name, object=name)
            super().retain(name, until)

    odd, memo = Odd(), MemoryMemo()
    odd.objects = provider.objects
    for now in (50.0, 60.0):
        done = extend(odd, memo, PERIOD, lambda: sorted(odd.objects), now)
        assert done.problem is not None
        assert done.problem.params["object"] == "a/1"
        assert set(odd.held) == {"a/0", "a/2", "a/3", "a/4"}
        assert load(memo) == Mark(1050.0, done=False)


def test_a_place_that_refuses_all_is_not_asked_about_each(provider: Locking) -> None:
    provider.refuses = 10**6
    done = extend(provider, MemoryMemo(), PERIOD, lambda: (f"a/{number}" for number in range(10**4)), 50.0)
    assert done.problem is not None
    assert (done.objects, done.problem.params["object"]) == (0, "a/0")
    assert provider.calls <= 20


def test_a_pass_that_is_cancelled_goes_on(provider: Locking) -> None:
    memo = MemoryMemo()
    names = [f"a/{number}" for number in range(5)]
    done = extend(provider, memo, PERIOD, lambda: names, 50.0, cancelled=lambda: provider.calls >= 2)
    assert (done.objects, done.problem) == (2, None)
    assert load(memo) == Mark(1050.0, done=False)
    assert extend(provider, memo, PERIOD, lambda: names, 50.0).objects == 5


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"version": 2, "until": 1, "done": true}', b'{"version": 1}'])
def test_a_mark_that_says_nothing_is_none(provider: Locking, raw: bytes) -> None:
    memo = MemoryMemo()
    memo.set(KEY, raw)
    assert extend(provider, memo, PERIOD, lambda: ["a/0"], 50.0).objects == 1
