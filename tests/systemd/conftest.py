"""A machine that boots, for each process that runs tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import Machine, booted


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One with systemd, a bus, logind and the manager of its one user."""
    room: Path = tmp_path_factory.mktemp("machine") / "room"
    room.mkdir()
    with booted(room) as machine:
        yield machine
