"""The real command, killed at the steps of its work beside a live writer, and started again: it goes on by itself."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.committing import committing
from tests.support.daemon_kills import Kills
from tests.support.seam import build

POINTS = 15
Tell = Callable[[str], None]


@pytest.fixture
def kills(tmp_path: Path) -> Iterator[Kills]:
    """In memory where there is such a place: hundreds of devices are made here, and none has to last."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path  # noqa: S108
    with tempfile.TemporaryDirectory(dir=place) as made:
        kills = Kills(Path(made), build(tmp_path))
        with committing(kills.station.source, kills.note):
            yield kills


def killed(kills: Kills, points: list[int], tell: Tell) -> None:
    kinds: Counter[str] = Counter()
    again = 0
    for point in points:
        kind, repeated = kills.at(point)
        kinds[kind] += 1
        again += repeated
    tell(f"{len(points)} kills from step {points[0]} to {points[-1]}: {dict(kinds)}; {again} objects put again")
    assert kinds.total() == len(points) >= POINTS
    assert again < kinds.total()


def test_a_daemon_that_is_killed_goes_on_by_itself(kills: Kills, tell: Tell, seed: int) -> None:
    steps, chance = kills.steps(), random.Random(seed)
    tell(f"--seed {seed}, {steps} steps")
    assert steps > 10 * POINTS
    edges = [steps * number // POINTS for number in range(POINTS + 1)]
    killed(kills, [chance.randrange(*span) for span in itertools.pairwise(edges)], tell)


@pytest.mark.long
def test_a_daemon_that_is_killed_at_every_step_goes_on_by_itself(kills: Kills, tell: Tell) -> None:
    killed(kills, list(range(kills.steps())), tell)
