from __future__ import annotations

import pytest

from chatkeep.providers.base import Provider
from tests.providers.contract import ProviderContract
from tests.support.memory_provider import MemoryProvider


class TestMemory(ProviderContract):
    """The provider that other tests stand on keeps the contract too."""

    @pytest.fixture
    def provider(self) -> Provider:
        return MemoryProvider()
