"""Google's OAuth endpoints for installed applications, as published: authorization with PKCE, tokens, refresh.

https://developers.google.com/identity/protocols/oauth2/native-app
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

SCOPE = "https://www.googleapis.com/auth/drive.file"
_ASKED = frozenset(
    {
        *("client_id", "redirect_uri", "response_type", "scope", "code_challenge", "code_challenge_method", "state"),
        *("access_type", "prompt", "login_hint"),
    }
)


@dataclass
class Grant:
    """What a person agreed to: a refresh token, or a code that becomes one."""

    client: str
    scope: str
    redirect: str = ""
    challenge: str = ""


@dataclass
class Accounts:
    """One person's account and the clients it knows.

    Attributes:
        lifetime: seconds that access tokens are good for.
        ahead: seconds by which its clock is ahead of this machine's.
        rotates: a refresh gives another refresh token, and the old one ends.
        scope: what the person ticks.
        asked: the query of the last authorization.
    """

    client_id: str = "1234-fake.apps.googleusercontent.com"
    client_secret: str = "GOCSPX-fake-secret-of-the-client"
    lifetime: int = 3599
    ahead: float = 0.0
    rotates: bool = False
    scope: str = SCOPE
    asked: dict[str, str] = field(default_factory=dict)
    codes: dict[str, Grant] = field(default_factory=dict)
    spent: dict[str, str] = field(default_factory=dict)  # code > the refresh token it gave
    refreshes: dict[str, Grant] = field(default_factory=dict)
    accesses: dict[str, tuple[float, Grant]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def logged_in(self) -> str:
        """A refresh token, as a login would have got it."""
        with self.lock:
            token = f"1//fake-refresh-{secrets.token_urlsafe(24)}"
            self.refreshes[token] = Grant(self.client_id, self.scope)
            return token

    def revoke(self) -> None:
        """The person takes access back."""
        with self.lock:
            self.refreshes.clear()
            self.accesses.clear()

    def who(self, authorization: str) -> Grant | None:
        """Whose request it is, by its header; None for a token that is not good (any more)."""
        with self.lock:
            found = self.accesses.get(authorization.removeprefix("Bearer "))
            return found[1] if found is not None and found[0] > time.time() + self.ahead else None

    def authorize(self, query: dict[str, str]) -> tuple[int, str]:
        """The page where the person agrees. Status and page, or an error that stays here."""
        self.asked = query
        problem = self._wrong(query)
        if problem:
            return 400, f"<p>Error 400: {problem}</p>"
        quoted = html.escape(urllib.parse.urlencode(query), quote=True)
        return 200, (
            "<!doctype html><title>Sign in</title><p>Chatkeep wants to see and change the files it made."
            f"<p><a id=allow href='/consent?answer=allow&amp;{quoted}'>Allow</a>"
            f" <a id=deny href='/consent?answer=deny&amp;{quoted}'>Cancel</a>"
        )

    def consented(self, query: dict[str, str]) -> str:
        """Where the browser is sent after the person answered."""
        back = {"state": query["state"]}
        if query["answer"] == "allow":
            code = f"4/0Fake-{secrets.token_urlsafe(24)}"
            with self.lock:
                self.codes[code] = Grant(query["client_id"], self.scope, query["redirect_uri"], query["code_challenge"])
            back |= {"code": code, "scope": self.scope}
        else:
            back |= {"error": "access_denied"}
        return f"{query['redirect_uri']}?{urllib.parse.urlencode(back)}"

    def _wrong(self, query: dict[str, str]) -> str:
        if not set(query) <= _ASKED:
            return "invalid_request"
        if query.get("client_id") != self.client_id:
            return "invalid_client"
        if not re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]|localhost):\d+(/[^?#]*)?", query.get("redirect_uri", "")):
            return "redirect_uri_mismatch"
        if query.get("response_type") != "code":
            return "unsupported_response_type"
        if query.get("scope") != SCOPE:
            return "invalid_scope"
        challenge = re.fullmatch(r"[A-Za-z0-9_-]{43}", query.get("code_challenge", ""))
        if query.get("code_challenge_method") != "S256" or challenge is None or not query.get("state"):
            return "invalid_request"
        return ""

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, object]]:
        """The token endpoint. Status and JSON."""
        if form.get("client_id") != self.client_id or form.get("client_secret") != self.client_secret:
            return 401, {"error": "invalid_client", "error_description": "The OAuth client was not found."}
        with self.lock:
            if form.get("grant_type") == "authorization_code":
                return self._exchanged(form)
            if form.get("grant_type") == "refresh_token":
                return self._refreshed(form)
        return 400, {"error": "unsupported_grant_type", "error_description": "Invalid grant_type"}

    def _exchanged(self, form: dict[str, str]) -> tuple[int, dict[str, object]]:
        code = form.get("code", "")
        if code in self.spent:  # a second use ends what the first one gave, RFC 6749 section 4.1.2
            self.refreshes.pop(self.spent[code], None)
        grant = self.codes.pop(code, None)
        verifier = form.get("code_verifier", "")
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if grant is None or grant.redirect != form.get("redirect_uri"):
            return 400, {"error": "invalid_grant", "error_description": "Malformed auth code."}
        if digest != grant.challenge or not 43 <= len(verifier) <= 128:
            return 400, {"error": "invalid_grant", "error_description": "Missing code verifier."}
        token = self.logged_in()
        self.refreshes[token] = grant
        self.spent[code] = token
        return 200, {**self._access(grant), "refresh_token": token}

    def _refreshed(self, form: dict[str, str]) -> tuple[int, dict[str, object]]:
        old = form.get("refresh_token", "")
        grant = self.refreshes.get(old)
        if grant is None:
            return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        found = self._access(grant)
        if self.rotates:
            del self.refreshes[old]
            found["refresh_token"] = token = f"1//fake-refresh-{secrets.token_urlsafe(24)}"
            self.refreshes[token] = grant
        return 200, found

    def _access(self, grant: Grant) -> dict[str, object]:
        token = f"ya29.fake-access-{secrets.token_urlsafe(24)}"
        self.accesses[token] = (time.time() + self.ahead + self.lifetime, grant)
        return {"access_token": token, "expires_in": self.lifetime, "scope": grant.scope, "token_type": "Bearer"}
