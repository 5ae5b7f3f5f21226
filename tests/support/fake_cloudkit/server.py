"""The fake over HTTP: signatures, dates, addresses of assets, and faults that tests ask for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chatkeep.config.storages import CloudKitOptions
from tests.support.fake_cloudkit.database import Database
from tests.support.fake_cloudkit.shapes import Refused, bad

CONTAINER = "iCloud.org.example.chatkeep"
KEY_ID = "5f" * 32
_DATABASE = re.compile(r"/database/1/([^/]+)/([^/]+)/([^/]+)/([a-z]+/[a-z]+)")
_DATE = "%Y-%m-%dT%H:%M:%SZ"


class Answered(Exception):
    """The request was answered by a fault."""


class FakeCloudKit:
    """A container with its public database, on a port of this machine.

    Attributes:
        data: the database, with knobs of its own.
        ahead: seconds by which its clock is ahead.
        revoked: the key is no longer accepted.
        refused: why each request that was not understood was refused. Empty after a test of a client that is right.
        fired: what happened, by word: a fault that was asked for counts under its own.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.revoked = False
        self.refused: list[str] = []
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.data = Database(lambda: time.time() + self.ahead)
        self.asked: Counter[str] = Counter()
        self._faults: deque[tuple[str, str, Callable[[Exchange], None]]] = deque()
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def fired(self) -> Counter[str]:
        return self.data.fired

    def options(self, directory: Path, port: int | None = None) -> CloudKitOptions:
        """A configuration for it, with the key in a file of that directory."""
        path = directory / "cloudkit-key.pem"
        if not path.exists():
            path.touch(0o600)
            path.write_bytes(pem(self.key))
        return CloudKitOptions(CONTAINER, KEY_ID, path, endpoint=f"http://127.0.0.1:{port or self.port}")

    def fault(self, word: str, on: str, act: Callable[[Exchange], None], times: int = 1) -> None:
        """The next `times` requests whose kind is `on` meet `act`, which answers them or raises."""
        self._faults.extend([(word, on, act)] * times)

    def refuse(self, word: str, on: str, status: int, after: float | None = None, times: int = 1) -> None:
        """The next requests of that kind are refused with the code `word`."""

        def act(_: Exchange) -> None:
            raise Refused(status, word, "asked for by a test", after)

        self.fault(word, on, act, times)

    def answer(
        self, word: str, on: str, status: int, body: bytes, headers: dict[str, str] | None = None, times: int = 1
    ) -> None:
        """The next requests of that kind get this answer, and are not carried out."""

        def act(at: Exchange) -> None:
            at.reply(status, body, headers=headers)
            raise Answered

        self.fault(word, on, act, times)

    def lose_reply(self, on: str) -> None:
        """The next request of that kind is carried out, and its reply lost."""

        def act(at: Exchange) -> None:
            at.mute = True

        self.fault("lost", on, act)

    def cut(self, on: str, after: int, times: int = 1) -> None:
        """The next replies of that kind break off after so many bytes of body."""

        def act(at: Exchange) -> None:
            at.cut_after = after

        self.fault("cut", on, act, times)

    def flip(self, on: str, times: int = 1) -> None:
        """The next replies of that kind have one bit of their body wrong."""

        def act(at: Exchange) -> None:
            at.flips = True

        self.fault("flip", on, act, times)

    def meets(self, kind: str, at: Exchange) -> None:
        with self._lock:
            self.asked[kind] += 1
            due = next((each for each in self._faults if each[1] == kind), None)
            if due is not None:
                self._faults.remove(due)
                self.data.fired[due[0]] += 1
        if due is not None:
            due[2](at)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cloudkit: FakeCloudKit) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.cloudkit = cloudkit

    def handle_error(self, *_: object) -> None:
        """A client that went away is none; anything else is this fake's own fault, and fails the test."""
        problem = sys.exc_info()[1]
        if not isinstance(problem, ConnectionError | TimeoutError):
            self.cloudkit.refused.append(f"the fake broke: {problem!r}")


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """As `openssl ecparam -genkey` writes it."""
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


