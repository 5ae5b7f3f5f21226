"""A watched database, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.capturing import Kept, later
from tests.support.sqlite_app import Oracle


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as process:
        yield process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database of the test will be: alone in its directory."""
    where = tmp_path / "profile"
    where.mkdir()
    return where / "chat.db"


@pytest.fixture
def kept(path: Path, tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    """Begin to keep the database; to be called once it exists."""
    begun: list[Kept] = []

    def begin(clock: Callable[[], int] = later) -> Kept:
        begun.append(Kept(path, tmp_path, clock=clock))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()
