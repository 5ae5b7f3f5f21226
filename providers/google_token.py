"""Access to a Google account: the OAuth client a person made, what a login gave, and short-lived access tokens from it.

- The **client** is Google's downloaded JSON of a client of type Desktop app, in a file of this user alone.
- The **refresh token** is what `chatkeep providers login` got. It stands in the memo (a file of this user in the state
  directory), in a file of its own (0600, written at once and whole), or in a credential of systemd, which is read only.
- **Access tokens** last an hour and are kept in memory only: fewer secrets on the disk, and a daemon never writes over
  what a login has just put there.

A refresh token that Google does not accept any more (`invalid_grant`) is `LoginNeeded`, and is not sent again: only
another one, put there by another login, ends that state, also in a process that runs.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from chatkeep.config.key import CREDENTIAL
from chatkeep.providers import base, durable
from chatkeep.providers.google_http import AuthReply, ForGoogle, Transport, split
from chatkeep.providers.memo import Memo
from chatkeep.providers.secret_file import read_secret

SCOPE: Final = "https://www.googleapis.com/auth/drive.file"
"""The only one asked for: files that this client made, nothing else in the account."""

MEMO_KEY: Final = "google-token:"
_EARLY: Final = 120.0  # seconds before its end from which an access token is not used for a new request


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client of type Desktop app. The secret of such a client protects nothing by itself (it is on every
    machine of its user), but is asked for by the token endpoint, and is kept like one."""

    id: str
    secret: str = field(repr=False)
    auth_uri: str
    token_uri: str


def read_client(path: Path, trusted: str | None = None) -> Client:
    """The client of Google's downloaded JSON.

    Args:
        trusted: an origin that its addresses may have besides https ones; for tests.

    Raises:
        SecretFileRefused: as `read_secret`; `malformed` also for a client of another type than Desktop app.
    """
    found = _object(read_secret(path)).get("installed")
    if isinstance(found, dict):
        texts = [found.get(key) for key in ("client_id", "client_secret", "auth_uri", "token_uri")]
        if all(isinstance(text, str) and text for text in texts) and all(_safe(str(uri), trusted) for uri in texts[2:]):
            return Client(*map(str, texts))
    raise base.SecretFileRefused(path=str(path), reason="malformed")


def _safe(uri: str, trusted: str | None) -> bool:
    origin, _ = split(uri)
    return bool(origin) and (origin.startswith("https://") or origin == trusted)


class TokenPlace(Protocol):
    """Where the refresh token stands."""

    def read(self) -> str | None:
        """The refresh token; None where there is none yet."""
        ...

    def write(self, token: str) -> None:
        """Puts it in place of what was there; whole or not at all.

        Raises:
            SecretFileRefused: it cannot be written here; `reason` `read-only` for a credential.
        """
        ...

    def check(self) -> None:
        """Raises what `write` would, as far as it can be seen before."""
        ...


class TokenInMemo:
    """In the memo, which is a file of this user alone in the state directory."""

    def __init__(self, memo: Memo) -> None:
        self._memo = memo

    def read(self) -> str | None:
        raw = self._memo.get(MEMO_KEY)
        return None if raw is None else _refresh_token(raw.decode("utf-8", "replace"))

    def write(self, token: str) -> None:
        self._memo.set(MEMO_KEY, _text(token).encode())

    def check(self) -> None:
        self._memo.get(MEMO_KEY)


