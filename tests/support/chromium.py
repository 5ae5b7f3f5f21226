"""Debian's Chromium without a window, and virtual authenticators in it: what a person's browser does with the page."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

try:
    from playwright.sync_api import BrowserContext, CDPSession, Page, Playwright, sync_playwright
except ModuleNotFoundError as absent:
    raise ModuleNotFoundError("playwright is missing: scripts/env installs it") from absent

EXECUTABLE = "/usr/bin/chromium"
PATIENCE = 120_000.0  # milliseconds; what a page is waited for comes within
REBOUND = "rebound.test"  # a name that leads to this machine: what DNS rebinding makes of an attacker's own name

# Nothing but this machine can be reached, by name or by number.
_RESOLVER = f"MAP {REBOUND} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE ::1"
_FLAGS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", f"--host-resolver-rules={_RESOLVER}"),
)


@dataclass(frozen=True)
class Kind:
    """What a virtual authenticator can do, in the words of the DevTools protocol (WebAuthn domain)."""

    name: str
    able: dict[str, Any]

    def options(self, **other: Any) -> dict[str, Any]:
        usual = {
            "protocol": "ctap2",
            "ctap2Version": "ctap2_1",
            "transport": "usb",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        return {**usual, **self.able, **other}


HMAC_SECRET = Kind("hmac-secret", {"hasHmacSecret": True})  # what a USB key does: no secret when it is made
HMAC_SECRET_MC = Kind("hmac-secret-mc", {"hasHmacSecret": True, "hasHmacSecretMc": True, "ctap2Version": "ctap2_2"})
PRF = Kind("prf", {"hasPrf": True, "transport": "internal"})  # what a password manager does
NO_PRF = Kind("no PRF", {})  # makes passkeys that open nothing
UV_FAILS = Kind("user verification fails", {"hasHmacSecret": True, "isUserVerified": False})
NO_UV = Kind("no user verification", {"hasHmacSecret": True, "hasUserVerification": False, "isUserVerified": False})


class Authenticator:
    """One virtual authenticator of one tab. It goes with the tab, and another tab does not see it."""

    def __init__(self, cdp: CDPSession, options: dict[str, Any]) -> None:
        self._cdp = cdp
        self.id: str = cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]

    def credentials(self) -> list[dict[str, Any]]:
        """What it holds; of the PRF's seed the protocol says nothing."""
        found: list[dict[str, Any]] = self._send("getCredentials")["credentials"]
        return found

    def add(self, credential: dict[str, Any]) -> None:
        """Gives it a credential as `credentials` shows one: it signs, and has no PRF."""
        self._send("addCredential", credential=credential)

    def clear(self) -> None:
        self._send("clearCredentials")

    def verify_user(self, well: bool) -> None:
        """Whether the next fingers fit."""
        self._send("setUserVerified", isUserVerified=well)

    def present(self, is_there: bool) -> None:
        """Whether somebody touches it when asked."""
        self._send("setAutomaticPresenceSimulation", enabled=is_there)

    def lie(self, how: str) -> None:
        """Answers badly from now on: `isBadUV` (it says that nobody was verified) or `isBogusSignature`."""
        self._send("setResponseOverrideBits", **{how: True})

    def remove(self) -> None:
        self._send("removeVirtualAuthenticator")

    def _send(self, what: str, **params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._cdp.send(f"WebAuthn.{what}", {"authenticatorId": self.id, **params})
        return answer


@dataclass
class Seen:
    """What passed between a tab and the world, as it passed: for saying that something is nowhere in it."""

    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # what the console calls an error, and exceptions nobody caught
    urls: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Tab:
    """A page in a context of its own, which shares nothing with that of another test."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        context.set_default_timeout(PATIENCE)
        self.page = context.new_page()
        self.seen = Seen()
        self._watch(self.page)
        self._cdp: CDPSession | None = None

    def authenticator(self, kind: Kind = HMAC_SECRET, **other: Any) -> Authenticator:
        """Plugs a virtual authenticator in; from the first on, no other is asked."""
        return Authenticator(self.cdp(), kind.options(**other))

    def cdp(self) -> CDPSession:
        """This page's DevTools session, with authenticators made virtual."""
        if self._cdp is None:
            self._cdp = self.context.new_cdp_session(self.page)
            self._cdp.send("WebAuthn.enable")
        return self._cdp

    def other(self) -> Page:
        """One more page in the same context: what the same browser's other tab sees."""
        page = self.context.new_page()
        self._watch(page)
        return page

    def history(self) -> list[str]:
        """The addresses that the back button of this tab leads to, and this one."""
        return [entry["url"] for entry in self.cdp().send("Page.getNavigationHistory")["entries"]]

    def _watch(self, page: Page) -> None:
        seen = self.seen

        def console(message: Any) -> None:
            seen.console.append(message.text)
            if message.type in {"error", "assert"}:
                seen.errors.append(message.text)

        page.on("console", console)
        page.on("pageerror", lambda error: seen.errors.append(f"{error.name}: {error.message}"))
        page.on("request", lambda request: seen.urls.append(request.url))
        page.on("requestfailed", lambda request: seen.failed.append(f"{request.url} {request.failure}"))


def present(executable: str = EXECUTABLE) -> str:
    """The browser's program. Without it the tests fail: they are what shows that the page works."""
    assert os.access(executable, os.X_OK), f"{executable} is missing: install it with `apt-get install chromium`"
    return executable


class Chromium:
    """A running browser."""

    def __init__(self, playwright: Playwright, *flags: str) -> None:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._playwright = playwright
        self.browser = playwright.chromium.launch(executable_path=present(), args=[*_FLAGS, *root, *flags])

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """A tab for the block."""
        context = self.browser.new_context()
        try:
            yield Tab(context)
        finally:
            context.close()

    @contextmanager
    def another(self, *flags: str) -> Iterator[Chromium]:
        """One more browser, that differs by these flags."""
        other = Chromium(self._playwright, *flags)
        try:
            yield other
        finally:
            other.close()

    def close(self) -> None:
        self.browser.close()


class Stage:
    """Playwright with one browser, kept from one test to the next.

    Its calls run an event loop of their own, which counts as running in this thread also between them: a test elsewhere
    that calls asyncio.run would be refused. So it only counts for as long as a test of ours is on.
    """

    def __init__(self) -> None:
        present()
        self._context = sync_playwright()
        playwright = self._context.start()
        self._loop = asyncio.get_running_loop()
        self.chromium = Chromium(playwright)
        self.aside()

    @contextmanager
    def on(self) -> Iterator[Chromium]:
        asyncio._set_running_loop(self._loop)
        try:
            yield self.chromium
        finally:
            self.aside()

    def aside(self) -> None:
        asyncio._set_running_loop(None)

    def end(self) -> None:
        asyncio._set_running_loop(self._loop)
        try:
            self.chromium.close()
            self._context.__exit__()
        finally:
            self.aside()


def origin(url: str) -> str:
    """Scheme, name and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
