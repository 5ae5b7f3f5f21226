"""A notice that does not arrive: its address is a secret, and so is the token beside it."""

from __future__ import annotations

import asyncio

import pytest

from chatkeep.daemon.service.telling.errors import Undelivered
from chatkeep.daemon.service.telling.post import Post
from tests.support.held import held
from tests.support.locked_proxy import FAILURES, LockedProxy

SECRET = "s3kritaddress"


async def send(url: str) -> None:
    post = Post("webhook")
    try:
        await post.send(url, {"Authorization": f"Bearer {SECRET}"}, {"text": SECRET})
    finally:
        await post.close()


def undelivered(url: str) -> Undelivered:
    with pytest.raises(Undelivered) as caught:
        asyncio.run(send(url))
    return caught.value


@pytest.mark.parametrize("how", FAILURES)
def test_nothing_of_it_is_in_the_error(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it shown to a proxy."""
    with LockedProxy("closes") as proxy, LockedProxy(how) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        answers = how in ("refuses", "repeats", "breaks")
        if how != "breaks":
            error = undelivered(f"http://127.0.0.1:{server.port}/{SECRET}")
            assert error.params["reason"] == ("refused" if answers else "unreachable")
            assert SECRET not in held(error)
        assert SECRET not in held(undelivered(f"https://127.0.0.1:{server.port}/{SECRET}"))
    assert proxy.knocked == 0


@pytest.mark.parametrize("url", [f"http://127.0.0.1:99999/{SECRET}", f"gopher://127.0.0.1/{SECRET}", SECRET])
def test_nothing_of_what_is_no_address(url: str) -> None:
    assert SECRET not in held(undelivered(url))
