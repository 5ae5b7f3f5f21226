"""A daemon's engine that is killed again and again: it converges, and sends nothing twice but what it was at."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine_child import Watched, interrupted
from tests.support.engines import MIB, Home
from tests.support.seam import build, run_beside
from tests.support.sources import fill
from tests.support.trees import describe

INTERRUPTIONS = 20
Tell = Callable[[str], None]


def test_a_long_first_upload_that_is_interrupted_converges(seed: int, tmp_path: Path, tell: Tell) -> None:
    """20 kills at random: none costs more than the one object that was on its way."""
    chance = random.Random(seed)
    home = Home(tmp_path, ("one",))
    fill(home.source / "messages.db", 200)
    for number in range(60):
        home.write(f"{number}", MIB // 2 + chance.randrange(MIB // 2), age=60.0 * number)
    sizes: dict[str, int] = {}  # of all that was ever begun to be put
    costs: list[int] = []  # bytes put again after each interruption

    def account(child: Watched) -> list[str]:
        repeated = [name for name in child.begun if name in sizes]
        sizes.update(child.begun)
        return repeated

    for number in range(INTERRUPTIONS + 1):
        child = interrupted(tmp_path, chance, 12) if number < INTERRUPTIONS else Watched(tmp_path)
        if number == INTERRUPTIONS:
            child.finish()
        again = account(child)
        assert len(again) <= 1, f"after interruption {number}: {again}"
        costs.append(sum(child.begun[name] for name in again))
    total = sum(sizes.values())
    cost = f"{sum(costs)} bytes put again, at most {max(costs)} at once"
    tell(f"{INTERRUPTIONS} kills: {len(sizes)} objects of {total} bytes, {cost}")
    assert sum(map(bool, costs)) > 2, "nothing was interrupted"
    assert max(costs) <= max(sizes.values())
    assert describe(home.restore("out")) == describe(home.source)


@pytest.fixture(scope="module")
def seam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("seam"))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: hundreds of devices are made here, and none has to last."""
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def killed_at(seam: Path, room: Path, tell: Tell, stride: int, seed: int) -> None:
    found = run_beside(seam, "tests.support.engine_crashes", room=room, stride=stride, seed=seed)
    tell(f"kills beside a live writer: {found}")
    assert found["tried"] > 20
    assert found["acknowledged"] > 10
    assert found["again"] <= 2 * found["tried"]


def test_a_kill_while_uploads_run_beside_snapshots(seam: Path, room: Path, tell: Tell, seed: int) -> None:
    killed_at(seam, room, tell, 11, seed)


@pytest.mark.long
def test_a_kill_at_every_step_while_uploads_run_beside_snapshots(seam: Path, room: Path, tell: Tell, seed: int) -> None:
    killed_at(seam, room, tell, 1, seed)