class TokenInFile:
    """In a file of this user alone, or in a credential of systemd."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str | None:
        try:
            found = _refresh_token(read_secret(self._path))
        except base.SecretFileRefused as problem:
            if problem.params["reason"] == "missing":
                return None
            raise
        if found is None:
            raise base.SecretFileRefused(path=str(self._path), reason="malformed")
        return found

    def write(self, token: str) -> None:
        self.check()
        try:
            durable.write_durably(self._path, _text(token).encode(), 0o600)
        except OSError as problem:
            raise base.SecretFileRefused(path=str(self._path), reason="unwritable", errno=problem.errno) from problem

    def check(self) -> None:
        if str(self._path).startswith(CREDENTIAL):
            raise base.SecretFileRefused(path=str(self._path), reason="read-only")
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise base.SecretFileRefused(path=str(self._path), reason="unwritable")


def token_place(token_file: Path | None, memo: Memo) -> TokenPlace:
    """Where the configuration says."""
    return TokenInMemo(memo) if token_file is None else TokenInFile(token_file)


def _text(token: str) -> str:
    return json.dumps({"version": 1, "refresh_token": token, "scope": SCOPE}) + "\n"


def _refresh_token(text: str) -> str | None:
    token = _object(text).get("refresh_token")
    return token if isinstance(token, str) and token else None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}  # not chained: the exception holds the text
    return found if isinstance(found, dict) else {}


class Access:
    """Gives the `Authorization` of requests, and renews it. Any thread may call it; one renews, the others wait for it.

    Args:
        provider: the configured name.
        client: whose client.
        place: where the refresh token stands.
        transport: the way to the token endpoint.
        now: seconds since 1970.
    """

    def __init__(
        self,
        provider: str,
        client: Client,
        place: TokenPlace,
        transport: Transport,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._client = client
        self._place = place
        self._google = ForGoogle(transport)
        self._now = now
        self._lock = threading.Lock()
        self._stored: str | None = None  # what the place held when it was last read
        self._refresh: str | None = None  # what the present access token was made from
        self._access: str | None = None
        self._until = 0.0
        self._dead: str | None = None  # a refresh token that is not accepted any more

    def authorization(self, refused: str | None = None) -> str:
        """The value of the header.

        Args:
            refused: the one that the service answered with 401: it is not returned again.

        Raises:
            LoginNeeded: nobody logged in yet, or what the login gave is not accepted any more: `reason` never, revoked.
            Unavailable, Throttled: the token endpoint is away.
        """
        with self._lock:
            current = None if self._access is None else f"Bearer {self._access}"
            if current is None or current == refused or self._now() > self._until:
                self._renew()
            return f"Bearer {self._access}"

    def _renew(self) -> None:
        from google.auth import exceptions
        from google.oauth2.credentials import Credentials

        self._access = None
        stored = self._place.read()
        if stored is None:
            raise base.LoginNeeded(provider=self._provider, reason="never")
        if stored != self._stored:  # the first time, and after another login
            self._refresh = self._stored = stored
        if self._refresh == self._dead:
            raise base.LoginNeeded(provider=self._provider, reason="revoked")
        given = Credentials(  # type: ignore[no-untyped-call]
            None,
            refresh_token=self._refresh,
            token_uri=self._client.token_uri,
            client_id=self._client.id,
            client_secret=self._client.secret,
        )
        said: list[str] = []

        def ask(url: str, **about: Any) -> AuthReply:
            reply = self._google(url, **about)
            said.append(str(_object(reply.data.decode("utf-8", "replace")).get("error", "")))
            return reply

        try:
            given.refresh(ask)  # type: ignore[no-untyped-call]
        except exceptions.RefreshError:
            # Not chained: some of these carry the whole reply of the token endpoint.
            raise self._unrefreshed(said[-1] if said else "") from None
        except (exceptions.GoogleAuthError, TypeError, ValueError, LookupError, AttributeError):
            # The last four: what google-auth makes of a reply that is not of the endpoint, such as a network's page.
            raise base.Unavailable(provider=self._provider, reason="token-endpoint") from None
        token = given.token
        # What cannot stand in a header would be quoted by what refuses it there.
        if not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
            raise base.Unavailable(provider=self._provider, reason="token-endpoint")
        self._access = token
        # google-auth tells times in UTC without saying so.
        ends = None if given.expiry is None else given.expiry.replace(tzinfo=UTC).timestamp()
        self._until = self._now() + 300 if ends is None else ends - _EARLY
        if given.refresh_token and given.refresh_token != self._refresh:
            self._rotate(given.refresh_token)

    def _unrefreshed(self, error: str) -> base.ProviderError:
        if error == "invalid_grant":
            self._dead = self._refresh
            return base.LoginNeeded(provider=self._provider, reason="revoked")
        if error in ("invalid_client", "unauthorized_client", "deleted_client", "disabled_client"):
            return base.CredentialRefused(provider=self._provider, reason=error)
        # Anything else is no word about the token: a proxy's page, a failing server.
        return base.Unavailable(provider=self._provider, reason="token-endpoint")

    def _rotate(self, token: str) -> None:
        """The endpoint gave another refresh token: kept if the place can be written and still holds the old one."""
        old, self._refresh = self._refresh, token
        try:
            if self._place.read() == old:
                self._place.write(token)
                self._stored = token
        except base.SecretFileRefused:
            pass  # a credential of systemd: in memory for as long as this process lives


def utc(text: str) -> float | None:
    """Seconds since 1970 of a time as Google writes it (RFC 3339); None for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo is not None else None
