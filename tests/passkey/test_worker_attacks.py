"""What whoever had the ceremony's port before left in the browser: a service worker, which answers in the page's place
and reads what it says. One visit to any port is enough for it, years ago, and for thousands of ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import PageOpened, Refused
from chatkeep.daemon.keys.passkey import Question
from tests.support.chromium import PRF, Tab
from tests.support.port_again import on_port
from tests.support.rehearsal import Rehearsal
from tests.support.site import Site

AT_ONCE = """
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
"""
ANSWERS_ITSELF = f"""{AT_ONCE}
addEventListener("fetch", (event) => {{
  if (event.request.mode === "navigate")
    event.respondWith(new Response("<title>theirs</title>", {{headers: {{"Content-Type": "text/html"}}}}));
}});
"""
READS_ALONG = f"""{AT_ONCE}
const seen = [];
addEventListener("fetch", (event) => {{
  const path = new URL(event.request.url).pathname;
  if (path === "/seen") event.respondWith(new Response(JSON.stringify(seen)));
  if (path.startsWith("/api/")) event.respondWith((async () => {{
    seen.push([path, Array.from(new Uint8Array(await event.request.clone().arrayBuffer()))]);
    return fetch(event.request);
  }})());
}});
"""
ITS_OWN_SCRIPT = f"""{AT_ONCE}
addEventListener("fetch", (event) => {{
  if (new URL(event.request.url).pathname === "/page.js")
    event.respondWith(new Response("document.title = 'owned'", {{headers: {{"Content-Type": "text/javascript"}}}}));
}});
"""
TRIES = """async (token) => {
  const text = await fetch("/").then((page) => page.ok ? page.text() : "");
  const word = /name="page" content="(.*?)"/.exec(text)?.[1] ?? "";
  const headers = {"Content-Type": "application/json", "X-Token": token, "X-Page": word};
  return [text, (await fetch("/api/begin", {method: "POST", headers, body: "{}"})).status];
}"""


def asked(ceremony: ChildCeremony) -> bytes:
    made = ceremony.enrol(())
    return bytes(ceremony.ask([Question(made.credential, bytes(32))]).secret)


@contextmanager
def haunted(tab: Tab, worker: str) -> Iterator[Rehearsal[bytes]]:
    """A ceremony that came by the port of somebody who has gone, and who left this worker there."""
    with Site(worker, **{"Content-Type": "text/javascript"}) as squatter:
        tab.page.goto(squatter.url)
        ready = "navigator.serviceWorker.register('/worker').then(() => navigator.serviceWorker.ready)"
        assert tab.page.evaluate(f"{ready}.then((found) => found.scope)") == squatter.url
        tab.page.goto("about:blank")
    tab.authenticator(PRF)
    with pytest.MonkeyPatch.context() as patch:
        on_port(patch, squatter.port)
        with Rehearsal(asked, steps=2) as served:
            assert served.port == squatter.port
            yield served
            served.abandon()


def unbegun(served: Rehearsal[bytes]) -> bool:
    return not [event for event in served.told if isinstance(event, PageOpened)]


def test_one_that_answers_itself_has_the_link_and_begins_nothing(tab: Tab) -> None:
    with haunted(tab, ANSWERS_ITSELF) as served:
        tab.page.goto(served.ready.url, wait_until="commit")
        assert tab.page.title() == "theirs"
        assert tab.page.evaluate("location.hash.slice(1)") == served.token
        assert tab.page.evaluate(TRIES, served.token) == ["", 403]
        assert served.event(Refused).reason == "origin"
        assert unbegun(served)


def test_nor_through_a_window_that_it_may_look_into(tab: Tab) -> None:
    with haunted(tab, ANSWERS_ITSELF) as served:
        tab.page.goto(served.ready.url, wait_until="commit")
        tab.page.evaluate("navigator.serviceWorker.ready.then((found) => found.unregister())")
        with tab.page.expect_popup() as opened:
            tab.page.evaluate("window.theirs = window.open('/')")
        opened.value.locator("body[data-state=over]").wait_for()  # it is the page, and not the worker's
        assert opened.value.evaluate("document.querySelector('meta[name=page]').content") == ""
        assert unbegun(served)


def test_one_that_reads_along_has_nothing_to_read(tab: Tab) -> None:
    with haunted(tab, READS_ALONG) as served:
        tab.page.goto(served.ready.url, wait_until="commit")
        tab.page.locator("body[data-state=over]").wait_for()
        assert tab.page.locator("#title").inner_text() == "This page is not alone"
        assert tab.page.evaluate("fetch('/seen').then((all) => all.json())") == []
        assert unbegun(served)
        # It is gone, should the person come by this port again.
        tab.page.goto("about:blank")
        again = tab.other()
        again.goto(served.ready.url, wait_until="commit")
        again.locator("body[data-state=ready]").wait_for()


def test_one_that_puts_its_own_script_in_the_place_of_the_pages(tab: Tab) -> None:
    with haunted(tab, ITS_OWN_SCRIPT) as served:
        tab.page.goto(served.ready.url, wait_until="load")
        assert tab.page.title() == "Chatkeep"
        assert any("integrity" in text for text in tab.seen.errors), tab.seen
        assert unbegun(served)
