"""The calls of Drive's API v3 that the fake knows, each strict: a parameter it does not know is refused."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.fake_drive.queries import BadQuery, parse
from tests.support.fake_drive.uploads import Progress, Sessions, multipart
from tests.support.fake_drive.world import FIELDS, FOLDER, File, Refused, World

ALWAYS = frozenset({"alt", "fields", "prettyPrint", "quotaUser"})
_DEFAULT = ("kind", "id", "name", "mimeType")
_ORDERS = {
    "createdTime": lambda file: file.created,
    "name": lambda file: file.name,
}


@dataclass
class Asked:
    """A request of the API."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    app: str
    whole: bool = True


@dataclass
class Answer:
    """A reply: JSON, or bytes."""

    status: int = 200
    json: object = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


_ROUTES = (
    ("files.generateIds", "GET", r"/drive/v3/files/generateIds"),
    ("files.list", "GET", r"/drive/v3/files"),
    ("files.create", "POST", r"/drive/v3/files"),
    ("files.get", "GET", r"/drive/v3/files/([\w-]+)"),
    ("files.update", "PATCH", r"/drive/v3/files/([\w-]+)"),
    ("files.delete", "DELETE", r"/drive/v3/files/([\w-]+)"),
    ("about.get", "GET", r"/drive/v3/about"),
    ("upload.create", "POST", r"/upload/drive/v3/files"),
    ("upload.chunk", "PUT", r"/upload/drive/v3/files"),
)


def route(asked: Asked) -> tuple[str, str]:
    """Which call it is, and the id in its path. Some calls are two by their parameters. Raises Refused."""
    for call, method, path in _ROUTES:
        found = re.fullmatch(path, asked.path)
        if found is None or method != asked.method:
            continue
        if call == "files.get" and asked.query.get("alt") == "media":
            call = "files.download"
        if call == "upload.create":
            call = {"resumable": "upload.begin", "media": "upload.media"}.get(
                asked.query.get("uploadType", ""), "upload.create"
            )
        if call == "upload.chunk" and asked.headers.get("content-range", "").startswith("bytes */"):
            call = "upload.status"
        return call, found[1] if found.groups() else ""
    raise Refused(404, "unknownMethod", f"no such method: {asked.method} {asked.path}")


@dataclass
class Api:
    """Carries calls out."""

    world: World
    sessions: Sessions
    pages: dict[str, tuple[str, list[File]]] = field(default_factory=dict)

    def perform(self, call: str, ident: str, asked: Asked) -> Answer:
        """Raises Refused."""
        match call:
            case "files.generateIds":
                return self._ids(asked)
            case "files.list":
                return self._list(asked)
            case "files.create":
                self._only(asked, set())
                return _one(self.world.create(dict(_mapping(asked)), b"", asked.app), asked)
            case "files.get":
                self._only(asked, set())
                return _one(self.world.seen(ident, asked.app), asked)
            case "files.download":
                self._only(asked, {"acknowledgeAbuse"})
                return _download(self.world.seen(ident, asked.app), asked)
            case "files.update":
                return self._update(ident, asked)
            case "files.delete":
                self._only(asked, set())
                self.world.delete(ident, asked.app)
                return Answer(204)
            case "about.get":
                return self._about(asked)
            case "upload.create":
                self._only(asked, {"uploadType"})
                if asked.query.get("uploadType") != "multipart":
                    raise Refused(400, "badRequest", "uploadType")
                return _one(multipart(self.world, asked.headers, asked.body, asked.app), asked)
            case "upload.media":
                self._only(asked, {"uploadType"})
                return _one(self.world.create({}, asked.body, asked.app), asked)
            case "upload.begin":
                self._only(asked, {"uploadType"})
                session = self.sessions.begin(asked.body, asked.headers, asked.app)
                fields = f"&fields={asked.query['fields']}" if "fields" in asked.query else ""
                host = asked.headers["host"]  # one with a port is this machine; any other is Google's, which has https
                path = f"/upload/drive/v3/files?uploadType=resumable{fields}&upload_id={session}"
                at = f"http{'' if ':' in host else 's'}://{host}{path}"
                return Answer(200, headers={"Location": at, "X-GUploader-UploadID": session})
        return self._chunk(asked)

    def _chunk(self, asked: Asked) -> Answer:
        self._only(asked, {"uploadType", "upload_id"})
        done = self.sessions.put(asked.query.get("upload_id", ""), asked.headers, asked.body, whole=asked.whole)
        if isinstance(done, Progress):
            return Answer(308, headers={"Range": f"bytes=0-{done.stored - 1}"} if done.stored else {})
        return _one(done, asked)

    @staticmethod
    def _only(asked: Asked, known: set[str]) -> None:
        unknown = set(asked.query) - known - ALWAYS
        if unknown:
            raise Refused(400, "invalidParameter", f"unknown parameters: {sorted(unknown)}")

    def _ids(self, asked: Asked) -> Answer:
        self._only(asked, {"count", "space", "type"})
        count = asked.query.get("count", "10")
        if not count.isdigit() or not 1 <= int(count) <= 1000:
            raise Refused(400, "invalidParameter", "count")
        if asked.query.get("space", "drive") != "drive" or asked.query.get("type", "files") != "files":
            raise Refused(400, "invalidParameter", "space, type")
        return Answer(json={"kind": "drive#generatedIds", "space": "drive", "ids": self.world.generate(int(count))})

    def _list(self, asked: Asked) -> Answer:
        self._only(asked, {"q", "orderBy", "pageSize", "pageToken", "spaces", "corpora"})
        size = asked.query.get("pageSize", "100")
        if not size.isdigit() or not 1 <= int(size) <= 1000:
            raise Refused(400, "invalidParameter", "pageSize")
        if asked.query.get("spaces", "drive") != "drive" or asked.query.get("corpora", "user") != "user":
            raise Refused(400, "invalidParameter", "spaces, corpora")
        about = f"{asked.query.get('q')} {asked.query.get('orderBy')}"
        token = asked.query.get("pageToken")
        if token is None:
            rest = self._found(asked)
        else:
            remembered, rest = self.pages.get(token, ("", []))
            if remembered != about:  # a token belongs to its query
                raise Refused(400, "invalid", "Invalid Value: pageToken")
        limit = min(int(size), self.world.page_limit)
        wanted = _fields(asked.query.get("fields", "files(kind,id,name,mimeType)"), "files", {"nextPageToken", "kind"})
        reply: dict[str, object] = {"files": [_cut(each.described(), wanted) for each in rest[:limit]]}
        if rest[limit:]:
            following = f"~!!~{secrets.token_urlsafe(24)}"
            self.pages[following] = (about, rest[limit:])
            reply["nextPageToken"] = following
        return Answer(json=reply)

    def _found(self, asked: Asked) -> list[File]:
        try:
            holds = parse(asked.query.get("q", "trashed = true or trashed = false"))
        except BadQuery as problem:
            raise Refused(400, "invalid", f"Invalid Value: q: {problem}") from problem
        mentioned = re.findall(r"'([\w-]+)' in parents", asked.query.get("q", ""))
        for parent in mentioned:
            if parent != "root":
                self.world.seen(parent, asked.app)  # the real one: 404, File not found: .
        found = [each for each in self.world.listed() if each.app == asked.app and holds(each)]
        order = asked.query.get("orderBy")
        if order is not None:
            if order not in _ORDERS:
                raise Refused(400, "badRequest", "orderBy")
            # The id last, downwards: files of one instant come in an order that nobody promised.
            found.sort(key=lambda each: each.id, reverse=True)
            found.sort(key=_ORDERS[order])
        return found

    def _update(self, ident: str, asked: Asked) -> Answer:
        self._only(asked, set())
        file = self.world.seen(ident, asked.app)
        change = _mapping(asked)
        if not set(change) <= {"trashed", "name"}:
            raise Refused(400, "badRequest", f"unknown keys: {sorted(change)}")
        file.trashed = bool(change.get("trashed", file.trashed))
        file.name = str(change.get("name", file.name))
        return _one(file, asked)

    def _about(self, asked: Asked) -> Answer:
        self._only(asked, set())
        if "fields" not in asked.query:
            raise Refused(400, "required", "The 'fields' parameter is required for this method.")
        wanted = _fields(asked.query["fields"], "storageQuota", set(), {"limit", "usage", "usageInDrive"})
        quota = {"usage": str(self.world.usage()), "usageInDrive": str(self.world.usage())}
        if self.world.quota is not None:
            quota["limit"] = str(self.world.quota)
        return Answer(json={"storageQuota": _cut(quota, wanted)})


