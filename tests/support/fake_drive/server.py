"""The fake Drive as a server on the loopback interface.

Everything that it does not know is refused and written down in `strange`; a test that ends with something in there made
a request that the real one was never asked for here. No test talks to Google.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socket
import threading
import time
import urllib.parse
from typing import Any

from tests.support.fake_drive.accounts import SCOPE, Accounts
from tests.support.fake_drive.calls import Answer, Api, Asked, route
from tests.support.fake_drive.faults import Fault, Faults
from tests.support.fake_drive.uploads import Sessions, part_of
from tests.support.fake_drive.world import File, Refused, World

# What a client that keeps to the protocol may still be answered: not written down as strange.
_ORDINARY = frozenset(
    {
        *("notFound", "fileIdInUse", "storageQuotaExceeded", "authError", "appNotAuthorizedToFile"),
        *("insufficientPermissions", "fileNotDownloadable"),
    }
)


HOSTS = ("www.googleapis.com", "oauth2.googleapis.com")
"""Google's own, by which it is asked through something that stands before it and speaks https."""


class FakeDrive:
    """One account and its server.

    Attributes:
        world, accounts, sessions, faults: what it holds, and the knobs.
        log: kind of call and status of every request, in order.
        strange: what it was asked and does not know.
    """

    def __init__(self) -> None:
        self.world = World()
        self.accounts = Accounts()
        self.sessions = Sessions(self.world)
        self.faults = Faults()
        self.log: list[tuple[str, int]] = []
        self.strange: list[str] = []
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Exchange)
        self._server.drive = self
        self.port = self._server.server_address[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self.api = Api(self.world, self.sessions)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-drive")
        self._thread.start()

    def close(self) -> None:
        """Ends it, and every connection."""
        self._server.shutdown()
        self._thread.join()
        with self.lock:
            for each in self.open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def client_json(self, origin: str | None = None) -> str:
        """The client as Google's console gives it for download; `origin`: of a proxy before this server."""
        at = origin or self.origin
        return json.dumps(
            {
                "installed": {
                    "client_id": self.accounts.client_id,
                    "project_id": "fake-project",
                    "auth_uri": f"{at}/o/oauth2/auth",
                    "token_uri": f"{at}/token",
                    "auth_provider_x509_cert_url": f"{at}/oauth2/v1/certs",
                    "client_secret": self.accounts.client_secret,
                    "redirect_uris": ["http://localhost"],
                }
            }
        )

    def order(self, on: str, **about: Any) -> Fault:
        """A fault; see `Fault`."""
        return self.faults.order(Fault(on, **about))

    def count(self, call: str) -> int:
        """How many requests of that kind there were."""
        with self.lock:
            return sum(kind == call for kind, _ in self.log)

    def named(self, name: str) -> list[File]:
        """The files of a name, oldest first; those in the trash too."""
        with self.world.lock:
            return sorted(
                (each for each in self.world.files.values() if each.name == name),
                key=lambda each: (each.created, each.id),
            )

    def perform(self, asked: Asked, authorization: str) -> tuple[str, Answer, Fault | None]:
        """Carries a request out, or has it fail as was ordered."""
        fault, call = None, "?"
        try:
            call, ident = route(asked)
            fault = self.faults.struck(call)
            if fault is not None and fault.status:
                return call, ordered(fault), fault
            if fault is not None and fault.before:
                return call, Answer(), fault
            asked.app = self._client(asked, authorization)
            if fault is not None and fault.change is not None and asked.method in ("POST", "PUT"):
                asked.body = fault.change(asked.body)
            answer = self.api.perform(call, ident, asked)
            if fault is not None and fault.change is not None and asked.method == "GET":
                answer.body = fault.change(answer.body)
        except Refused as problem:
            if problem.reason not in _ORDINARY:
                self.strange.append(f"{asked.method} {asked.path} {asked.query}: {problem.message}")
            answer = error(problem)
        return call, answer, fault

    def _client(self, asked: Asked, authorization: str) -> str:
        """Which client asks. The address of an upload session is enough by itself, as at Google."""
        if "upload_id" in asked.query and not authorization:
            return self.accounts.client_id
        grant = self.accounts.who(authorization)
        if grant is None:
            raise Refused(401, "authError", "Invalid Credentials")
        if SCOPE not in grant.scope.split():
            raise Refused(403, "insufficientPermissions", "Insufficient Permission")
        return grant.client


def ordered(fault: Fault) -> Answer:
    """The reply of a fault with a status."""
    headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
    if fault.text is not None:
        return Answer(fault.status, body=fault.text, headers={**headers, "Content-Type": "text/html"})
    answer = error(Refused(fault.status, fault.reason or "backendError", "ordered"))
    answer.headers.update(headers)
    return answer


def error(problem: Refused) -> Answer:
    """An error as the API writes it."""
    one = {"domain": "global", "reason": problem.reason, "message": problem.message}
    body = {"error": {"code": problem.status, "message": problem.message, "errors": [one]}}
    return Answer(problem.status, json=body)


class _Server(http.server.ThreadingHTTPServer):
    drive: FakeDrive
    # Not waited for one by one: `close` ends their connections.
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break here on purpose."""


class _Exchange(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        with self.server.drive.lock:
            self.server.drive.open.add(self.connection)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        with self.server.drive.lock:
            self.server.drive.open.discard(self.connection)

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._any()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _any(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
        query = dict(pairs)
        headers = {name.lower(): value for name, value in self.headers.items()}
        host = headers.get("host", "")
        if not (host.startswith("127.0.0.1:") or host in HOSTS) or len(query) != len(pairs):
            self.server.drive.strange.append(f"{self.command} {self.path}: host or repeated parameters")
        if parts.path == "/favicon.ico":  # browsers ask by themselves
            return self._send(Answer(404))
        if parts.path in ("/o/oauth2/auth", "/consent", "/token"):
            return self._oauth(parts.path, query)
        if "transfer-encoding" in headers or (self.command in ("POST", "PUT") and "content-length" not in headers):
            self.server.drive.strange.append(f"{self.command} {self.path}: no length")
            return self._send(Answer(411))
        body, whole = self._body(parts.path, headers, query)
        method = headers.get("x-http-method-override", self.command)
        if method != self.command:  # a GET whose address would be too long
            query, body = dict(urllib.parse.parse_qsl(body.decode())), b""
        asked = Asked(method, parts.path, query, headers, body, "", whole)
        if parts.path == "/batch/drive/v3":
            return self._batch(asked)
        call, answer, fault = self.server.drive.perform(asked, headers.get("authorization", ""))
        self._log(call, answer.status)
        if not whole or (fault is not None and (fault.drop or fault.before)):
            self._cut_off()
            return None
        return self._send(answer, None if fault is None else fault.cut)

    def _body(self, path: str, headers: dict[str, str], query: dict[str, str]) -> tuple[bytes, bool]:
        """The body, and whether it is whole: a fault may want the connection to break inside it."""
        length = int(headers.get("content-length", "0"))
        faults = self.server.drive.faults
        with faults.lock:
            keep = next(
                (
                    each
                    for each in faults.ordered
                    if each.keep is not None
                    and each.times != 0
                    and not each.after
                    and each.on == "upload.chunk"
                    and length
                    and path.startswith("/upload/")
                    and self.command == "PUT"
                ),
                None,
            )
        if keep is None:
            body = self.rfile.read(length)
            return body, len(body) == length
        return self.rfile.read(min(keep.keep or 0, length)), False

    def _oauth(self, path: str, query: dict[str, str]) -> None:
        drive = self.server.drive
        call = {"/o/oauth2/auth": "authorize", "/consent": "consent", "/token": "token"}[path]
        fault = drive.faults.struck(call)
        if path == "/token":
            form = urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode())
            if self.command != "POST" or self.headers["content-type"] != "application/x-www-form-urlencoded":
                drive.strange.append(f"{self.command} {path}")
            if fault is not None and fault.status:
                answer = ordered(fault)
            else:
                status, found = drive.accounts.token(dict(form))
                answer = Answer(status, json=found)
        elif path == "/consent":
            answer = Answer(302, headers={"Location": drive.accounts.consented(query)})
        else:
            status, page = drive.accounts.authorize(query)
            answer = Answer(status, body=page.encode(), headers={"Content-Type": "text/html; charset=utf-8"})
        self._log(call, answer.status)
        if fault is not None and (fault.drop or fault.before):
            return self._cut_off()
        return self._send(answer)

    def _batch(self, asked: Asked) -> None:
        """Calls in one request, each answered by itself; no uploads, at most 100."""
        kind = re.fullmatch(r'multipart/mixed; *boundary="?([^"]{1,70})"?', asked.headers.get("content-type", ""))
        if kind is None:
            self.server.drive.strange.append("batch without a boundary")
            return self._send(error(Refused(400, "badRequest")))
        pieces = re.split(rb"\r?\n?--" + re.escape(kind[1].encode()) + rb"(?=\r?\n|--)", asked.body)[1:-1]
        if not 1 <= len(pieces) <= 100:
            self.server.drive.strange.append(f"batch of {len(pieces)}")
            return self._send(error(Refused(400, "badRequest")))
        written = b""
        for piece in pieces:
            outer, inner = part_of(piece)
            written += b"--batch_fake\r\nContent-Type: application/http\r\n"
            written += f"Content-ID: {outer['content-id'].replace('<', '<response-')}\r\n\r\n".encode()
            written += self._inner(inner, asked)
        self._log("batch", 200)
        body = written + b"--batch_fake--\r\n"
        return self._send(Answer(200, body=body, headers={"Content-Type": "multipart/mixed; boundary=batch_fake"}))

    def _inner(self, raw: bytes, outer: Asked) -> bytes:
        first, _, rest = raw.partition(b"\n")
        method, target, _ = first.decode().split()
        headers, body = part_of(b"\n" + rest)
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query))
        said = headers.get("authorization", outer.headers.get("authorization", ""))
        call, answer, _ = self.server.drive.perform(Asked(method, parts.path, query, headers, body, ""), said)
        self._log(call, answer.status)
        content = answer.body if answer.json is None else json.dumps(answer.json).encode()
        head = f"HTTP/1.1 {answer.status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content + b"\r\n"

    def _send(self, answer: Answer, cut: int | None = None) -> None:
        body = answer.body if answer.json is None else json.dumps(answer.json).encode()
        self.send_response(answer.status)
        if answer.json is not None:
            self.send_header("Content-Type", "application/json; charset=UTF-8")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        self.wfile.flush()
        if cut is not None:
            self._cut_off()

    def _cut_off(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _log(self, call: str, status: int) -> None:
        with self.server.drive.lock:
            self.server.drive.log.append((call, status))


def until(holds: Any, seconds: float = 10.0) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
