"""One vault for all that looks into memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.memory_play import build_hoard
from tests.support.memory_scan import Scanner
from tests.support.memory_vault import Vault


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return Vault(tmp_path_factory.mktemp("memory") / "room")


@pytest.fixture(scope="session")
def scanner(vault: Vault) -> Scanner:
    """Looks for everything that reads the vault or adds to those who do."""
    return Scanner(vault.secrets | vault.of_objects)


@pytest.fixture(scope="session")
def hoard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An allocator that frees nothing and overwrites nothing."""
    return build_hoard(tmp_path_factory.mktemp("hoard"))
