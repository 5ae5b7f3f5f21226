"""Google Drive, as a fake that was made from the published protocol: nobody here has asked the real one.

Twice: with bodies small enough for one request, and through resumable sessions.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from chatkeep.config.storages import DriveOptions
from chatkeep.providers import base
from chatkeep.providers.gdrive import open_drive
from chatkeep.providers.google_http import Bounds
from chatkeep.providers.google_token import TokenInFile, TokenInMemo
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.registry import Opening
from tests.providers.stations import Fired, Lack, Lines, Place, Refusal, Station, secret_file
from tests.support.fake_drive import HOSTS, FakeDrive
from tests.support.fault_proxy import Fault
from tests.support.https_front import HttpsFront


def said(status: int, reason: str, on: str = "", after: float | None = None) -> Fault:
    """An error as Drive's API writes it."""
    error = {"code": status, "message": reason, "errors": [{"domain": "usageLimits", "reason": reason}]}
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json; charset=UTF-8"),)
    if after is not None:
        headers += (("Retry-After", str(int(after))),)
    return Fault(
        "status", on=on, status=status, headers=headers, body=json.dumps({"error": error}).encode(), times=None
    )


_API = r"^\w+ /(upload/)?drive/v3/"
_REFUSALS = {
    # First: later there is an access token, and nobody asks for one.
    "client": Refusal(
        Fault("status", on="^POST /token", status=401, body=b'{"error": "invalid_client"}'), base.CredentialRefused
    ),
    "room": Refusal(said(403, "storageQuotaExceeded", "/upload/"), base.QuotaExceeded),
    "files": Refusal(said(403, "numChildrenInNonRootLimitExceeded", "/upload/"), base.QuotaExceeded),
    "rate": Refusal(said(403, "rateLimitExceeded", _API), base.Throttled, "get"),
    "user-rate": Refusal(said(403, "userRateLimitExceeded", _API), base.Throttled),
    "day": Refusal(said(403, "dailyLimitExceeded", _API), base.Throttled, "list"),
    "scope": Refusal(said(403, "insufficientPermissions", _API), base.LoginNeeded, "list"),
    "foreign": Refusal(said(403, "appNotAuthorizedToFile", "^DELETE "), base.PermissionRefused, "delete"),
    "disabled": Refusal(said(403, "accessNotConfigured", _API), base.PermissionRefused),
    "token": Refusal(said(401, "authError", _API), base.LoginNeeded, "stat", again="with a new access token"),
    "moved": Refusal(Fault("status", status=302, headers=(("Location", "http://127.0.0.1:9/"),)), base.Unavailable),
}


def files(fake: FakeDrive, folder: Path) -> dict[str, object]:
    """A client with Google's own addresses, and what a login gave it, as a configuration names them."""
    client = secret_file(folder / "client.json", fake.client_json("https://oauth2.googleapis.com"))
    token = folder / "token.json"
    TokenInFile(token).write(fake.accounts.logged_in())
    return {"client_file": str(client), "token_file": str(token)}


class Drive(Station):
    """What holds for both."""

    name = "gdrive"
    type: str | None = "gdrive"
    lacks = frozenset({Lack.EXCLUSIVE_CREATE, Lack.CLOCK, Lack.PUT_ONLY})
    writes = commits = r"^(POST /upload/.*uploadType=multipart|PUT /upload/)"
    reads = r"^GET /drive/v3/files/[^?/]+\?alt=media"
    lists = r"^GET /drive/v3/files\?"
    small = 1024 * 1024
    refusals = _REFUSALS
    secrets = ("GOCSPX-fake", "1//fake-refresh", "ya29.fake")

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def answer(self, status: int, after: float | None = None) -> Fault:
        reason = {429: "rateLimitExceeded", 500: "internalError"}.get(status, "backendError")
        return said(status, reason, after=after)

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        fake = FakeDrive()
        fake.world.page_limit = 16
        places: list[TokenInMemo] = []

        def log_in() -> None:
            token = fake.accounts.logged_in()
            for each in places:
                each.write(token)

        def opened(url: str | None) -> base.Provider:
            client = secret_file(folder / f"client-{next(self._numbers)}.json", fake.client_json(url or fake.origin))
            memo = MemoryMemo()
            places.append(TokenInMemo(memo))
            places[-1].write(fake.accounts.logged_in())
            bounds = Bounds(silence=self.timeout) if url else None
            opening = Opening(self.name, DriveOptions(client), memo, create=url is None)
            return open_drive(opening, endpoint=url or fake.origin, bounds=bounds, small=self.small, chunk=262_144)

        def lines(url: str | None) -> Lines:
            port = int(url.rpartition(":")[2]) if url else fake.port
            front = fronts.enter_context(HttpsFront(HOSTS, port, folder, fake.strange))
            return Lines(files(fake, folder), front.environment)

        @contextlib.contextmanager
        def full() -> Iterator[Fired]:
            fake.world.quota = fake.world.usage() + 1000
            try:
                yield lambda: sum(status == 403 for _, status in fake.log)
            finally:
                fake.world.quota = None

        @contextlib.contextmanager
        def expired() -> Iterator[Fired]:
            fake.accounts.revoke()
            yield lambda: sum(call == "token" and status == 400 for call, status in fake.log)
            log_in()  # a refresh token that was refused is not tried again: only a login helps

        @contextlib.contextmanager
        def stale() -> Iterator[Fired]:
            before = fake.count("files.list")
            fake.world.lag()
            try:
                yield lambda: fake.count("files.list") - before
            finally:
                fake.world.settle()

        with contextlib.closing(fake), contextlib.ExitStack() as fronts:
            yield Place(
                opened,
                port=fake.port,
                copies=lambda name: len(fake.named(name)),
                full=full,
                expired=expired,
                stale=stale,
                lines=lines,
            )
        assert fake.strange == []


class Resumable(Drive):
    name = "gdrive-resumable"
    type = None  # no key says how large a body is small
    small = 1000
    writes = commits = r"^PUT /upload/"


STATIONS = [Drive(), Resumable()]
