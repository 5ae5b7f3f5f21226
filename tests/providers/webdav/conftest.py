"""WebDAV servers for the tests in this folder, and providers on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.webdav import WebdavProvider
from chatkeep.providers.webdav_wire import Password, Token, Wire
from tests.providers.webdav.places import Open
from tests.support import apache, wsgidav_server


@pytest.fixture(scope="module")
def httpd() -> Iterator[apache.Apache]:
    with apache.apache() as server:
        yield server


@pytest.fixture(scope="module")
def pydav() -> Iterator[wsgidav_server.Wsgidav]:
    with wsgidav_server.wsgidav() as server:
        yield server


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens providers, and closes them."""
    with contextlib.ExitStack() as stack:

        def at(url: str, credential: Password | Token | None = None, *, create: bool = True) -> WebdavProvider:
            wire = Wire("dav", url, credential or Password(apache.USER, apache.PASSWORD))
            return stack.enter_context(contextlib.closing(WebdavProvider(wire, MemoryMemo(), create=create)))

        yield at


@pytest.fixture(params=["httpd", "pydav"])
def server(request: pytest.FixtureRequest) -> apache.Apache | wsgidav_server.Wsgidav:
    found: apache.Apache | wsgidav_server.Wsgidav = request.getfixturevalue(request.param)
    return found
