"""Stations for the end-to-end tests: a vault is made once and copied, since making one is the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.station import Station, copied, template


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    return template(tmp_path_factory.mktemp("made") / "room")


@pytest.fixture(scope="session")
def made_twofold(tmp_path_factory: pytest.TempPathFactory) -> Station:
    return template(tmp_path_factory.mktemp("made") / "room", "disk", "usb")


@pytest.fixture
def station(made: Station, tmp_path: Path) -> Station:
    """A source without anything in it, and a vault at `disk`."""
    return copied(made, tmp_path / "room")


@pytest.fixture
def twofold(made_twofold: Station, tmp_path: Path) -> Station:
    """The same with the vault at `disk` and at `usb`."""
    return copied(made_twofold, tmp_path / "room")