class Exchange(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    mute = False
    cut_after: int | None = None
    flips = False

    @property
    def cloudkit(self) -> FakeCloudKit:
        assert isinstance(self.server, _Server)
        return self.server.cloudkit

    @property
    def home(self) -> str:
        """Where the client sees this server: perhaps through a relay."""
        return f"http://{self.headers['Host']}"

    def log_message(self, *_: object) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.cloudkit.data.now() if timestamp is None else timestamp, usegmt=True)

    def do_POST(self) -> None:
        self._serve(self._post)

    def do_GET(self) -> None:
        self._serve(self._get)

    def _serve(self, act: Callable[[], None]) -> None:
        self.mute, self.cut_after, self.flips = False, None, False
        try:
            act()
        except Refused as refused:
            if refused.code == "BAD_REQUEST":
                self.cloudkit.refused.append(refused.reason)
            self.reply(refused.status, json.dumps(refused.told()).encode())
        except Answered:
            pass
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _post(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise bad("no length")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise ConnectionError
        if self.path.startswith("/upload/"):
            self.cloudkit.meets("asset-put", self)
            answer = self.cloudkit.data.take(self.path.removeprefix("/upload/"), body)
        else:
            answer = self._database(body)
        self.reply(200, json.dumps(answer).encode())

    def _database(self, body: bytes) -> dict[str, Any]:
        found = _DATABASE.fullmatch(self.path)
        if found is None:
            raise bad("path")
        container, environment, database, operation = found.groups()
        self._authenticate(body)
        if container != CONTAINER or environment != "production" or database != "public":
            raise Refused(404, "ZONE_NOT_FOUND", "no such container, environment or database")
        self.cloudkit.meets(operation, self)
        try:
            question = json.loads(body)
        except ValueError:
            raise bad("not JSON") from None
        return self.cloudkit.data.answer(operation, question, self.home)

    def _authenticate(self, body: bytes) -> None:
        key, date, signature = (
            self.headers.get(f"X-Apple-CloudKit-Request-{each}") for each in ("KeyID", "ISO8601Date", "SignatureV1")
        )
        if key is None or date is None or signature is None:
            raise Refused(421, "AUTHENTICATION_REQUIRED", "request needs authorization")
        failed = Refused(401, "AUTHENTICATION_FAILED", "Authentication failed")
        if self.cloudkit.revoked or key != KEY_ID:
            self.cloudkit.fired["revoked"] += 1
            raise failed
        try:
            when = datetime.strptime(date, _DATE).replace(tzinfo=UTC).timestamp()
            raw = base64.b64decode(signature, validate=True)
            message = f"{date}:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:{self.path}"
            self.cloudkit.key.public_key().verify(raw, message.encode(), ec.ECDSA(hashes.SHA256()))
        except (ValueError, InvalidSignature):
            self.cloudkit.fired["signature"] += 1
            raise failed from None
        if abs(when - self.cloudkit.data.now()) > 600:
            self.cloudkit.fired["clock"] += 1
            raise failed

    def _get(self) -> None:
        found = re.fullmatch(r"/asset/([0-9a-f]{32})/([a-z]+)", self.path)
        if found is None:  # `${f}` left as it was, too
            raise bad("path")
        self.cloudkit.meets("asset-get", self)
        body = self.cloudkit.data.bytes_at(found[1])
        asked = self.headers.get("Range")
        if asked is None:
            self.reply(200, body, "application/octet-stream")
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        if span is None or int(span[1]) > int(span[2]):
            raise bad("range")
        first, last = int(span[1]), min(int(span[2]), len(body) - 1)
        if first >= len(body):
            raise Refused(416, "BAD_REQUEST", "range")
        headers = {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
        self.reply(206, body[first : last + 1], "application/octet-stream", headers)

    def reply(
        self, status: int, body: bytes, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        if self.mute:
            self.close_connection = True
            return
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.flips and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if self.cut_after is not None:
            self.close_connection = True
            body = body[: self.cut_after]
        self.wfile.write(body)