def _mapping(asked: Asked) -> Mapping[str, object]:
    try:
        found = json.loads(asked.body)
    except ValueError as problem:
        raise Refused(400, "parseError", "Parse Error") from problem
    if not isinstance(found, dict) or asked.headers.get("content-type", "").split(";")[0] != "application/json":
        raise Refused(400, "parseError", "Parse Error")
    return found


def _one(file: File, asked: Asked) -> Answer:
    wanted = asked.query.get("fields", ",".join(_DEFAULT)).split(",")
    if wanted == ["*"]:
        wanted = sorted(FIELDS)
    if not set(wanted) <= FIELDS:
        raise Refused(400, "invalidParameter", f"Invalid field selection {wanted}")
    return Answer(json=_cut(file.described(), wanted))


def _fields(said: str, inside: str, beside: set[str], known: frozenset[str] | set[str] = FIELDS) -> list[str]:
    """The fields asked for of what stands in `inside`. Raises Refused."""
    found = re.fullmatch(rf"(?:(\w+),)?{inside}\(([\w,]+)\)", said)
    if found is None or (found[1] is not None and found[1] not in beside) or not set(found[2].split(",")) <= known:
        raise Refused(400, "invalidParameter", f"Invalid field selection {said}")
    return found[2].split(",")


def _cut(described: Mapping[str, object], wanted: list[str]) -> dict[str, object]:
    return {key: value for key, value in described.items() if key in wanted}


def _download(file: File, asked: Asked) -> Answer:
    if file.mime == FOLDER:
        raise Refused(403, "fileNotDownloadable", "Only files with binary content can be downloaded.")
    said, size = asked.headers.get("range"), len(file.body)
    kind = {"Content-Type": file.mime}
    if said is None:
        return Answer(200, body=file.body, headers=kind)
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", said)
    if found is None or found[0] == "bytes=-":
        raise Refused(400, "badRequest", f"Range: {said}")
    if found[1]:
        start, end = int(found[1]), min(int(found[2] or size - 1), size - 1)
    else:
        start, end = max(0, size - int(found[2])), size - 1
    if start > end or start >= size:
        return Answer(416, headers={"Content-Range": f"bytes */{size}"})
    return Answer(
        206, body=file.body[start : end + 1], headers={**kind, "Content-Range": f"bytes {start}-{end}/{size}"}
    )
