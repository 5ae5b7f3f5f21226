"""The provider of these tests answers a page as a browser would."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Error

from tests.support.chromium import Chromium, Tab
from tests.support.passkey_provider import PasskeyProvider
from tests.support.site import Site
from tests.support.soft_key import SoftAuthenticator, SoftCtapDevice, Touch

MAKE = """async ([rp, exclude]) => {
  const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const made = await navigator.credentials.create({publicKey: {
    rp: {id: rp, name: "test"}, user: {id: new Uint8Array(16), name: "me", displayName: "me"},
    challenge: new Uint8Array(32), pubKeyCredParams: [{type: "public-key", alg: -7}],
    excludeCredentials: exclude.map((id) => ({type: "public-key", id: bytes(id)})),
    authenticatorSelection: {residentKey: "required", userVerification: "required"}, extensions: {prf: {}}}});
  if (!(made instanceof PublicKeyCredential) || !(made.response.attestationObject instanceof ArrayBuffer)) return null;
  return [btoa(String.fromCharCode(...new Uint8Array(made.rawId))), made.getClientExtensionResults().prf.enabled];
}"""
ASK = """async ([id, signal]) => {
  const raw = Uint8Array.from(atob(id), (one) => one.charCodeAt(0));
  const url = btoa(String.fromCharCode(...raw)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const got = await navigator.credentials.get({signal: signal ? AbortSignal.abort() : undefined, publicKey: {
    challenge: new Uint8Array(32), rpId: "localhost", userVerification: "required",
    allowCredentials: [{type: "public-key", id: raw}],
    extensions: {prf: {evalByCredential: {[url]: {first: new TextEncoder().encode("where")}}}}}});
  const {results} = got.getClientExtensionResults().prf;
  if (!(results.first instanceof ArrayBuffer) || got.toJSON().clientExtensionResults.prf.results.second) return null;
  return [Array.from(new Uint8Array(results.first)), got.toJSON().type, Object.keys(results)];
}"""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def make(tab: Tab, site: Site, rp: str = "localhost", *exclude: str) -> Any:
    tab.page.goto(site.url)
    return tab.page.evaluate(MAKE, [rp, list(exclude)])


def by_hand(key: SoftAuthenticator) -> bytes:
    """The PRF's output as Web Authentication Level 3, section 10.1.4, computes it."""
    salt = hashlib.sha256(b"WebAuthn PRF\0" + b"where").digest()
    seed = key.credentials[-1].random_with_uv
    assert seed is not None
    return hmac.digest(seed, salt, "sha256")


@pytest.mark.parametrize("pin", [None, "1234"])
def test_the_secret_is_that_of_the_credential(tab: Tab, site: Site, pin: str | None) -> None:
    key = SoftAuthenticator(pin=pin, uv=pin is None)
    PasskeyProvider(SoftCtapDevice(key), pin).serve(tab)
    made, enabled = make(tab, site)
    assert enabled
    assert tab.page.evaluate(ASK, [made, False]) == [list(by_hand(key)), "public-key", ["first"]]


def test_another_browser_with_the_same_provider(chromium: Chromium, tab: Tab, site: Site) -> None:
    here, there = SoftAuthenticator(uv=True), SoftAuthenticator(uv=True)
    PasskeyProvider(SoftCtapDevice(here)).serve(tab)
    made, _ = make(tab, site)
    there.restore(here.export())
    with chromium.tab() as other:
        PasskeyProvider(SoftCtapDevice(there)).serve(other)
        other.page.goto(site.url)
        assert other.page.evaluate(ASK, [made, False]) == tab.page.evaluate(ASK, [made, False])


def test_refusals_have_the_names_that_a_browser_gives_them(tab: Tab, site: Site) -> None:
    key = SoftAuthenticator(uv=True)
    PasskeyProvider(SoftCtapDevice(key)).serve(tab)
    made, _ = make(tab, site)

    def refused(name: str) -> Any:
        return pytest.raises(Error, match=f"^Page.evaluate: {name}: ")

    with refused("SecurityError"):
        make(tab, site, "example.com")
    with refused("InvalidStateError"):
        make(tab, site, "localhost", made)
    with refused("NotAllowedError"):
        tab.page.evaluate(ASK, ["bm90IG9uZSBvZiBpdHM=", False])
    with refused("AbortError"):
        tab.page.evaluate(ASK, [made, True])
    key.person.touch = Touch.DENY
    with refused("NotAllowedError"):
        tab.page.evaluate(ASK, [made, False])
    key.person.touch, key.person.finger_matches = Touch.YES, False
    with refused("NotAllowedError"):
        tab.page.evaluate(ASK, [made, False])


def test_without_its_pin_it_is_refused(tab: Tab, site: Site) -> None:
    PasskeyProvider(SoftCtapDevice(SoftAuthenticator(pin="1234"))).serve(tab)
    with pytest.raises(Error, match="NotAllowedError"):
        make(tab, site)
