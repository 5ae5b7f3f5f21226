"""A device with ten days behind it, made once and copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.thinning import Home, Storage, World, days


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Ten days with two snapshots each, at two storages."""
    world = World()
    home = Home.make(tmp_path_factory.mktemp("made") / "home", world, Storage("disk", world), Storage("cloud", world))
    days(home, 10)
    return home


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    return made.copy(tmp_path / "home")
