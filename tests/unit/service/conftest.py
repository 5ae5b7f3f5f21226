"""A runtime directory, and no session left in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sessions import Vault, end_all


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Path]:
    """Where sessions are; it does not exist yet."""
    directory = tmp_path / "run"
    yield directory
    end_all(directory)


@pytest.fixture
def vault() -> Vault:
    return Vault()
