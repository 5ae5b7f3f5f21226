from pathlib import Path

import pytest

from chatkeep.providers.base import Provider
from chatkeep.providers.folder import FolderProvider
from tests.providers.contract import ProviderContract


class TestFolder(ProviderContract):
    many = 600  # more than two in each of the 256 shards

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        return FolderProvider("disk", tmp_path / "vault", create=True)
