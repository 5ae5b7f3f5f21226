"""pinUvAuthToken: what one PIN entry or one finger is good for (CTAP 2.1, sections 6.5.2.1 and 6.5.5.7)."""

from __future__ import annotations

import enum
import os

from tests.support.soft_key.pin_protocol import PinProtocolOne
from tests.support.soft_key.statuses import Refused, Status


class Permission(enum.IntFlag):
    """Of those that CTAP 2.1 has, the two that this authenticator grants."""

    MAKE_CREDENTIAL = 0x01
    GET_ASSERTION = 0x02


EVERY_PERMISSION = 0x3F  # all that are assigned in 2.1; asking for others is asking for what nobody has


class Token:
    """The token of one protocol. Not in use until a PIN or a finger began it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new value: all that was handed out before is nothing."""
        self.value = os.urandom(32)
        self.stop()

    def stop(self) -> None:
        """Not in use, and good for nothing."""
        self.in_use = False
        self.permissions = Permission(0)
        self.rp_id: str | None = None
        self.user_verified = False
        self.user_present = False

    def begin(self, permissions: Permission, rp_id: str | None, *, present: bool) -> None:
        """From now on it stands for a verified user, for these acts at this site."""
        self.in_use, self.user_verified, self.user_present = True, True, present
        self.permissions, self.rp_id = permissions, rp_id

    def spend(self) -> None:
        """After one act that the user was present for it is good for no other."""
        self.user_present = self.user_verified = False
        self.permissions = Permission(0)

    def check(
        self, protocol: PinProtocolOne, message: bytes, parameter: bytes, permission: Permission, rp_id: str
    ) -> None:
        """Whether this pinUvAuthParam allows the act at the site: the value, the act, the site, in this order."""
        if not self.in_use or not protocol.verify(self.value, message, parameter):
            raise Refused(Status.PIN_AUTH_INVALID)
        if permission not in self.permissions:
            raise Refused(Status.PIN_AUTH_INVALID)
        if self.rp_id is not None and self.rp_id != rp_id:
            raise Refused(Status.PIN_AUTH_INVALID)
        if not self.user_verified:
            raise Refused(Status.PIN_AUTH_INVALID)
        self.rp_id = rp_id  # a token of no site belongs to the first site that it is used at
