"""What another page, another name, and a second tab try on the page of a ceremony, in a real Chromium.

Each test shows first that what it does works where nothing stands against it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Error, Page, Route

from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import PageOpened, Refused
from chatkeep.daemon.keys.passkey import NewCredential
from tests.support.chromium import REBOUND, Chromium, Tab
from tests.support.page_client import call, honest
from tests.support.rehearsal import Rehearsal
from tests.support.site import Site
from tests.support.station import until
from tests.support.visitor import Visitor

SEND = """async ([url, headers, mode]) => {
  try {
    const answer = await fetch(url, {method: "POST", headers, body: "{}", mode});
    return [answer.status, answer.type];
  } catch (error) {
    return [0, error.name];
  }
}"""
# A page that this test makes up counts as one from the internet, and Chromium keeps those from this machine by itself.
LOCAL = "--disable-features=LocalNetworkAccessChecks"
Enrolling = Rehearsal[NewCredential]


def enrol(ceremony: ChildCeremony) -> NewCredential:
    return ceremony.enrol(())


@pytest.fixture
def served() -> Iterator[Enrolling]:
    """A page that nobody has opened yet; it is still good for its own tab when the attack is over."""
    with Rehearsal(enrol) as served:
        yield served
        served.abandon()


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    """A page on another port of this machine, whose author wants what is not theirs."""
    with Site() as site:
        yield site


def still_good(served: Enrolling, tab: Tab) -> None:
    """The attack has used nothing up: the page opens for whom the link is."""
    page = tab.other()
    page.goto(served.ready.url, wait_until="commit")
    page.locator("body[data-state=ready]").wait_for()


def attempts(page: Page, served: Enrolling) -> dict[str, list[object]]:
    """What a page of another origin can try, if it had the token."""
    url = f"http://localhost:{served.port}/api/begin"
    json, text = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
    return {
        "with the token": page.evaluate(SEND, [url, {**json, "X-Token": served.token}, "cors"]),
        "as a form would": page.evaluate(SEND, [url, text, "cors"]),
        "blindly": page.evaluate(SEND, [url, text, "no-cors"]),
    }


def test_another_page_of_this_machine_posts(served: Enrolling, elsewhere: Site, tab: Tab) -> None:
    tab.page.goto(elsewhere.url)
    with Site() as other:
        assert tab.page.evaluate(SEND, [f"{other.url}api/begin", {}, "no-cors"]) == [0, "opaque"]
        assert other.asked == [("POST", "/api/begin")]
    tried = attempts(tab.page, served)
    assert tried == {way: [0, "TypeError"] for way in tried}
    assert served.event(Refused).reason == "origin"  # it got there
    assert not [event for event in served.told if isinstance(event, PageOpened)]
    still_good(served, tab)


def test_a_form_posts(served: Enrolling, elsewhere: Site, tab: Tab) -> None:
    def posted(port: int) -> int:
        page = tab.other()
        page.goto(elsewhere.url)
        with page.expect_response(f"http://localhost:{port}/api/begin") as answered:
            page.evaluate(
                """(port) => {
                  const form = document.createElement("form");
                  form.method = "post"; form.enctype = "text/plain"; form.action = `http://localhost:${port}/api/begin`;
                  document.body.append(form);
                  form.submit();
                }""",
                port,
            )
        return answered.value.status

    assert posted(elsewhere.port) == 200
    assert posted(served.port) == 403
    assert served.event(Refused).reason == "origin"
    still_good(served, tab)


def status(page: Page, address: str) -> int:
    """What a visit is answered with; a browser shows a page of its own for an empty refusal, and calls it an error."""
    with page.expect_response(address) as answered, contextlib.suppress(Error):
        page.goto(address)
    return answered.value.status


def test_a_name_that_was_made_to_lead_here(served: Enrolling, elsewhere: Site, chromium: Chromium, tab: Tab) -> None:
    """DNS rebinding: the page comes from the attacker's own address, and the name then leads to this machine, with the
    port that the page came from. For the browser that is one origin, so nothing is cross-origin any more.

    This Chromium would stop it by itself (local network access): what is shown is that nobody relies on it.
    """
    home = f"http://{REBOUND}:{served.port}"
    headers = {"Content-Type": "application/json", "X-Token": served.token}
    with chromium.another(LOCAL) as other, other.tab() as theirs:
        page = theirs.page
        assert status(page, f"http://{REBOUND}:{elsewhere.port}/") == 200  # a server that takes any name answers to it
        page.route(f"{home}/lure", lambda route: route.fulfill(body="<title>theirs</title>", content_type="text/html"))
        page.goto(f"{home}/lure")
        assert page.title() == "theirs"
        assert page.evaluate(SEND, [f"{home}/api/begin", headers, "same-origin"]) == [421, "basic"]
        assert page.evaluate("async () => (await fetch('/')).status") == 421
        assert status(page, f"{home}/") == 421
    assert served.event(Refused).reason == "host"
    still_good(served, tab)


@pytest.mark.parametrize("name", ["127.0.0.1", "[::1]"])
def test_this_machine_under_its_number(served: Enrolling, tab: Tab, name: str) -> None:
    """No passkey would work there, and it is another origin."""
    assert status(tab.page, f"http://{name}:{served.port}/") == 421
    assert status(tab.page, f"http://localhost:{served.port}/") == 200
    still_good(served, tab)


FRAME = """(url) => new Promise((resolve) => {
  const frame = document.createElement("iframe");
  frame.onload = () => resolve(null);
  frame.src = url;
  document.body.append(frame);
})"""


def test_it_is_put_into_a_frame(served: Enrolling, elsewhere: Site, tab: Tab) -> None:
    with Site() as harmless:
        tab.page.goto(elsewhere.url)
        tab.page.evaluate(FRAME, harmless.url)
        assert [frame.url for frame in tab.page.frames[1:]] == [harmless.url]
    tab.page.goto(elsewhere.url)
    tab.page.evaluate(FRAME, served.ready.url)
    assert [frame.url for frame in tab.page.frames[1:]] == ["chrome-error://chromewebdata/"]
    assert served.event(Refused).reason == "origin"
    assert not [event for event in served.told if isinstance(event, PageOpened)]
    still_good(served, tab)


def test_a_frame_that_says_it_is_none(served: Enrolling, elsewhere: Site, tab: Tab) -> None:
    """Were its request let through, as by a browser that does not say what it is for, the page's own headers refuse."""

    def plain(route: Route) -> None:
        headers = {name: value for name, value in route.request.headers.items() if not name.startswith("sec-fetch")}
        route.fulfill(response=route.fetch(headers=headers))

    tab.page.route(f"http://localhost:{served.port}/", plain)
    tab.page.goto(elsewhere.url)
    tab.page.evaluate(FRAME, served.ready.url)
    assert [frame.url for frame in tab.page.frames[1:]] == ["chrome-error://chromewebdata/"]
    assert any("frame-ancestors" in line or "X-Frame-Options" in line for line in tab.seen.errors), tab.seen.errors
    assert not [event for event in served.told if isinstance(event, PageOpened)]


