"""The browser of these tests is a real one, it reaches nobody else, and its authenticators differ as they should."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Error

from tests.support import chromium as c
from tests.support.chromium import Kind, Tab
from tests.support.site import Site


@pytest.fixture
def site() -> Iterator[int]:
    """A page without anything, on a port of this machine."""
    with Site() as site:
        yield site.port


MAKE_AND_ASK = """async () => {
  const b64 = (b) => btoa(String.fromCharCode(...new Uint8Array(b)));
  const made = await navigator.credentials.create({publicKey: {
    rp: {id: "localhost", name: "test"}, user: {id: new Uint8Array(16), name: "me", displayName: "me"},
    challenge: new Uint8Array(32), pubKeyCredParams: [{type: "public-key", alg: -7}], timeout: 5000,
    authenticatorSelection: {residentKey: "required", userVerification: "required"}, extensions: {prf: {}}}});
  const ask = async () => (await navigator.credentials.get({publicKey: {
    challenge: new Uint8Array(32), rpId: "localhost", userVerification: "required", timeout: 5000,
    allowCredentials: [{type: "public-key", id: made.rawId}],
    extensions: {prf: {eval: {first: new Uint8Array(32)}}}}})).getClientExtensionResults().prf;
  const one = await ask(), two = await ask();
  const first = (prf) => prf && prf.results ? b64(prf.results.first) : null;
  return [made.getClientExtensionResults().prf.enabled, first(one), first(two)];
}"""


@pytest.mark.parametrize("kind", [c.HMAC_SECRET, c.HMAC_SECRET_MC, c.PRF], ids=lambda kind: kind.name)
def test_an_authenticator_with_a_prf(tab: Tab, site: int, kind: Kind) -> None:
    tab.authenticator(kind)
    tab.page.goto(f"http://localhost:{site}/")
    enabled, one, two = tab.page.evaluate(MAKE_AND_ASK)
    assert enabled
    assert one == two
    assert len(one) == 44


def test_one_without(tab: Tab, site: int) -> None:
    tab.authenticator(c.NO_PRF)
    tab.page.goto(f"http://localhost:{site}/")
    assert tab.page.evaluate(MAKE_AND_ASK) == [False, None, None]


@pytest.mark.parametrize("kind", [c.UV_FAILS, c.NO_UV], ids=lambda kind: kind.name)
def test_one_that_does_not_verify_who_it_is(tab: Tab, site: int, kind: Kind) -> None:
    tab.authenticator(kind)
    tab.page.goto(f"http://localhost:{site}/")
    with pytest.raises(Error, match="NotAllowedError"):
        tab.page.evaluate(MAKE_AND_ASK)


@pytest.mark.parametrize("address", ["http://example.com/", "http://192.0.2.1/", "https://[2001:db8::1]/"])
def test_nobody_else_can_be_reached(tab: Tab, address: str) -> None:
    with pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
        tab.page.goto(address)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", c.REBOUND])
def test_this_machine_can_be_reached(tab: Tab, site: int, name: str) -> None:
    answer = tab.page.goto(f"http://{name}:{site}/")
    assert answer is not None
    assert answer.status == 200
    assert tab.page.title() == "empty"


def test_without_a_browser_the_tests_fail_and_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="apt-get install chromium"):
        c.present(str(tmp_path / "chromium"))


def test_a_loop_of_ones_own_is_refused_only_meanwhile(stage: c.Stage) -> None:
    @contextmanager
    def refused() -> Iterator[None]:
        with pytest.raises(RuntimeError, match="running event loop"):
            yield

    async def nothing() -> int:
        return 1

    assert asyncio.run(nothing()) == 1
    with stage.on(), refused():
        work = nothing()
        try:
            asyncio.run(work)
        finally:
            work.close()
    assert asyncio.run(nothing()) == 1
    with stage.on() as browser, browser.tab() as tab:
        assert tab.page.evaluate("1 + 1") == 2
