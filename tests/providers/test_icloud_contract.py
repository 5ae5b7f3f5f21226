"""The contract over the fake CloudKit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.providers.base import Provider
from chatkeep.providers.icloud import TYPE
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.registry import Opening
from tests.providers.contract import ProviderContract
from tests.support.fake_cloudkit import FakeCloudKit


class TestICloud(ProviderContract):
    many = 210  # more than one answer holds

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[Provider]:
        fake = FakeCloudKit()
        provider = TYPE.open(Opening("cloud", fake.options(tmp_path), MemoryMemo()))
        yield provider
        provider.close()
        fake.close()
        assert fake.refused == []
