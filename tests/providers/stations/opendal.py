"""OpenDAL, on a folder, in memory, on MinIO and on a WebDAV server: four of the services that it carries."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from chatkeep.providers import base
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.opendal import OpendalProvider
from tests.providers.stations import Lack, Lines, Place, Refusal, Station, secret_file
from tests.support import s3_servers, wsgidav_server
from tests.support.fault_proxy import Fault

_NUMBERS = itertools.count()
_ALWAYS = {Lack.STALE_LISTS, Lack.PUT_ONLY, Lack.CLOCK}
_LOCAL = {*_ALWAYS, Lack.CREDENTIALS, Lack.QUOTA}


class Folder(Station):
    name = "opendal-fs"
    type = "opendal"
    http = False
    lacks = frozenset({*_LOCAL, Lack.EXCLUSIVE_CREATE, Lack.NAME_IN_NAME})

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        options = {"root": str(folder / "vault")}
        OpendalProvider(self.name, "fs", options, MemoryMemo(), create=True).close()
        yield Place(
            lambda _: OpendalProvider(self.name, "fs", options, MemoryMemo()),
            lines=lambda _: Lines({"service": "fs", "options": options}),
        )


class Memory(Station):
    name = "opendal-memory"
    http = False
    lacks = frozenset({*_LOCAL, Lack.TIMES})

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        kept = OpendalProvider(self.name, "memory", {}, MemoryMemo(), create=True)
        yield Place(lambda _: kept)


class OverHttp(Station):
    """What holds for services that are spoken to by http."""

    type = "opendal"
    service: ClassVar[str]

    def options(self, url: str, where: str) -> dict[str, str]:
        """Those of a place at a server."""
        raise NotImplementedError

    def opened(self, own: str, where: str, url: str | None) -> base.Provider:
        """A provider of a place, made the first time."""
        options = self.options(url or own, where)
        if url is None:
            return OpendalProvider(self.name, self.service, options, MemoryMemo(), create=True)
        provider = OpendalProvider(self.name, self.service, options, MemoryMemo(), patience=self.timeout)
        # As after a first put: the requests by which a service is tried are none that a fault is meant for. What is
        # remembered here the clause of the probe finds out.
        provider._remember(Lack.EXCLUSIVE_CREATE not in self.lacks)
        return provider

    def lines(self, own: str, where: str, url: str | None, folder: Path) -> Lines:
        """Of a place."""
        options = self.options(url or own, where)
        hidden = {key: options.pop(key) for key in [*options] if options[key] in self.secrets}
        file = secret_file(folder / "options", "".join(f"{key}={value}\n" for key, value in hidden.items()))
        return Lines({"service": self.service, "options": options, "options_file": str(file)})


def _said(status: int, code: str) -> Fault:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
    return Fault("status", status=status, headers=(("Content-Type", "application/xml"),), body=body)


class S3(OverHttp):
    name = "opendal-s3"
    service = "s3"
    many = 600  # a page has 1000, and the clause stores twice as many
    lacks = frozenset(_ALWAYS)
    secrets = (s3_servers.SECRET,)
    lists = r"^GET /[^/?]+/?\?"
    reads = r"^GET /[^/?]+/[^?]+"
    refusals: ClassVar[Mapping[str, Refusal]] = {
        "credential": Refusal(_said(403, "InvalidAccessKeyId"), base.CredentialRefused, "list"),
        "permission": Refusal(_said(403, "AccessDenied"), base.PermissionRefused, "list"),
        "quota": Refusal(_said(507, "XMinioStorageFull"), base.QuotaExceeded, "list"),
        "bucket": Refusal(_said(404, "NoSuchBucket"), base.StorageMissing, "list"),
        "slower": Refusal(_said(503, "SlowDown"), base.Throttled, "list"),
    }

    def options(self, url: str, where: str) -> dict[str, str]:
        return {
            "endpoint": url,
            "bucket": where,
            "region": s3_servers.REGION,
            "access_key_id": s3_servers.ACCESS,
            "secret_access_key": s3_servers.SECRET,
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[s3_servers.Server]:
        yield s3_servers.minio()

    @contextlib.contextmanager
    def place(self, running: s3_servers.Server, folder: Path) -> Iterator[Place]:
        where = running.bucket()
        self.opened(running.url, where, None).close()
        yield Place(
            lambda url: self.opened(running.url, where, url),
            port=running.port,
            lines=lambda url: self.lines(running.url, where, url, folder),
        )


class Webdav(OverHttp):
    name = "opendal-webdav"
    service = "webdav"
    lacks = frozenset({*_ALWAYS, Lack.EXCLUSIVE_CREATE, Lack.NAME_IN_NAME})
    secrets = (wsgidav_server.PASSWORD,)
    commits = r"^MOVE "
    lists = r"^PROPFIND "
    refusals: ClassVar[Mapping[str, Refusal]] = {
        "credential": Refusal(Fault("status", status=401), base.CredentialRefused, "get"),
        "permission": Refusal(Fault("status", on="^PUT", status=403), base.PermissionRefused),
        "quota": Refusal(Fault("status", on="^PUT", status=507), base.QuotaExceeded),
    }

    def options(self, url: str, where: str) -> dict[str, str]:
        user, password = wsgidav_server.USER, wsgidav_server.PASSWORD
        return {"endpoint": url, "root": f"/{where}", "username": user, "password": password}

    @contextlib.contextmanager
    def running(self) -> Iterator[wsgidav_server.Wsgidav]:
        with wsgidav_server.wsgidav() as server:
            yield server

    @contextlib.contextmanager
    def place(self, running: Any, folder: Path) -> Iterator[Place]:
        where = f"opendal{next(_NUMBERS)}"
        self.opened(running.url, where, None).close()
        yield Place(
            lambda url: self.opened(running.url, where, url),
            port=running.port,
            full=lambda: running.switched("free", free=0),
            expired=lambda: running.switched("password", password="another"),
            lines=lambda url: self.lines(running.url, where, url, folder),
        )


STATIONS = [Folder(), Memory(), S3(), Webdav()]
