"""What the fake Drive holds: files of an account, ids, quota, and a list that may lag behind."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

FOLDER = "application/vnd.google-apps.folder"
ROOT = "0AFakeRootOfMyDriveUk9PVA"
KEYS = frozenset({"id", "name", "mimeType", "parents", "appProperties", "description"})
"""What a create may say of a file. The real one takes more; what the provider does not use is refused."""
FIELDS = frozenset(
    {
        *("kind", "id", "name", "mimeType", "parents", "appProperties", "size", "md5Checksum", "sha256Checksum"),
        *("createdTime", "trashed"),
    }
)


class Refused(Exception):
    """An error of the API."""

    def __init__(self, status: int, reason: str, message: str = "", retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.message = message or reason
        self.retry_after = retry_after


@dataclass
class File:
    """A file or a folder. `app`: the client that made it; None: the person, by hand."""

    world: World
    id: str
    name: str
    mime: str
    parents: list[str]
    properties: dict[str, str]
    body: bytes
    created: str
    app: str | None
    trashed: bool = False
    _digests: dict[str, str] = field(default_factory=dict)

    def digests(self) -> dict[str, str]:
        """Of its bytes, by the names of the fields."""
        if not self._digests:
            md5 = hashlib.md5(self.body, usedforsecurity=False).hexdigest()
            self._digests = {"md5Checksum": md5, "sha256Checksum": hashlib.sha256(self.body).hexdigest()}
        return self._digests

    def parents_seen(self) -> list[str]:
        """Ids that a query may call its parents by."""
        return [*self.parents, *(["root"] if ROOT in self.parents else [])]

    def is_trashed(self) -> bool:
        """By itself, or with a folder above it."""
        above = [self.world.files[each] for each in self.parents if each in self.world.files]
        return self.trashed or any(each.is_trashed() for each in above)

    def described(self) -> dict[str, object]:
        """The resource, with every field that this fake knows."""
        found: dict[str, object] = {
            "kind": "drive#file",
            "id": self.id,
            "name": self.name,
            "mimeType": self.mime,
            "parents": self.parents,
            "appProperties": self.properties,
            "createdTime": self.created,
            "trashed": self.is_trashed(),
        }
        if self.mime != FOLDER:
            found["size"] = str(len(self.body))
            found |= {name: digest for name, digest in self.digests().items() if name in self.world.tells}
        return found


@dataclass
class World:
    """One account.

    Attributes:
        quota: bytes in all; None: no limit.
        lagging: what the list shows stays as it is until `settle`.
        tells: which digests files are described with.
        page_limit: most files on a page, whatever was asked for.
    """

    quota: int | None = None
    tells: tuple[str, ...] = ("md5Checksum", "sha256Checksum")
    page_limit: int = 1000
    files: dict[str, File] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _given: set[str] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)
    _shown: list[File] | None = None
    _last: float = 0.0

    @property
    def lagging(self) -> bool:
        return self._shown is not None

    def lag(self) -> None:
        """From now on the list does not change."""
        with self.lock:
            self._shown = list(self.files.values())

    def settle(self) -> None:
        """The list is up to date again."""
        with self.lock:
            self._shown = None

    def listed(self) -> list[File]:
        """What the list knows of."""
        with self.lock:
            return list(self.files.values()) if self._shown is None else list(self._shown)

    def generate(self, count: int) -> list[str]:
        """Ids for creates."""
        ids = [f"1{os.urandom(16).hex()}" for _ in range(count)]
        with self.lock:
            self._given.update(ids)
        return ids

    def usable(self, ident: str) -> None:
        """Raises Refused for an id that may not be created with."""
        with self.lock:
            if ident in self._used:
                raise Refused(409, "fileIdInUse", "A file already exists with the provided ID.")
            if ident not in self._given:
                raise Refused(400, "invalid", "The provided file ID is not usable.")

    def checked(self, metadata: object, app: str | None) -> dict[str, object]:
        """A create's metadata, if it may be. Raises Refused."""
        if not isinstance(metadata, dict) or not set(metadata) <= KEYS:
            raise Refused(400, "badRequest", f"unknown keys: {metadata}")
        properties = metadata.get("appProperties", {})
        if len(properties) > 30 or any(len(f"{key}{value}".encode()) > 124 for key, value in properties.items()):
            raise Refused(400, "badRequest", "appProperties out of bounds")
        parents = metadata.get("parents", ["root"])
        if len(parents) != 1:
            raise Refused(403, "cannotAddParent", "one parent")
        if parents[0] not in ("root", ROOT):
            above = self.seen(parents[0], app)
            if above.mime != FOLDER:
                raise Refused(403, "parentNotAFolder", "The specified parent is not a folder.")
        if "id" in metadata:
            self.usable(str(metadata["id"]))
        return dict(metadata)

    def room(self, size: int) -> None:
        """Raises Refused where so many bytes more do not fit."""
        if self.quota is not None and self.usage() + size > self.quota:
            raise Refused(403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.")

    def usage(self) -> int:
        """Bytes in use. The trash counts."""
        with self.lock:
            return sum(len(each.body) for each in self.files.values())

    def create(self, metadata: dict[str, object], body: bytes, app: str | None) -> File:
        """A file, in one step. Raises Refused."""
        with self.lock:
            metadata = self.checked(metadata, app)
            self.room(len(body))
            ident = str(metadata.get("id") or self.generate(1)[0])
            parent = str(metadata.get("parents", ["root"])[0])  # type: ignore[index]
            made = File(
                self,
                ident,
                str(metadata.get("name", "Untitled")),
                str(metadata.get("mimeType", "application/octet-stream")),
                [ROOT if parent == "root" else parent],
                dict(metadata.get("appProperties", {})),  # type: ignore[call-overload]
                body,
                self._now(),
                app,
            )
            self._used.add(ident)
            self.files[ident] = made
            return made

    def seen(self, ident: str, app: str | None) -> File:
        """The file of an id. Raises Refused: none, or not this client's."""
        with self.lock:
            file = self.files.get(ident)
        if file is None:
            raise Refused(404, "notFound", f"File not found: {ident}.")
        if app is not None and file.app != app:
            raise Refused(403, "appNotAuthorizedToFile", "The user has not granted the app access to the file.")
        return file

    def delete(self, ident: str, app: str | None) -> None:
        """For good, with what is below it."""
        with self.lock:
            self.seen(ident, app)
            del self.files[ident]
            for each in [each.id for each in self.files.values() if ident in each.parents]:
                self.delete(each, None)

    def _now(self) -> str:
        """Times in milliseconds that may be equal and never go back."""
        self._last = max(self._last, time.time())
        return datetime.fromtimestamp(self._last, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