def test_a_window_that_another_page_opened(served: Enrolling, elsewhere: Site, tab: Tab) -> None:
    """The page opens, for a link may be followed from anywhere; whoever opened it has no hold on it."""
    tab.page.goto(elsewhere.url)
    with tab.context.expect_page() as opened:
        tab.page.evaluate("(url) => { window.held = window.open(url); }", elsewhere.url)
    opened.value.wait_for_load_state()
    assert tab.page.evaluate("[held.closed, held.location.pathname]") == [False, "/"]
    with tab.context.expect_page() as opened:
        tab.page.evaluate("(url) => { window.held = window.open(url); }", served.ready.url)
    opened.value.locator("body[data-state=ready]").wait_for()
    assert tab.page.evaluate("held.closed")
    assert opened.value.evaluate("window.opener") is None


def test_a_link_that_is_opened_twice(served: Enrolling, tab: Tab) -> None:
    visitor = Visitor(tab)
    visitor.visit(served.ready.url)
    second = tab.other()
    second.goto(served.ready.url, wait_until="commit")
    second.locator("body[data-state=over]").wait_for()
    assert second.locator("#title").inner_text() == "This link was opened before"
    assert served.ready.code not in second.locator("body").inner_text().replace("\n", "")
    assert served.event(Refused).reason == "used"
    assert call(served.port, "begin", honest(served.port, served.token)).status == 410
    for name in ("next", "over"):  # the link's token is not the tab's ticket
        assert call(served.port, name, honest(served.port, served.token)).status == 403
    visitor.sees("ready")


def test_without_the_token(served: Enrolling, tab: Tab) -> None:
    tab.page.goto(f"http://localhost:{served.port}/", wait_until="commit")
    tab.page.locator("body[data-state=over]").wait_for()
    for wrong in ("", "x", served.token[:-1], served.token + "x", served.token.swapcase()):
        assert call(served.port, "begin", honest(served.port, wrong)).status == 403
    still_good(served, tab)


INJECT = """async () => {
  const tried = {};
  const attempt = (name, act) => { try { act(); tried[name] = "done"; } catch (error) { tried[name] = error.name; } };
  attempt("markup", () => { document.body.innerHTML = "<img src=x onerror='window.owned = 1'>"; });
  attempt("script", () => {
    const script = document.createElement("script");
    script.textContent = "window.owned = 2";
    document.head.append(script);
  });
  attempt("address", () => { document.createElement("script").src = "http://localhost:PORT/owned.js"; });
  attempt("policy", () => trustedTypes.createPolicy("theirs", {createHTML: (text) => text}));
  attempt("eval", () => setTimeout("window.owned = 3"));
  return tried;
}"""


