"""A CloudKit container, at a fake that follows Apple's published protocol. Not Apple."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from chatkeep.providers import base
from chatkeep.providers.icloud import CloudKitProvider
from chatkeep.providers.icloud_calls import SILENT_FOR, Calls
from chatkeep.providers.icloud_signing import Signer
from tests.providers.stations import Fired, Lack, Lines, Place, Refusal, Station
from tests.support.fake_cloudkit import FakeCloudKit
from tests.support.fault_proxy import Fault


def said(status: int, code: str, after: float | None = None, on: str = "") -> Fault:
    """A whole request that is refused, as the reference has it."""
    waits = {} if after is None else {"retryAfter": after}
    body = json.dumps({"uuid": "0", "serverErrorCode": code, "reason": "for a test", **waits}).encode()
    return Fault("status", on=on, status=status, headers=(("Content-Type", "application/json"),), body=body)


class ICloud(Station):
    name = "icloud"
    type = "icloud"
    many = 210  # more than one answer to a query holds
    lacks = frozenset({Lack.PUT_ONLY})
    secrets = ("PRIVATE KEY",)
    writes = r"^POST /upload/"
    commits = r"^POST /.*/records/modify"
    reads = r"^GET /asset/"
    lists = r"^POST /.*/records/query"
    deletes = commits
    refusals = {
        "quota": Refusal(said(413, "QUOTA_EXCEEDED"), base.QuotaExceeded),
        "quota of bytes": Refusal(said(413, "QUOTA_EXCEEDED", on=writes), base.QuotaExceeded),
        "key": Refusal(said(401, "AUTHENTICATION_FAILED"), base.CredentialRefused, "get"),
        "no key": Refusal(said(421, "AUTHENTICATION_REQUIRED"), base.CredentialRefused, "list"),
        "permission": Refusal(said(403, "ACCESS_DENIED"), base.PermissionRefused, "delete"),
        "zone": Refusal(said(404, "ZONE_NOT_FOUND"), base.StorageMissing, "stat"),
    }

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        fake = FakeCloudKit()

        def opened(url: str | None) -> base.Provider:
            options = fake.options(folder, int(url.rpartition(":")[2]) if url else None)
            patience = self.timeout if url else SILENT_FOR
            calls = Calls(self.name, options, Signer(options.key_id, options.key_file), silent_for=patience)
            return CloudKitProvider(self.name, calls)

        @contextlib.contextmanager
        def full() -> Iterator[Fired]:
            fake.data.room = 0
            yield lambda: fake.fired["quota"]
            fake.data.room = None

        @contextlib.contextmanager
        def expired() -> Iterator[Fired]:
            fake.revoked = True
            yield lambda: fake.fired["revoked"]
            fake.revoked = False

        def lines(url: str | None) -> Lines:
            options = fake.options(folder, int(url.rpartition(":")[2]) if url else None)
            return Lines({**dataclasses.asdict(options), "key_file": str(options.key_file)})

        def copies(name: str) -> int:
            return sum(each.fields["name"] == name for each in fake.data.records.values())

        try:
            yield Place(opened, port=fake.port, copies=copies, full=full, expired=expired, lines=lines)
            assert fake.refused == [], "something that Apple does not document was sent"
        finally:
            fake.close()

    def answer(self, status: int, after: float | None = None) -> Fault:
        code = {429: "THROTTLED", 500: "INTERNAL_ERROR", 503: "TRY_AGAIN_LATER"}[status]
        fault = said(status, code, after)
        fault.times = None
        return fault


STATION = ICloud()
