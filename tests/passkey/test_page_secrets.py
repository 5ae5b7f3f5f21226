"""Where the secret of a passkey may be, and where it is not: known from the authenticator that computed it."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import pytest
from playwright.sync_api import Request

from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.keys.passkey import Question
from tests.support.chromium import Tab
from tests.support.passkey_provider import PasskeyProvider
from tests.support.rehearsal import Rehearsal
from tests.support.soft_key import SoftAuthenticator, SoftCtapDevice
from tests.support.visitor import Visitor

WHERE = (bytes(32), bytes(range(32)))
INSIDE = """() => JSON.stringify([document.documentElement.outerHTML, location.href, history.state, document.cookie,
  name, {...localStorage}, {...sessionStorage}, performance.getEntries(), Object.keys(window).map((key) => {
    try { return JSON.stringify(window[key]); } catch { return null; }
  })])"""


# Holds on to every secret that the browser gives the page, and to every body that the page sends, as they are.
HOLDING = """(() => {
  const some = (bytes) => new Uint8Array(bytes.buffer ?? bytes).some((byte) => byte !== 0);
  const held = (window.__held = []);
  const hold = (what, bytes) => held.push({what, bytes, before: some(bytes)});
  window.__found = () => held.map(({what, bytes, before}) => [what, before, some(bytes)]);
  const get = navigator.credentials.get.bind(navigator.credentials);
  navigator.credentials.get = async (options) => {
    const credential = await get(options);
    const results = credential.getClientExtensionResults();
    credential.getClientExtensionResults = () => results;
    hold("given", results.prf.results.first);
    return credential;
  };
  const fetch = window.fetch.bind(window);
  window.fetch = (address, options) => {
    if (typeof options.body !== "string") hold("sent", options.body);
    return fetch(address, options);
  };
})();"""


def spellings(secret: bytes) -> list[bytes]:
    """How it could be written down."""
    plain = [base64.b64encode(secret), base64.urlsafe_b64encode(secret), base64.b32encode(secret)]
    numbers = ",".join(map(str, secret)).encode()
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), numbers, *(one.rstrip(b"=") for one in plain)]


def found(secret: bytes, places: Iterable[bytes]) -> list[bytes]:
    return [place[:200] for place in places for one in spellings(secret) if one in place]


def asked_twice(ceremony: ChildCeremony) -> list[bytes]:
    made = ceremony.enrol(())
    return [bytes(ceremony.ask([Question(made.credential, where)]).secret) for where in WHERE]


def test_it_passes_in_one_body_and_stays_nowhere(tab: Tab, capfd: pytest.CaptureFixture[str]) -> None:
    PasskeyProvider(SoftCtapDevice(SoftAuthenticator(uv=True))).serve(tab)
    requests: list[Request] = []
    tab.page.on("request", lambda request: requests.append(request))
    with Rehearsal(asked_twice) as rehearsal:
        Visitor(tab).visit(rehearsal.ready.url)
        Visitor(tab).presses("done")
        secrets = rehearsal.result()
        told = repr(rehearsal.told).encode()
    # The control: it did pass here, once each, as raw bytes, and what looks for it finds it in any spelling.
    bodies = [request.post_data_buffer or b"" for request in requests]
    for secret in secrets:
        assert len(found(secret, bodies)) == 1
        assert len([body for body in bodies if secret in body]) == 1
        assert all(found(secret, [b"x" + one + b"x"]) for one in spellings(secret))
    answers = [response.body() for request in requests if (response := request.response())]
    assert any(b'"get"' in answer for answer in answers)
    heads = [f"{request.url} {request.all_headers()}".encode() for request in requests]
    out, err = capfd.readouterr()
    places = [
        tab.page.evaluate(INSIDE),
        tab.page.content(),
        *tab.history(),
        *tab.seen.console,
        *tab.seen.errors,
        out,
        err,
    ]
    everywhere = [*answers, *heads, told, *(place.encode() for place in places)]
    for secret in secrets:
        assert not found(secret, everywhere)
    assert capfd.readouterr() == ("", "")  # the page's process has the terminal of the command, and says nothing there


def test_the_page_overwrites_what_it_was_given_and_what_it_sent(tab: Tab) -> None:
    tab.authenticator()
    tab.context.add_init_script(HOLDING)
    with Rehearsal(asked_twice) as rehearsal:
        Visitor(tab).visit(rehearsal.ready.url)
        Visitor(tab).presses("done")
        assert len(set(rehearsal.result())) == len(WHERE)
    held = tab.page.evaluate("window.__found()")
    # There was something in each, and there is nothing any more.
    assert held == [["given", True, False], ["sent", True, False]] * len(WHERE)
