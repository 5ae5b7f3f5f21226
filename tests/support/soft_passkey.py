"""A passkey and a page without a browser: what a well-behaved one sends, and, on request, what one must not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor

from chatkeep.daemon.control.ceremony.events import Event, Ready
from chatkeep.daemon.control.ceremony.webauthn import Assertion, Registration
from tests.support.page_client import stamp

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40


def to_b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def from_b64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class SoftPasskey:
    """One credential. Its fields are what it says; a test changes the one that is to be wrong."""

    origin: str = "http://localhost:1"
    rp_id: str = "localhost"
    flags: int = UP | UV
    credential: bytes = field(default_factory=lambda: os.urandom(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    seed: bytes = field(default_factory=lambda: os.urandom(32))

    def client(self, kind: str, challenge: bytes, /, **more: object) -> bytes:
        said = {"type": kind, "challenge": to_b64(challenge), "origin": self.origin, "crossOrigin": False, **more}
        return json.dumps(said).encode()

    def create(self, challenge: bytes, /, **more: object) -> Registration:
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + struct.pack(">H", len(self.credential)) + self.credential + cbor.encode(public)
        data = self._head(self.flags | AT) + attested
        made = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        return Registration(self.credential, self.client("webauthn.create", challenge, **more), made)

    def get(self, challenge: bytes, evaluation: bytes, /, **more: object) -> Assertion:
        client, data = self.client("webauthn.get", challenge, **more), self._head(self.flags)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return Assertion(self.credential, client, data, signature, bytearray(self.prf(evaluation)))

    def prf(self, evaluation: bytes) -> bytes:
        return hmac.digest(self.seed, evaluation, "sha256")

    def _head(self, flags: int) -> bytes:
        return hashlib.sha256(self.rp_id.encode()).digest() + struct.pack(">BI", flags, 1)


class SoftPage:
    """The page's side over HTTP: one request at a time, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self.port, self.token = parts.port, parts.fragment
        self.origin = f"http://localhost:{self.port}"
        self.ticket = ""
        self.stamp = stamp(self.port)

    def post(self, name: str, body: bytes, kind: str = "application/json", token: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("localhost", self.port, timeout=120)
        try:
            said = self.ticket if token is None else token
            headers = {"Origin": self.origin, "Content-Type": kind, "X-Token": said, "Sec-Fetch-Site": "same-origin"}
            headers["X-Page"] = self.stamp
            connection.request("POST", f"/api/{name}", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def begin(self) -> Any:
        status, opening = self.post("begin", b"{}", token=self.token)
        assert status == 200, status
        self.ticket = opening["ticket"]
        return opening

    def say(self, **what: object) -> Any:
        status, answer = self.post("next", json.dumps(what).encode())
        assert status == 200, status
        return answer

    def watch(self) -> http.client.HTTPConnection:
        """Asks whether it is over, as an open tab always does; returns when the question has been heard."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=120)
        headers = {"Origin": self.origin, "Content-Type": "application/json", "X-Token": self.ticket}
        connection.request("POST", "/api/over", b"{}", headers)
        # Answered after it: the server takes first what comes first.
        assert self.post("begin", b"{}", token=self.token)[0] == 410
        return connection

    def created(self, step: Any, passkey: SoftPasskey) -> Any:
        """Does a `create` step, and returns the next."""
        passkey.origin = self.origin
        made = passkey.create(from_b64(step["options"]["challenge"]))
        return self.say(
            say="created",
            id=step["id"],
            credential=to_b64(made.credential),
            client=to_b64(made.client),
            made=to_b64(made.attestation),
        )

    def got(self, step: Any, passkey: SoftPasskey, secret: bytes | None = None) -> Any:
        """Does a `get` step, and returns the next. `secret`: another one than the passkey's."""
        passkey.origin = self.origin
        options = step["options"]
        asked = options["extensions"]["prf"]["evalByCredential"].get(to_b64(passkey.credential))
        evaluation = from_b64(asked["first"]) if asked else b""
        answer = passkey.get(from_b64(options["challenge"]), evaluation)
        said = {
            "say": "got",
            "id": step["id"],
            "credential": to_b64(answer.credential),
            "client": to_b64(answer.client),
            "authenticator": to_b64(answer.authenticator),
            "signature": to_b64(answer.signature),
        }
        text = json.dumps(said).encode()
        body = struct.pack(">I", len(text)) + text + (bytes(answer.secret) if secret is None else secret)
        status, reply = self.post("next", body, "application/octet-stream")
        assert status == 200, status
        return reply


class Person:
    """Whoever is in front of the page, in a thread: does `act` with it once it is ready."""

    def __init__(self, act: Callable[[SoftPage], object]) -> None:
        self.told: list[Event] = []
        self._act = act
        self._thread: threading.Thread | None = None
        self._failure: list[BaseException] = []

    def tell(self, event: Event) -> None:
        self.told.append(event)
        if isinstance(event, Ready):
            self._thread = threading.Thread(target=self._visit, args=(event.url,))
            self._thread.start()

    def leave(self) -> None:
        """Waits until the person is done, and fails as they did."""
        assert self._thread is not None, "the page never was ready"
        self._thread.join(30)
        if self._failure:
            raise self._failure[0]

    def _visit(self, url: str) -> None:
        try:
            self._act(SoftPage(url))
        except BaseException as failure:
            self._failure.append(failure)
