"""WebDAV, on Apache's mod_dav and on wsgidav: real servers, each as a process of its own."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from chatkeep.providers import base
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.webdav import WebdavProvider
from chatkeep.providers.webdav_wire import Password, Wire
from tests.providers.stations import Fired, Lack, Lines, Place, Refusal, Station, secret_file
from tests.support import apache, wsgidav_server
from tests.support.fault_proxy import Fault

_NUMBERS = itertools.count()
_LACKS = {Lack.EXCLUSIVE_CREATE, Lack.NAME_IN_NAME, Lack.STALE_LISTS, Lack.PUT_ONLY}
_REFUSALS = {
    "credential": Refusal(Fault("status", status=401), base.CredentialRefused, "get"),
    "permission": Refusal(Fault("status", on="^PUT", status=403), base.PermissionRefused),
    "quota": Refusal(Fault("status", on="^PUT", status=507), base.QuotaExceeded),
    "too-large": Refusal(Fault("status", on="^PUT", status=413), base.QuotaExceeded),
    "locked": Refusal(Fault("status", on="^MOVE", status=423, times=None), base.Unavailable),
    "held": Refusal(Fault("status", on="^DELETE", status=423), base.Unavailable, "delete"),
    "moved": Refusal(Fault("status", status=301, headers=(("Location", "http://127.0.0.1:9/"),)), base.StorageMissing),
}


class Webdav(Station):
    """What holds for both servers."""

    type = "webdav"
    commits = r"^MOVE "
    lists = r"^PROPFIND "
    refusals: ClassVar[Mapping[str, Refusal]] = _REFUSALS
    user, password = apache.USER, apache.PASSWORD
    secrets = (apache.PASSWORD, base64.b64encode(f"{user}:{password}".encode()).decode())

    def opened(self, own: str, where: str, url: str | None) -> base.Provider:
        """A provider of a place, made the first time."""
        wire = Wire(
            self.name,
            f"{url or own}/{where}",
            Password(self.user, self.password),
            patience=self.timeout if url else 60.0,
        )
        provider = WebdavProvider(wire, MemoryMemo(), create=url is None)
        if url is not None:
            # As after a first put: the requests by which a server is tried are none that a fault is meant for.
            provider._known_habits()
        return provider

    def lines(self, own: str, where: str, url: str | None, folder: Path) -> Lines:
        """Of a place."""
        password = secret_file(folder / "password", self.password)
        return Lines({"url": f"{url or own}/{where}", "user": self.user, "password_file": str(password)})


class Apache(Webdav):
    name = "webdav-apache"
    lacks = frozenset({*_LACKS, Lack.CLOCK})

    @contextlib.contextmanager
    def running(self) -> Iterator[apache.Apache]:
        with apache.apache() as server:
            yield server

    @contextlib.contextmanager
    def place(self, running: apache.Apache, folder: Path) -> Iterator[Place]:
        where = f"vault{next(_NUMBERS)}"
        self.opened(running.url, where, None).close()

        @contextlib.contextmanager
        def expired() -> Iterator[Fired]:
            before = sum(" 401 " in line for line in running.log())
            with running.other_password():
                yield lambda: sum(" 401 " in line for line in running.log()) - before

        @contextlib.contextmanager
        def full() -> Iterator[Fired]:
            with running.limited(where):
                yield lambda: sum(line.startswith("PUT ") and " 413 " in line for line in running.log())

        yield Place(
            lambda url: self.opened(running.url, where, url),
            port=running.port,
            full=full,
            expired=expired,
            lines=lambda url: self.lines(running.url, where, url, folder),
        )


class Wsgidav(Webdav):
    name = "webdav-wsgidav"
    lacks = frozenset(_LACKS)

    @contextlib.contextmanager
    def running(self) -> Iterator[wsgidav_server.Wsgidav]:
        with wsgidav_server.wsgidav() as server:
            yield server

    @contextlib.contextmanager
    def place(self, running: wsgidav_server.Wsgidav, folder: Path) -> Iterator[Place]:
        where = f"vault{next(_NUMBERS)}"
        self.opened(running.url, where, None).close()

        yield Place(
            lambda url: self.opened(running.url, where, url),
            port=running.port,
            full=lambda: running.switched("free", free=0),
            expired=lambda: running.switched("password", password="another"),
            skewed=lambda seconds: running.switched("skew", skew=seconds),
            lines=lambda url: self.lines(running.url, where, url, folder),
        )


STATIONS = [Apache(), Wsgidav()]
