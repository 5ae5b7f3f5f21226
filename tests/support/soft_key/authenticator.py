"""A security key in software: the commands of CTAP 2.1 over a state that a test can look at and change.

    key = SoftAuthenticator(pin="1234")            # a key with a PIN
    phone = SoftAuthenticator(uv=True, synced=True)    # a passkey provider: a finger, credentials that travel
    phone2 = SoftAuthenticator(uv=True, synced=True); phone2.restore(phone.export())
    Fido2Client(SoftCtapDevice(key), DefaultClientDataCollector("http://localhost"), ...)

Left out: credential management, large blobs, bio enrolment, enterprise attestation, U2F beyond its version, the expiry
of tokens by time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fido2 import cbor

from tests.support.soft_key.acts import LIST_LIMIT, Lie, Parts, Traits
from tests.support.soft_key.asserting import get_assertion
from tests.support.soft_key.client_pin import SHORTEST, ClientPin
from tests.support.soft_key.credentials import Credential, Credentials
from tests.support.soft_key.making import AAGUID, ES256, make_credential
from tests.support.soft_key.presence import Link, Person, Touch
from tests.support.soft_key.statuses import Refused, Status

MESSAGE_LIMIT = 1200  # bytes of one command
MAKE, ASSERT, TELL, PIN, RESET, NEXT, SELECT = 0x01, 0x02, 0x04, 0x06, 0x07, 0x08, 0x0B


class SoftAuthenticator:
    """One authenticator. Traits are those of `acts.Traits`; one command runs at a time, as on a real key."""

    def __init__(
        self, pin: str | None = None, *, touch: Touch | str = Touch.YES, finger: bool = True, **traits: Any
    ) -> None:
        kind = Traits(**traits)
        person = Person(Touch(touch), finger)
        pins = ClientPin(person, kind.protocols, uv=kind.uv, permissions=not kind.ctap20)
        self.parts = Parts(kind, person, pins, Credentials(kind.room), set())
        self.commands: list[int] = []  # the command bytes seen so far
        self._following: Iterator[dict[int, Any]] | None = None
        self._one_at_a_time = threading.Lock()
        if pin is not None:
            pins.set_pin(pin)

    @property
    def traits(self) -> Traits:
        """What kind it is."""
        return self.parts.traits

    @property
    def person(self) -> Person:
        """Who touches it."""
        return self.parts.person

    @property
    def credentials(self) -> list[Credential]:
        """All credentials, newest last."""
        return list(self.parts.credentials._all)

    @property
    def pin_retries(self) -> int:
        """How many wrong PINs are left."""
        return self.parts.pin.pin_left

    def lie(self, *lies: Lie) -> None:
        """From now on assertions are dishonest in these ways; with none, honest."""
        self.parts.lies, self.parts.told = set(lies), set()

    def export(self) -> list[dict[str, Any]]:
        """All credentials with their secrets, as plain values."""
        return self.parts.credentials.export()

    def restore(self, exported: Sequence[Mapping[str, Any]]) -> None:
        """Adds credentials that another authenticator exported."""
        self.parts.credentials.restore(exported)

    def power_cycle(self) -> None:
        """Out of the socket and in again."""
        self._following = None
        self.parts.pin.power_cycle()

    def command(self, request: bytes, link: Link) -> bytes:
        """The answer to one command: a status byte, and CBOR if there is anything to tell."""
        with self._one_at_a_time:
            self.commands.append(request[0] if request else -1)
            try:
                answer = self._run(request, link)
            except Refused as refused:
                return bytes([refused.status])
        return bytes([Status.OK]) + (cbor.encode(answer) if answer else b"")

    def _run(self, request: bytes, link: Link) -> dict[int, Any]:
        if not request or self.traits.ctap1_only:
            raise Refused(Status.INVALID_COMMAND)
        if len(request) > MESSAGE_LIMIT:
            raise Refused(Status.REQUEST_TOO_LARGE)
        command, body = request[0], request[1:]
        if command == NEXT:
            return self._next(body)
        self._following = None  # section 6.3: only an assertion command in between keeps the list alive
        if command == MAKE:
            return make_credential(self.parts, body, link)
        if command == ASSERT:
            following = get_assertion(self.parts, body, link)
            first = next(following)
            self._following = following
            return first
        if command == PIN:
            return self.parts.pin.command(body, link)
        if body:
            raise Refused(Status.INVALID_LENGTH)
        return self._bodyless(command, link)

    def _bodyless(self, command: int, link: Link) -> dict[int, Any]:
        if command == TELL:
            return self._about()
        if command == SELECT and not self.traits.ctap20:
            self.person.must_touch(link)
            return {}
        if command == RESET:
            self.person.must_touch(link)
            self.parts.credentials.clear()
            self.parts.pin.forget()
            return {}
        raise Refused(Status.INVALID_COMMAND)

    def _next(self, body: bytes) -> dict[int, Any]:
        if body:
            raise Refused(Status.INVALID_LENGTH)
        if self._following is None:
            raise Refused(Status.NOT_ALLOWED)
        answer = next(self._following, None)
        if answer is None:
            self._following = None
            raise Refused(Status.NOT_ALLOWED)
        return answer

    def _about(self) -> dict[int, Any]:
        """getInfo, section 6.4."""
        traits = self.traits
        names = {"credProtect": traits.cred_protect, "hmac-secret": traits.hmac_secret}
        options = {"rk": traits.discoverable, "up": True, "clientPin": self.parts.pin.pin_hash is not None}
        if traits.uv:
            options["uv"] = True
        if not traits.ctap20:
            options |= {"pinUvAuthToken": True, "alwaysUv": traits.always_uv, "makeCredUvNotRqd": False}
        about: dict[int, Any] = {
            1: ["U2F_V2", "FIDO_2_0"] if traits.ctap20 else ["U2F_V2", "FIDO_2_0", "FIDO_2_1"],
            2: [name for name, there in names.items() if there],
            3: AAGUID,
            4: options,
            5: MESSAGE_LIMIT,
            6: list(traits.protocols),
        }
        if not traits.ctap20:
            about |= {7: LIST_LIMIT, 8: 32, 9: ["usb"], 10: [{"alg": ES256, "type": "public-key"}], 13: SHORTEST}
        if traits.new_pin_first:
            about[12] = True
        return {key: value for key, value in about.items() if value != []}
