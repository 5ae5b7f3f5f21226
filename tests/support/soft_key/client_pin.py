"""authenticatorClientPIN (CTAP 2.1, section 6.5): the PIN, its retries, and tokens by PIN or by built-in UV."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from tests.support.soft_key.pin_protocol import PROTOCOLS, PinProtocolOne
from tests.support.soft_key.presence import Link, Person
from tests.support.soft_key.statuses import Refused, Status
from tests.support.soft_key.strict import Parameters
from tests.support.soft_key.tokens import EVERY_PERMISSION, Permission, Token

PIN_RETRIES = 8
IN_A_ROW = 3  # wrong ones until the key wants to be plugged in again
UV_RETRIES = 3
SHORTEST = 4  # code points


class ClientPin:
    """The state of PIN and built-in UV, and the command that changes it."""

    def __init__(self, person: Person, versions: tuple[int, ...], *, uv: bool, permissions: bool) -> None:
        self._person = person
        self.protocols: dict[int, PinProtocolOne] = {version: PROTOCOLS[version]() for version in versions}
        self.tokens = {version: Token() for version in versions}
        self._uv, self._permissions = uv, permissions
        self._commands = {0x01: self._retries, 0x02: self._agree, 0x03: self._set, 0x04: self._change, 0x05: self._old}
        if permissions:
            self._commands |= {0x06: self._by_uv, 0x07: self._uv_left, 0x09: self._by_pin}
        self.forget()

    def forget(self) -> None:
        """As it left the factory."""
        self.pin_hash: bytes | None = None
        self.pin_left, self.uv_left = PIN_RETRIES, UV_RETRIES
        self.power_cycle()

    def power_cycle(self) -> None:
        """Out of the socket and in again: tokens and keys are new, the row of wrong PINs begins anew."""
        self._row = 0
        for protocol, token in zip(self.protocols.values(), self.tokens.values(), strict=True):
            protocol.regenerate()
            token.reset()

    def command(self, body: bytes, link: Link) -> dict[int, Any]:
        """One clientPIN command."""
        given = Parameters.read(body, known=(1, 2, 3, 4, 5, 6, 9, 10))
        run = self._commands.get(given.need(2, int))
        if run is None:
            raise Refused(Status.INVALID_SUBCOMMAND)
        return run(given, link)

    def set_pin(self, pin: str) -> None:
        """Sets or replaces the PIN, as at the factory."""
        self.pin_hash = hashlib.sha256(pin.encode()).digest()[:16]
        self.pin_left, self._row = PIN_RETRIES, 0

    def protocol(self, given: Parameters, key: int) -> PinProtocolOne:
        """The protocol that a command names."""
        version = given.need(key, int)
        if version not in self.protocols:
            raise Refused(Status.INVALID_PARAMETER)
        return self.protocols[version]

    def verify_user(self, link: Link) -> None:
        """Built-in UV: a finger, which also is a touch."""
        if self.uv_left == 0:
            raise Refused(Status.UV_BLOCKED)
        self._person.must_touch(link)
        if not self._person.finger_known():
            self.uv_left -= 1
            raise Refused(Status.UV_BLOCKED if self.uv_left == 0 else Status.UV_INVALID)
        self.uv_left = UV_RETRIES

    def _retries(self, given: Parameters, link: Link) -> dict[int, Any]:
        return {3: self.pin_left, 4: self._row >= IN_A_ROW}

    def _uv_left(self, given: Parameters, link: Link) -> dict[int, Any]:
        return {5: self.uv_left}

    def _agree(self, given: Parameters, link: Link) -> dict[int, Any]:
        return {1: self.protocol(given, 1).public()}

    def _set(self, given: Parameters, link: Link) -> dict[int, Any]:
        protocol, peer = self.protocol(given, 1), given.need(3, dict)
        sealed, signature = given.need(5, bytes), given.need(4, bytes)
        if self.pin_hash is not None:
            raise Refused(Status.PIN_AUTH_INVALID)
        shared = protocol.decapsulate(peer)
        if not protocol.verify(shared, sealed, signature):
            raise Refused(Status.PIN_AUTH_INVALID)
        self.set_pin(_unpadded(protocol.decrypt(shared, sealed)))
        return {}

    def _change(self, given: Parameters, link: Link) -> dict[int, Any]:
        protocol, peer = self.protocol(given, 1), given.need(3, dict)
        sealed, signature, sealed_hash = given.need(5, bytes), given.need(4, bytes), given.need(6, bytes)
        self._not_blocked()
        shared = protocol.decapsulate(peer)
        if not protocol.verify(shared, sealed + sealed_hash, signature):
            raise Refused(Status.PIN_AUTH_INVALID)
        self._guess(protocol, shared, sealed_hash)
        self.set_pin(_unpadded(protocol.decrypt(shared, sealed)))
        for token in self.tokens.values():
            token.reset()
        return {}

    def _old(self, given: Parameters, link: Link) -> dict[int, Any]:
        """getPinToken of CTAP 2.0: good for both acts, at whichever site uses it first."""
        if 9 in given or 10 in given:
            raise Refused(Status.INVALID_PARAMETER)
        protocol, shared = self._pin_is_right(given)
        return self._hand_out(protocol, shared, Permission.MAKE_CREDENTIAL | Permission.GET_ASSERTION, None)

    def _by_pin(self, given: Parameters, link: Link) -> dict[int, Any]:
        permissions, rp_id = _asked(given)
        protocol, shared = self._pin_is_right(given)
        return self._hand_out(protocol, shared, permissions, rp_id)

    def _by_uv(self, given: Parameters, link: Link) -> dict[int, Any]:
        protocol, peer = self.protocol(given, 1), given.need(3, dict)
        permissions, rp_id = _asked(given)
        if not self._uv:
            raise Refused(Status.NOT_ALLOWED)
        shared = protocol.decapsulate(peer)
        self.verify_user(link)
        return self._hand_out(protocol, shared, permissions, rp_id, present=True)

    def _pin_is_right(self, given: Parameters) -> tuple[PinProtocolOne, bytes]:
        protocol, peer, sealed_hash = self.protocol(given, 1), given.need(3, dict), given.need(6, bytes)
        self._not_blocked()
        if self.pin_hash is None:
            raise Refused(Status.PIN_NOT_SET)
        shared = protocol.decapsulate(peer)
        self._guess(protocol, shared, sealed_hash)
        return protocol, shared

    def _hand_out(
        self, protocol: PinProtocolOne, shared: bytes, permissions: Permission, rp_id: str | None, present: bool = False
    ) -> dict[int, Any]:
        for token in self.tokens.values():
            token.reset()
        token = self.tokens[protocol.version]
        token.begin(permissions, rp_id, present=present)
        return {2: protocol.encrypt(shared, token.value)}

    def _not_blocked(self) -> None:
        if self.pin_left == 0:
            raise Refused(Status.PIN_BLOCKED)
        if self._row >= IN_A_ROW:
            raise Refused(Status.PIN_AUTH_BLOCKED)

    def _guess(self, protocol: PinProtocolOne, shared: bytes, sealed_hash: bytes) -> None:
        self.pin_left -= 1  # before the comparison: who cuts the power after a wrong guess has still used it up
        if self.pin_hash is None or not hmac.compare_digest(protocol.decrypt(shared, sealed_hash), self.pin_hash):
            protocol.regenerate()
            self._row += 1
            self._not_blocked()
            raise Refused(Status.PIN_INVALID)
        self.pin_left, self._row = PIN_RETRIES, 0


def _asked(given: Parameters) -> tuple[Permission, str | None]:
    asked, rp_id = given.need(9, int), given.maybe(10, str)
    if asked <= 0:
        raise Refused(Status.INVALID_PARAMETER)
    if asked & ~int(Permission.MAKE_CREDENTIAL | Permission.GET_ASSERTION) or asked > EVERY_PERMISSION:
        raise Refused(Status.UNAUTHORIZED_PERMISSION)
    if rp_id is None:  # both acts are acts at a site
        raise Refused(Status.MISSING_PARAMETER)
    return Permission(asked), rp_id


def _unpadded(padded: bytes) -> str:
    if len(padded) != 64:
        raise Refused(Status.INVALID_PARAMETER)
    try:
        pin = padded.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise Refused(Status.PIN_POLICY_VIOLATION) from None
    if len(pin) < SHORTEST or len(pin.encode()) > 63:
        raise Refused(Status.PIN_POLICY_VIOLATION)
    return pin
