"""Objects over plain HTTP: a small server and a provider that speaks to it as the contract asks.

Nobody stores anything here. It is what the fault clauses are tried on: a provider that is right, from which those that
are wrong on purpose differ in one thing each.

    PUT /NAME       `If-None-Match: *` is honoured, `Content-MD5` verified; 201, with the MD5 of what was stored as ETag
    GET, HEAD       one `Range`; `If-Match`; 404 with the ETag `none`, which no gateway would say
    DELETE          204, also for nothing
    GET /?prefix=P&after=NAME       [[name, size, modified], ...] as JSON, `page` at a time, sorted; shorter: the last
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import http.client
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from chatkeep.providers import base
from chatkeep.providers.probing import observe

KEY, PUT_ONLY_KEY = "Xk2-all-JpQ", "Wm7-put-VtR"


class Stored(NamedTuple):
    """An object in the server."""

    body: bytes
    tag: str
    at: float


class PlainServer(ThreadingHTTPServer):
    """Keeps objects in a dictionary; a context manager that serves.

    Attributes:
        objects: by path, the name of the place first.
        room: most bytes in all; None: no bound.
        page: most entries of a listing's page.
        may: what each token may: methods.
        refused: requests that were refused for want of room, or of a token.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.objects: dict[str, Stored] = {}
        self.room: int | None = None
        self.page = 25
        self.may = {KEY: {"PUT", "GET", "HEAD", "DELETE"}, PUT_ONLY_KEY: {"PUT"}}
        self.refused = 0
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # connections are broken on purpose


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PlainServer

    def do_PUT(self) -> None:
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        if len(body) < size or not self._allowed():
            return
        declared = self.headers["Content-MD5"]
        if declared and base64.b64decode(declared) != hashlib.md5(body, usedforsecurity=False).digest():
            self._answer(400)
            return
        tag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        with self.server.lock:
            used = sum(len(each.body) for each in self.server.objects.values())
            if self.server.room is not None and used + size > self.server.room:
                status = 507
                self.server.refused += 1
            elif self.path in self.server.objects and self.headers["If-None-Match"] == "*":
                status = 412
            else:
                self.server.objects[self.path] = Stored(body, tag, time.time())
                status = 201
        self._answer(status, tag=tag)

    def do_GET(self) -> None:
        if not self._allowed():
            return
        path, _, query = self.path.partition("?")
        if query:
            self._list(path, dict(urllib.parse.parse_qsl(query, keep_blank_values=True)))
            return
        stored = self.server.objects.get(path)
        if stored is None:
            self._answer(404, tag="none")
        elif self.headers["If-Match"] not in (None, stored.tag):
            self._answer(412)
        else:
            self._send(stored)

    def _send(self, stored: Stored) -> None:
        size = len(stored.body)
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers["Range"] or "")
        if wanted is None:
            self._answer(200, stored.body, stored.tag, at=stored.at)
            return
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= size:
            self._answer(416)
            return
        self._answer(206, stored.body[start:end], stored.tag, f"bytes {start}-{end - 1}/{size}", stored.at)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        if self._allowed():
            with self.server.lock:
                self.server.objects.pop(self.path, None)
            self._answer(204)

    def _list(self, root: str, query: dict[str, str]) -> None:
        with self.server.lock:
            known = sorted((path[len(root) :], each) for path, each in self.server.objects.items())
            found = [
                [name, len(each.body), each.at]
                for name, each in known
                if root + name in self.server.objects and name.startswith(query["prefix"]) and name > query["after"]
            ]
        self._answer(200, json.dumps(found[: self.server.page]).encode())

    def _allowed(self) -> bool:
        may = self.server.may.get((self.headers["Authorization"] or "").removeprefix("Bearer "))
        if may is None or self.command not in may:
            self.server.refused += 1
            self._answer(401 if may is None else 403)
            return False
        return True

    def _answer(self, status: int, body: bytes = b"", tag: str = "", part: str = "", at: float | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (
            ("ETag", tag),
            ("Content-Range", part),
            ("Last-Modified", "" if at is None else email.utils.formatdate(at, usegmt=True)),
        ):
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Reply(NamedTuple):
    """A reply that came in whole, or as far as `body` where `whole` is False."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    whole: bool = True


class PlainProvider:
    """Objects on a `PlainServer`, below `/PLACE/`."""

    def __init__(self, name: str, url: str, place: str, key: str = KEY, timeout: float = 60.0) -> None:
        self.name = name
        parsed = urllib.parse.urlsplit(url)
        self._server = (parsed.hostname or "", parsed.port or 80)
        self._place = place
        self._key = key
        self._timeout = timeout

    def put(self, name: str, body: bytes) -> None:
        self.put_paced(name, body, lambda _size: None)

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        base.validate_name(name)
        md5 = hashlib.md5(body, usedforsecurity=False)
        headers = {"Content-MD5": base64.b64encode(md5.digest()).decode(), "Content-Length": str(len(body))}
        reply = self.ask("PUT", name, self.pieces(body, pace), headers | {"If-None-Match": "*"})
        if reply.status == 412:
            self.settle(name, body, headers)
        elif reply.headers["ETag"] != md5.hexdigest():
            raise base.Unavailable(provider=self.name, object=name, reason="digest")

    def pieces(self, body: bytes, pace: Callable[[int], None]) -> Iterator[bytes]:
        """The body as it leaves."""
        for start in range(0, len(body), 65536):
            piece = body[start : start + 65536]
            pace(len(piece))
            yield piece

    def settle(self, name: str, body: bytes, headers: dict[str, str]) -> None:
        """The name is taken: by these bytes, perhaps, whose reply was lost."""
        try:
            if self.get(name) != body:
                raise base.ObjectConflict(provider=self.name, object=name)
        except base.ObjectNotFound as gone:
            raise base.Unavailable(provider=self.name, object=name) from gone
        except base.PermissionRefused:
            if base.named_sha256(name) != hashlib.sha256(body).hexdigest():
                raise
            self.ask("PUT", name, body, headers)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise ValueError("length")
        base.validate_name(name)
        if length == 0:
            self.stat(name)
            return b""
        end = "" if length is None or offset < 0 else offset + length - 1
        reply = self.ask("GET", name, headers={"Range": f"bytes={offset}-{end}" if offset >= 0 else f"bytes={offset}"})
        if reply.status == 416:
            return b""
        self.answered(reply, 206, name)
        body = reply.body
        if not reply.whole:
            body = self.resumed(name, reply)
        return body if length is None else body[:length]

    def resumed(self, name: str, reply: Reply) -> bytes:
        """Asks for what is missing of a body that broke off, as long as that brings bytes."""
        first, last = map(int, re.findall(r"\d+", reply.headers["Content-Range"])[:2])
        body = reply.body
        while len(body) < last + 1 - first:
            wanted = {"Range": f"bytes={first + len(body)}-{last}", "If-Match": reply.headers["ETag"]}
            more = self.ask("GET", name, headers=wanted).body
            if not more:
                raise base.Unavailable(provider=self.name, object=name, reason="short")
            body += more
        return body

    def stat(self, name: str) -> base.ObjectStat:
        reply = self.ask("HEAD", base.validate_name(name))
        try:
            at = email.utils.parsedate_to_datetime(reply.headers["Last-Modified"]).timestamp()
            return base.ObjectStat(name, int(reply.headers["Content-Length"]), at)
        except (TypeError, ValueError) as problem:
            raise base.Unavailable(provider=self.name, object=name, reason="reply") from problem

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        return self.pages(prefix)

    def pages(self, prefix: str) -> Iterator[base.ObjectStat]:
        """One page after another, until one is empty."""
        after = ""
        while found := self.page(prefix, after):
            after = found[-1].name
            yield from (each for each in found if base.is_name(each.name))

    def page(self, prefix: str, after: str) -> tuple[base.ObjectStat, ...]:
        """What follows `after`."""
        reply = self.ask("GET", "?" + urllib.parse.urlencode({"prefix": prefix, "after": after}))
        try:
            if not reply.whole:
                raise ValueError("short")
            return tuple(base.ObjectStat(str(name), int(size), float(at)) for name, size, at in json.loads(reply.body))
        except (ValueError, TypeError) as problem:
            raise base.Unavailable(provider=self.name, reason="reply") from problem

    def delete(self, name: str) -> None:
        with contextlib.suppress(base.ObjectNotFound):
            self.answered(self.ask("DELETE", base.validate_name(name)), 204, name)

    def answered(self, reply: Reply, status: int, name: str) -> None:
        """Raises unless it is what the server says when it has done that: anybody on the way can say 200."""
        if reply.status != status:
            raise base.Unavailable(provider=self.name, object=name, status=reply.status, reason="reply")

    def probe(self) -> base.Capabilities:
        return observe(self, self.damages)

    def damages(self, name: str) -> str | None:
        """See `observe`: whether a body is refused that is not the one declared."""
        other = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
        try:
            self.ask("PUT", name, b"body", {"Content-MD5": other})
        except base.Unavailable:
            return "md5"
        return None

    def close(self) -> None:
        pass

    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        """One request and its reply, if that is one that a caller plans for."""
        connection = http.client.HTTPConnection(*self._server, timeout=self._timeout)
        try:
            with contextlib.closing(connection):
                connection.request(
                    method, f"/{self._place}/{name}", body, {"Authorization": f"Bearer {self._key}"} | (headers or {})
                )
                raw = connection.getresponse()
                try:
                    reply = Reply(raw.status, raw.headers, raw.read())
                except http.client.IncompleteRead as short:
                    reply = Reply(raw.status, raw.headers, short.partial, whole=False)
        except (OSError, http.client.HTTPException) as problem:
            raise base.Unavailable(provider=self.name, object=name) from problem
        self.meant(reply, name)
        return reply

    def meant(self, reply: Reply, name: str) -> None:
        """Raises what a status means."""
        about = {"provider": self.name, "object": name, "status": reply.status}
        if reply.status == 429:
            after = reply.headers["Retry-After"]
            raise base.Throttled(after=float(after) if after else None, **about)
        kinds: dict[int, type[base.ProviderError]] = {
            401: base.CredentialRefused,
            403: base.PermissionRefused,
            404: base.ObjectNotFound if reply.headers["ETag"] == "none" else base.Unavailable,
            507: base.QuotaExceeded,
        }
        if reply.status not in (200, 201, 204, 206, 412, 416):
            raise kinds.get(reply.status, base.Unavailable)(**about)
