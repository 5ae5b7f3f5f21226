"""A long time in a minute: snapshots by a clock that runs, thinned now and then, locked for weeks in between.

What must stay small, stays small: the stack, the manifests, what is stored, what a restore asks for.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import NamedTuple

import pytest

from chatkeep.config.model import Retention
from tests.support.thinning import DAY, Home, Storage, World

DEFAULT = Retention()
MOST_KEPT = 48 + 30 + 26 + 24 + 24 + 10  # of the default policy, besides everything of the last day


class Figures(NamedTuple):
    """What one run took and left; the most of each that was seen."""

    snapshots: int
    stack: int
    manifests: int
    gets: int
    uploaded: int
    changed: int


def live(room: Path, days: int, per_day: int, locked: tuple[int, int]) -> Figures:
    """Days with so many snapshots each, pruned and swept every evening but for the days in `locked`."""
    world = World()
    storage = Storage("disk", world)
    home = Home.make(room / "home", world, storage)
    dice = random.Random(days)
    changed = stack = manifests = snapshots = 0
    for day in range(days):
        for _ in range(per_day):
            body = dice.randbytes(400_000)  # far above the least size of a pack, as a day of messages is
            changed += len(body)
            home.write("messages", body)
            if dice.random() < 0.1:
                photo = dice.randbytes(600_000)
                changed += len(photo)
                home.write(f"photo-{day % 7}", photo)
            home.back_up()
            newest = max(home.content)
            home.content = {newest: home.content[newest]}  # a year has thousands
            snapshots += 1
            with home.state() as state:
                stack = max(stack, len(state.stack(state.stream("chat").stream)))
            world.pass_(DAY // per_day)
        if not locked[0] <= day < locked[1]:
            home.prune(DEFAULT)
            home.sweep(policy=DEFAULT)
            bound = MOST_KEPT + 8 * per_day + per_day * max(0, min(day, locked[1] + 8) - locked[0]) * (day >= locked[0])
            assert len(storage.own("/s/")) <= bound, day
        manifests = max(manifests, len(storage.own("/s/")))
    world.pass_(8 * DAY)
    home.sweep(policy=DEFAULT)
    assert len(storage.own("/s/")) <= MOST_KEPT + per_day + 1
    return Figures(snapshots, stack, manifests, gets_of(home, storage), storage.sent, changed)


def gets_of(home: Home, storage: Storage) -> int:
    """Requests that a restore of the newest snapshot takes, and that it is right."""
    before = sum(verb == "get" for verb, _ in storage.verbs)
    left = home.check(storage, only=[max(home.content)])
    assert left[0] == max(home.content)
    manifests = len(storage.own("/s/"))
    return sum(verb == "get" for verb, _ in storage.verbs) - before - manifests


@pytest.fixture(autouse=True)
def nothing_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)


def test_a_month(tmp_path: Path) -> None:
    found = live(tmp_path, 31, 4, (10, 20))
    assert found.snapshots == 124
    assert found.stack <= 120
    assert found.gets <= 3 * 120
    assert found.uploaded <= 3 * found.changed


@pytest.mark.long
def test_a_year(tmp_path: Path) -> None:
    found = live(tmp_path, 365, 16, (100, 142))
    print(found)  # noqa: T201
    assert found.stack <= 120
    assert found.gets <= 3 * 120
    assert found.uploaded <= 3 * found.changed