def test_text_never_becomes_script(served: Enrolling, elsewhere: Site, tab: Tab) -> None:
    tab.page.goto(elsewhere.url)
    free = tab.page.evaluate(INJECT)
    assert set(free.values()) == {"done"}
    tab.page.wait_for_function("window.owned === 1")
    Visitor(tab).visit(served.ready.url)
    assert tab.page.evaluate(INJECT) == dict.fromkeys(free, "TypeError")
    assert tab.page.evaluate("window.owned") is None
    assert tab.page.locator("#title").count() == 1


INLINE = "<script>window.one = 1</script><img src='x' onerror='window.two = 2'><script src='URL'></script></body>"
OWNED = "[window.one, window.two, window.three]"


def test_a_script_in_the_markup_does_not_run(served: Enrolling, elsewhere: Site, chromium: Chromium) -> None:
    """As if a byte of the page were somebody else's: the same markup, without the headers, runs it."""
    elsewhere.page = "window.three = 3"
    protected: list[bool] = []
    address = f"http://localhost:{served.port}/"

    def changed(route: Route) -> None:
        answer = route.fetch()
        body = answer.text().replace("</body>", INLINE.replace("URL", elsewhere.url))
        assert "window.one" in body
        route.fulfill(headers=answer.headers if protected else {"content-type": "text/html"}, body=body)

    with chromium.another(LOCAL) as other, other.tab() as tab:
        tab.page.route(address, changed)
        tab.page.goto(address)
        tab.page.wait_for_function(f"{OWNED}.every((one) => one)")
        elsewhere.asked.clear()
        protected.append(True)
        tab.page.goto(address)
        tab.page.locator("body[data-state=over]").wait_for()
        assert tab.page.evaluate(OWNED) == [None, None, None]
        assert sum("Content Security Policy" in line for line in tab.seen.errors) >= 3
    assert elsewhere.asked == []


def test_a_script_in_the_page_could_send_nothing_away(served: Enrolling, elsewhere: Site, tab: Tab) -> None:
    away = """async (url) => {
      const fetched = await fetch(url, {mode: "no-cors"}).then(() => "sent", () => "refused");
      const image = await new Promise((resolve) => {
        const image = new Image();
        image.onload = image.onerror = () => resolve(null);
        image.src = url + "image";
      });
      const socket = await new Promise((resolve) => {
        try {
          const socket = new WebSocket(url.replace("http", "ws") + "socket");
          socket.onopen = socket.onerror = () => resolve(null);
        } catch { resolve(null); }
      });
      navigator.sendBeacon(url + "beacon", "x");
      return [fetched, image, socket][0];
    }"""
    with Site() as other:
        tab.page.goto(other.url)
        assert tab.page.evaluate(away, elsewhere.url) == "sent"
    until(lambda: {path for _, path in elsewhere.asked} >= {"/", "/image", "/socket", "/beacon"})
    elsewhere.asked.clear()
    Visitor(tab).visit(served.ready.url)
    assert tab.page.evaluate(away, elsewhere.url) == "refused"
    with pytest.raises(Error):
        tab.page.evaluate("(url) => import(url)", elsewhere.url)
    refused = [line for line in tab.seen.errors if "Content Security Policy" in line]
    for path in ("", "image", "socket", "beacon"):  # each was stopped here, not only late
        assert any(f"//localhost:{elsewhere.port}/{path}'" in line for line in refused), (path, refused)
    assert elsewhere.asked == []


def places(tab: Tab) -> str:
    """Everywhere that an address of the page could be kept, but for the timing of its own loading, which no page can
    change and only its own script reads."""
    inside = """() => JSON.stringify([location.href, history.state, document.referrer, document.cookie, name,
      {...localStorage}, {...sessionStorage}, navigation.entries().map((entry) => entry.url),
      performance.getEntriesByType("resource").map((entry) => entry.name), document.documentElement.outerHTML])"""
    return "\n".join([tab.page.evaluate(inside), *tab.history(), *tab.seen.urls, *tab.seen.console])


def test_the_link_is_nowhere_once_it_was_used(served: Enrolling, elsewhere: Site, tab: Tab) -> None:
    tab.page.goto(f"{elsewhere.url}#mark")
    assert "#mark" in places(tab)
    Visitor(tab).visit(served.ready.url)
    assert f"http://localhost:{served.port}/" in tab.history()
    assert served.token not in places(tab)
    tab.page.go_back()
    assert tab.page.evaluate("document.referrer") == ""
    tab.page.go_forward(wait_until="commit")
    tab.page.locator("body[data-state=over]").wait_for()
    assert served.token not in places(tab)
