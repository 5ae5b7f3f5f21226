"""Logging in to Google, by a person, in the person's own command: `chatkeep providers login`.

The flow is that of installed applications (RFC 8252, and Google's page on it:
https://developers.google.com/identity/protocols/oauth2/native-app) with PKCE (RFC 7636). The browser comes back to a
page on 127.0.0.1, on a port that the system chose. On a machine without a browser the address is opened on another one;
there, the page that Google sends the browser to does not exist, and its address is pasted here.

Of the page: any program of this machine can reach it, so it takes nothing but one answer to this very request (`state`,
compared in constant time), once, and is gone when that came or time is up. A code alone is worth nothing to who sees
it: it is exchanged with a secret (`code_verifier`) that never leaves this process but to Google.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from chatkeep.config.errors import Disposition
from chatkeep.config.storages import DriveOptions
from chatkeep.providers import base
from chatkeep.providers.google_http import Bounds, Reply, Transport, split
from chatkeep.providers.google_token import SCOPE, Client, TokenPlace, read_client, token_place
from chatkeep.providers.registry import Opening
from chatkeep.providers.wrap.discreet import discreetly

PATIENCE: Final = 600.0
"""Seconds that the person has."""
_POLL: Final = 0.1
_SILENCE: Final = 5.0  # seconds that the page waits for a browser to send its request
_LONGEST: Final = 4096  # characters of an address that is pasted; a code has about 100

Said = Literal["open", "not-this"]
"""`open`: this address is to be opened. `not-this`: what was pasted is not the answer to it; the whole address is."""


class LoginFailed(base.ProviderError):
    """Nobody is logged in now; what was there before stands. Parameters: provider, and `reason`:

    denied (the person said no), timeout, scope (the box for Drive was not ticked), refused (Google did not take its own
    answer: it was too old), reply (what Google sent makes no sense).
    """

    code = "login-failed"
    disposition = Disposition.NEEDS_USER


@dataclass(frozen=True, slots=True, repr=False)
class _Question:
    """What is asked of Google, and by what its answer is known."""

    redirect: str
    state: str
    verifier: str

    def address(self, client: Client) -> str:
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        query = {
            "client_id": client.id,
            "redirect_uri": self.redirect,
            "response_type": "code",
            "scope": SCOPE,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii"),
            "code_challenge_method": "S256",
            "state": self.state,
            "access_type": "offline",  # with a refresh token
            "prompt": "consent",  # a refresh token also for who agreed before; without it there is none the second time
        }
        return f"{client.auth_uri}?{urllib.parse.urlencode(query)}"

    def answer(self, query: str) -> Mapping[str, str] | None:
        """The parameters of an answer to this question; None for anything else."""
        try:
            pairs = urllib.parse.parse_qsl(query, max_num_fields=20)
        except ValueError:
            return None
        found = dict(pairs)
        # Compared in constant time, so that nobody on this machine learns it a character at a time.
        mine = hmac.compare_digest(found.get("state", "").encode("utf-8", "replace"), self.state.encode("ascii"))
        return found if mine and len(found) == len(pairs) and ("code" in found) != ("error" in found) else None


@discreetly()
def login(
    opening: Opening,
    open_browser: Callable[[str], object],
    say: Callable[[Said, str], None],
    *,
    pasted: Callable[[], str | None] = lambda: None,
    patience: float = PATIENCE,
    endpoint: str | None = None,
) -> None:
    """Has a person let this client into the account, and puts what Google gives for it where the provider finds it.

    Args:
        opening: as the provider is opened with.
        open_browser: opens an address in the person's browser, if there is one. It may fail or do nothing.
        say: tells the person something; with `open`, the address, which must be shown even where a browser opens.
        pasted: called ten times a second; a line that the person entered since, or None. It must not wait.
        patience: seconds for all of it.
        endpoint: as in `gdrive.open_drive`; for tests.

    Raises:
        LoginFailed: see there.
        SecretFileRefused: the client file; or the token cannot be kept where the configuration says.
        CredentialRefused: Google does not know the client, or its secret.
        Unavailable, Throttled: Google cannot be reached.
        MemoUnusable: where the token is kept in the memo.
    """
    options: DriveOptions = opening.options
    client = read_client(options.client_file, endpoint)
    place = token_place(options.token_file, opening.memo)
    place.check()  # before a person spends time on it
    transport = Transport(opening.name, (split(client.token_uri)[0],), Bounds(), proxies=endpoint is None)
    page = _Page()
    try:
        question = _Question(page.address, secrets.token_urlsafe(32), secrets.token_urlsafe(64))
        page.serve(question)
        say("open", address := question.address(client))
        with contextlib.suppress(Exception):  # whatever a browser does, the address is on the screen
            open_browser(address)
        found = _answered(page, question, say, pasted, time.monotonic() + patience)
        if found is None:
            raise LoginFailed(provider=opening.name, reason="timeout")
        if "code" not in found:
            raise LoginFailed(provider=opening.name, reason="denied")
        _keep(opening.name, place, _exchanged(transport, client, question, found["code"]))
    finally:
        page.close()
        transport.close()


def _answered(
    page: _Page,
    question: _Question,
    say: Callable[[Said, str], None],
    pasted: Callable[[], str | None],
    deadline: float,
) -> Mapping[str, str] | None:
    """The answer, from the browser or from the person; None when time is up."""
    while time.monotonic() < deadline:
        if page.answered.wait(_POLL):
            return page.answer
        line = pasted()
        if line is None:
            continue
        found = _pasted(question, line.strip())
        if found is not None:
            return found
        say("not-this", "")
    return None


def _pasted(question: _Question, line: str) -> Mapping[str, str] | None:
    if len(line) > _LONGEST or not line.startswith(f"{question.redirect}?"):
        return None
    return question.answer(line.partition("?")[2])


def _exchanged(transport: Transport, client: Client, question: _Question, code: str) -> Reply:
    form = {
        "client_id": client.id,
        "client_secret": client.secret,
        "code": code,
        "code_verifier": question.verifier,
        "grant_type": "authorization_code",
        "redirect_uri": question.redirect,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return transport.send("POST", client.token_uri, headers, urllib.parse.urlencode(form).encode("ascii"))


def _keep(name: str, place: TokenPlace, reply: Reply) -> None:
    """Puts the refresh token into its place. Nothing of the reply is ever in an error."""
    try:
        found: Any = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    told: dict[str, Any] = found if isinstance(found, dict) and reply.whole else {}
    if reply.status == 429 or reply.status >= 500:
        raise base.Unavailable(provider=name, status=reply.status)
    if reply.status != 200:
        if told.get("error") in ("invalid_client", "unauthorized_client"):
            raise base.CredentialRefused(provider=name, reason=told["error"])
        raise LoginFailed(provider=name, reason="refused" if told.get("error") == "invalid_grant" else "reply")
    token, scope = told.get("refresh_token"), told.get("scope")
    if not isinstance(token, str) or not token or not isinstance(scope, str):
        raise LoginFailed(provider=name, reason="reply")
    if SCOPE not in scope.split():
        raise LoginFailed(provider=name, reason="scope")
    place.write(token)


class _Page:
    """The page on 127.0.0.1 that the browser comes back to.

    Attributes:
        address: of it, with its port.
        answer: what came back; None before `answered` is set.
    """

    def __init__(self) -> None:
        self._server = _Listening(("127.0.0.1", 0), _Visit)
        self._server.page = self
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.address = f"http://{self.host}/"
        self.answer: Mapping[str, str] | None = None
        self.answered = threading.Event()
        self.question: _Question | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def serve(self, question: _Question) -> None:
        """From now on an answer to this is taken."""
        self.question = question
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL,), name="login", daemon=True)
        self._thread.start()

    def take(self, query: str) -> bool:
        """Whether this is the answer, and the first one."""
        found = self.question.answer(query) if self.question is not None else None
        with self._lock:
            if found is None or self.answer is not None:
                return False
            self.answer = found
        self.answered.set()
        return True

    def close(self) -> None:
        """Takes no answer any more."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Listening(http.server.ThreadingHTTPServer):
    page: _Page
    daemon_threads = True
    block_on_close = False  # whoever holds a connection open does not hold up the login

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor that goes away is nobody's trouble, and its request is not for the terminal: it may be the code."""


class _Visit(http.server.BaseHTTPRequestHandler):
    server: _Listening
    timeout = _SILENCE
    server_version = "chatkeep"
    sys_version = ""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        # Another name for this address in `Host` would be a page of somebody else that the browser was led to.
        if self.headers.get("Host") != self.server.page.host or path != "/":
            self._show(404, "There is nothing here.")
        elif self.server.page.take(query):
            self._show(200, "Google has answered. Go back to the terminal; this window can be closed.")
        else:
            self._show(400, "This is not the answer that is waited for, or it came before. Look at the terminal.")

    def log_message(self, *_arguments: Any) -> None:
        """Nothing: the address of a request has the code in it."""

    def _show(self, status: int, text: str) -> None:
        page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Chatkeep</title><p>{text}</p></html>\n"
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page.encode()))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("Referrer-Policy", "no-referrer"),  # the address has the code in it
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page.encode())
