"""The provider that the fault clauses themselves are tried on: plain HTTP, and right."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from chatkeep.providers import base
from tests.providers.stations import Fired, Place, Refusal, Station
from tests.support.fault_proxy import Fault
from tests.support.plain_http import KEY, PUT_ONLY_KEY, PlainProvider, PlainServer


class Plain(Station):
    name = "plain"
    lists = r"^GET /[^/]+/\?"
    reads = r"^GET /[^/]+/[^?]"
    digest = "md5"
    secrets = (KEY, PUT_ONLY_KEY)
    refusals = {
        "quota": Refusal(Fault("status", on="^PUT", status=507), base.QuotaExceeded),
        "credential": Refusal(Fault("status", status=401), base.CredentialRefused, "get"),
        "permission": Refusal(Fault("status", status=403), base.PermissionRefused, "delete"),
    }
    provider: type[PlainProvider] = PlainProvider

    @contextlib.contextmanager
    def running(self) -> Iterator[PlainServer]:
        with PlainServer() as server:
            yield server

    @contextlib.contextmanager
    def place(self, running: PlainServer, folder: Path) -> Iterator[Place]:
        there = secrets.token_hex(8)
        own = f"http://127.0.0.1:{running.server_address[1]}"

        def opened(url: str | None) -> base.Provider:
            return self.provider(self.name, url or own, there, timeout=self.timeout if url else 60.0)

        @contextlib.contextmanager
        def full() -> Iterator[Fired]:
            running.room, before = 0, running.refused
            try:
                yield lambda: running.refused - before
            finally:
                running.room = None

        @contextlib.contextmanager
        def expired() -> Iterator[Fired]:
            may, running.may, before = running.may, {}, running.refused
            try:
                yield lambda: running.refused - before
            finally:
                running.may = may

        yield Place(
            opened,
            port=running.server_address[1],
            put_only=lambda: self.provider(self.name, own, there, key=PUT_ONLY_KEY),
            copies=lambda name: sum(path == f"/{there}/{name}" for path in running.objects),
            full=full,
            expired=expired,
        )
        for path in [path for path in running.objects if path.startswith(f"/{there}/")]:
            running.objects.pop(path, None)


STATION = Plain()
