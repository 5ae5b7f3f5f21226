from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from chatkeep.providers.base import Provider
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.webdav import WebdavProvider
from chatkeep.providers.webdav_wire import Password, Wire
from tests.providers.contract import ProviderContract, names
from tests.support import apache, wsgidav_server

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def httpd() -> Iterator[apache.Apache]:
    with apache.apache() as server:
        yield server


@pytest.fixture(scope="module")
def pydav() -> Iterator[wsgidav_server.Wsgidav]:
    with wsgidav_server.wsgidav() as server:
        yield server


class WebdavContract(ProviderContract):
    def test_probe_reports_and_leaves_nothing(self, provider: Provider) -> None:
        """Servers look first and rename afterwards: nothing that is asked one request after the other shows it."""
        seen = provider.probe()
        assert not seen.exclusive_create
        assert seen.deletes
        assert seen.modified
        assert seen.clock_ahead is not None
        assert abs(seen.clock_ahead) < 60
        assert names(provider, "probe/") == []


class TestApache(WebdavContract):
    @pytest.fixture
    def provider(self, httpd: apache.Apache) -> Iterator[Provider]:
        where = f"vault{next(_NUMBERS)}"
        wire = Wire("dav", f"{httpd.url}/{where}", Password(apache.USER, apache.PASSWORD))
        provider = WebdavProvider(wire, MemoryMemo(), create=True)
        yield provider
        provider.close()


class TestWsgidav(WebdavContract):
    @pytest.fixture
    def provider(self, pydav: wsgidav_server.Wsgidav) -> Iterator[Provider]:
        where = f"vault{next(_NUMBERS)}"
        wire = Wire("dav", f"{pydav.url}/{where}", Password(wsgidav_server.USER, wsgidav_server.PASSWORD))
        provider = WebdavProvider(wire, MemoryMemo(), create=True)
        yield provider
        provider.close()
