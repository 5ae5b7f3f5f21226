"""Google Drive's files as calls: what is asked of the API, through Google's client, and nothing of names or ids kept.

The client's description of the API is the one in its package; nothing is fetched to build it. For tests its addresses
are replaced in that description: all of them (calls, uploads, batches) are made from `rootUrl`.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from chatkeep.providers import base
from chatkeep.providers.gdrive_replies import FIELDS, DriveFile, drive_file, error_of, is_id, reason_of
from chatkeep.providers.google_http import REPLY_LIMIT, ForGoogle, Pace, Reply
from chatkeep.providers.paging import Pages

GOOGLE: Final = "https://www.googleapis.com"
PAGE: Final = 1000
"""Files on a page of a listing, the most there may be."""

OCTETS: Final = "application/octet-stream"


class IdTaken(Exception):
    """A create was refused because something has, or had, this id."""


class NotThere(Exception):
    """No file of this id, or none that this client may see."""


class DriveFiles:
    """The calls. Any thread may make them.

    Args:
        provider: the configured name, for errors.
        google: sends requests, with authorization.
        origin: of the API.
    """

    def __init__(self, provider: str, google: ForGoogle, origin: str = GOOGLE) -> None:
        from googleapiclient.discovery import build_from_document
        from googleapiclient.discovery_cache import get_static_doc

        self.provider = provider
        self.google = google
        self.requests: Counter[str] = Counter()
        described = json.loads(get_static_doc("drive", "v3"))
        described.pop("mtlsRootUrl", None)  # a variable of the environment would send requests there
        described["rootUrl"] = f"{origin}/"
        described["baseUrl"] = f"{origin}/{described['servicePath']}"
        self._files = (service := build_from_document(described, http=google)).files()
        self._about = service.about()

    def generate_ids(self, count: int) -> list[str]:
        """So many ids that a file may be created with."""
        found = self._json("ids", self._files.generateIds(count=count, space="drive", type="files"))
        ids = found.get("ids")
        if not isinstance(ids, list) or not ids or not all(map(is_id, ids)):
            raise self._senseless()
        return list(ids)

    def stat(self, ident: str) -> DriveFile:
        """Raises NotThere."""
        found = drive_file(self._json("get", self._files.get(fileId=ident, fields=FIELDS)))
        if found is None or found.id != ident:
            raise self._senseless()
        return found

    def search(self, query: str, order: str | None = None) -> Iterator[list[DriveFile]]:
        """The pages of what a query finds, as the list knows it, which may be old. Raises NotThere: a folder in it."""
        token: str | None = None
        pages = Pages(self.provider)
        while True:
            found = self._json(
                "list",
                self._files.list(
                    q=query,
                    orderBy=order,
                    pageSize=PAGE,
                    pageToken=token,
                    spaces="drive",
                    fields=f"nextPageToken,files({FIELDS})",
                ),
            )
            files = found.get("files", [])
            if not isinstance(files, list):
                raise self._senseless()
            known = {each.id: each for each in map(drive_file, files) if each is not None}
            yield [known[ident] for ident in pages.new(known)]
            token = found.get("nextPageToken")
            if not token:
                return
            if not isinstance(token, str):
                raise self._senseless()

    def create(self, metadata: Mapping[str, Any], body: bytes | None) -> DriveFile:
        """Makes a file in one request; without a body, a folder. Raises IdTaken."""
        media = None
        if body is not None:
            from googleapiclient.http import MediaInMemoryUpload

            media = MediaInMemoryUpload(b"", mimetype=OCTETS, resumable=False)  # for the address
        request = self._files.create(body=dict(metadata), media_body=media, fields=FIELDS)
        headers, sent = request.headers, request.body
        if body is not None:
            kind, sent = _multipart(json.dumps(metadata).encode(), body)
            headers = {**headers, "content-type": kind}
        return self.made(self.send("put", request.method, request.uri, headers, sent))

    def begin(self, metadata: Mapping[str, Any], size: int) -> str:
        """Begins a resumable upload and returns the address of its session: whoever has it may write to it.

        Raises IdTaken.
        """
        from googleapiclient.http import MediaInMemoryUpload

        media = MediaInMemoryUpload(b"", mimetype=OCTETS, resumable=True)
        request = self._files.create(body=dict(metadata), media_body=media, fields=FIELDS)
        sizes = {"X-Upload-Content-Type": OCTETS, "X-Upload-Content-Length": str(size)}
        reply = self.send("put", request.method, request.uri, {**request.headers, **sizes}, request.body)
        self.must(reply)
        session = reply.headers.get("location", "")
        if reply.status != 200 or not session:
            raise self._senseless()
        return session

    def made(self, reply: Reply) -> DriveFile:
        """The file that the reply to a create is about. Raises IdTaken."""
        self.must(reply)
        found = drive_file(self._parsed(reply.body)) if reply.status in (200, 201) and reply.whole else None
        if found is None:
            raise self._senseless()
        return found

    def read(self, ident: str, start: int, end: int) -> Reply:
        """Bytes `start` to `end`, the last included. Raises NotThere; every other status is in the reply."""
        request = self._files.get_media(fileId=ident)
        headers = {**request.headers, "Range": f"bytes={start}-{end}"}
        # Not all of an object where a range was asked for: what a server sends beyond it is not waited for.
        limit = max(end - start + 1, REPLY_LIMIT)
        return self.must(self.send("get", "GET", request.uri, headers, limit=limit))

    def delete(self, ident: str) -> None:
        """Removes a file for good, not into the trash. Raises NotThere."""
        self._json("delete", self._files.delete(fileId=ident))

    def free(self) -> int | None:
        """Bytes of room in the account; None where there is no limit."""
        found = self._json("get", self._about.get(fields="storageQuota(limit,usage)")).get("storageQuota")
        quota = found if isinstance(found, Mapping) else {}
        limit, usage = (str(quota.get(key, "")) for key in ("limit", "usage"))
        return max(0, int(limit) - int(usage)) if limit.isdigit() and usage.isdigit() else None

    def send(
        self,
        kind: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | memoryview | str | None = None,
        *,
        limit: int = REPLY_LIMIT,
        pace: Pace | None = None,
    ) -> Reply:
        """One request, counted."""
        self.requests[kind] += 1
        return self.google.send(method, url, headers, body, limit=limit, pace=pace)

    def must(self, reply: Reply) -> Reply:
        """The reply, if it is no error. Raises NotThere, IdTaken, ProviderError."""
        if reply.status < 300:
            return reply
        # Drive says why. A page without that is of something on the way to it, which knows nothing of files.
        if reply.status in (404, 410) and reason_of(reply.body) is not None:
            raise NotThere
        if reply.status == 409:
            raise IdTaken
        raise error_of(reply.status, reply.headers, reply.body, time.time(), provider=self.provider)

    def _json(self, kind: str, request: Any) -> dict[str, Any]:
        """What a request of Google's client answers."""
        from googleapiclient.errors import HttpError

        self.requests[kind] += 1
        try:
            found = request.execute(http=self.google)
        except HttpError as problem:
            reply = Reply(problem.resp.status, dict(problem.resp), problem.content)
        except (ValueError, RecursionError):
            raise self._senseless() from None
        else:
            if found == "":  # what the client makes of a reply without a body
                return {}
            if isinstance(found, dict):
                return found
            raise self._senseless()
        self.must(reply)
        raise self._senseless()

    def _parsed(self, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._senseless()
        return found

    def _senseless(self) -> base.ProviderError:
        return base.Unavailable(provider=self.provider, reason="reply-senseless")


def _multipart(metadata: bytes, body: bytes) -> tuple[str, bytes]:
    """Type and body of a request with metadata and bytes in it: RFC 2046 section 5.1, RFC 2387.

    Written here, because Google's client ends lines with a bare line feed. To a server that takes those and the ones of
    the standard, a carriage return at the end of an object would be a part of the delimiter after it: one object in 256
    that end by chance could never be stored.
    """
    boundary = os.urandom(16).hex()  # not in the body, but by a chance of one in 2^100
    between = f"\r\n--{boundary}".encode()
    whole = b"".join(
        (
            between[2:],
            b"\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n",
            metadata,
            between,
            f"\r\nContent-Type: {OCTETS}\r\n\r\n".encode(),
            body,
            between,
            b"--\r\n",
        )
    )
    return f"multipart/related; boundary={boundary}", whole
