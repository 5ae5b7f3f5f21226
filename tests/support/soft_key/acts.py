"""What making a credential and asserting one have in common: options, proof of the user, authenticator data."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from fido2 import cbor

from tests.support.soft_key.client_pin import ClientPin
from tests.support.soft_key.credentials import Credentials, rp_hash
from tests.support.soft_key.presence import Link, Person
from tests.support.soft_key.statuses import Refused, Status
from tests.support.soft_key.strict import Parameters
from tests.support.soft_key.tokens import Permission, Token

LIST_LIMIT = 8
UP, UV, BE, BS, AT, ED = 0x01, 0x04, 0x08, 0x10, 0x40, 0x80


class Lie(enum.Enum):
    """How an authenticator can be dishonest in an assertion; its signature is right but for the lie about that."""

    NOT_VERIFIED = "the user is not verified, though a PIN was asked for and given"
    OTHER_CREDENTIAL = "another credential answers than was asked for"
    SHORT_SECRET = "hmac-secret of 16 bytes"
    LONG_SECRET = "hmac-secret of 48 bytes"
    NO_SECRET = "no hmac-secret at all"
    OTHER_SECRET = "another hmac-secret each time"
    WRONG_SIGNATURE = "the signature of another credential"
    OTHER_SITE = "the hash of another site"


@dataclasses.dataclass(frozen=True)
class Traits:
    """What kind of authenticator it is; none of it changes while it lives."""

    uv: bool = False  # built-in user verification: a finger
    protocols: tuple[int, ...] = (2, 1)
    hmac_secret: bool = True
    cred_protect: bool = True
    always_uv: bool = False
    synced: bool = False  # its credentials are backed up: the flags BE and BS
    discoverable: bool = True  # can keep discoverable credentials
    ctap20: bool = False  # no permissions, no selection
    ctap1_only: bool = False
    room: int = 25
    new_pin_first: bool = False  # its owner must change the PIN before it is used


@dataclasses.dataclass
class Parts:
    """All of one authenticator that a command works with."""

    traits: Traits
    person: Person
    pin: ClientPin
    credentials: Credentials
    lies: set[Lie]
    told: set[Lie] = dataclasses.field(default_factory=set)  # lies that were used

    @property
    def protected(self) -> bool:
        """Whether some form of user verification is set up."""
        return self.traits.uv or self.pin.pin_hash is not None

    def lies_about(self, lie: Lie) -> bool:
        """Whether to lie now; remembers that it did."""
        if lie in self.lies:
            self.told.add(lie)
        return lie in self.lies


class Proof:
    """The user's part in one act: present, verified, and by which token."""

    def __init__(self, parts: Parts, given: Parameters, keys: tuple[int, int], link: Link) -> None:
        self._parts, self._link = parts, link
        self._token: Token | None = None
        self.verified = self.touched = False
        self.parameter = given.maybe(keys[0], bytes)
        self._given, self._version_key = given, keys[1]
        if self.parameter == b"":
            self._selection_of_old()
        if self.parameter is not None:
            self.protocol = parts.pin.protocol(given, keys[1])

    def _selection_of_old(self) -> None:
        """Section 6.1.2, step 1: an empty parameter only asks for a touch."""
        self._parts.person.must_touch(self._link)
        raise Refused(Status.PIN_NOT_SET if self._parts.pin.pin_hash is None else Status.PIN_INVALID)

    def by_token(self, client_hash: bytes, permission: Permission, rp_id: str) -> None:
        """Verifies by the token."""
        assert self.parameter is not None
        token = self._parts.pin.tokens[self.protocol.version]
        token.check(self.protocol, client_hash, self.parameter, permission, rp_id)
        self._token, self.verified, self.touched = token, True, token.user_present

    def built_in(self) -> None:
        """Verifies by the finger, without a token."""
        try:
            self._parts.pin.verify_user(self._link)
        except Refused as refused:
            if refused.status not in (Status.UV_INVALID, Status.UV_BLOCKED):
                raise
            has_pin = self._parts.pin.pin_hash is not None
            raise Refused(Status.PUAT_REQUIRED if has_pin else Status.OPERATION_DENIED) from None
        self.verified = self.touched = True

    def present(self) -> None:
        """Waits for the touch, unless the verification was one; what the token was good for is then used up."""
        if not self.touched:
            self._parts.person.must_touch(self._link)
            self.touched = True
        for token in self._parts.pin.tokens.values():
            token.spend()


def options_of(given: Parameters, key: int, parts: Parts, *, verified_by_token: bool) -> tuple[Parameters, bool]:
    """The options, and whether built-in verification is asked for (section 6.1.2, step 5)."""
    options = given.inner(key)
    wants = bool(options.maybe("uv", bool)) and not verified_by_token
    if wants and not parts.traits.uv:
        raise Refused(Status.INVALID_OPTION)
    return options, wants


def authenticator_data(
    parts: Parts, rp_id: str, proof: Proof, count: int, attested: bytes = b"", extensions: dict[str, Any] | None = None
) -> bytes:
    """Section 6.1 of WebAuthn."""
    flags = (UP if proof.touched else 0) | (UV if proof.verified else 0)
    flags |= (BE | BS if parts.traits.synced else 0) | (AT if attested else 0) | (ED if extensions else 0)
    if not attested and parts.lies_about(Lie.NOT_VERIFIED):
        flags &= ~UV
    site = rp_hash("example.org" if not attested and parts.lies_about(Lie.OTHER_SITE) else rp_id)
    tail = cbor.encode(extensions) if extensions else b""
    return site + bytes([flags]) + count.to_bytes(4) + attested + tail
