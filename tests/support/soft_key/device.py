"""The software key in the same process: what the unmodified `Fido2Client` and `Ctap2` of fido2 talk to."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator

from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.hid import CAPABILITY, CTAPHID

from tests.support.soft_key.authenticator import SoftAuthenticator


class _Call:
    """The link of one call: the client's own cancel event and its callback."""

    def __init__(self, event: threading.Event | None, on_keepalive: Callable[[STATUS], None] | None) -> None:
        self._event = event or threading.Event()
        self._on_keepalive = on_keepalive

    def blinking(self) -> None:
        if self._on_keepalive is not None:
            self._on_keepalive(STATUS.UPNEEDED)

    def cancelled(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class SoftCtapDevice(CtapDevice):
    """A plugged-in software key. `unplug_after` commands were answered, it is gone."""

    def __init__(self, authenticator: SoftAuthenticator, unplug_after: int | None = None) -> None:
        self.authenticator = authenticator
        self.unplugged = False
        self._left = unplug_after

    @property
    def capabilities(self) -> int:
        return CAPABILITY.WINK if self.authenticator.traits.ctap1_only else CAPABILITY.WINK | CAPABILITY.CBOR

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        if self._left is not None:
            self.unplugged = self._left <= 0
            self._left -= 1
        if self.unplugged:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))  # as a hidraw node that is gone
        if cmd == CTAPHID.PING:
            return data
        if cmd == CTAPHID.MSG:
            return u2f(data)
        if cmd != CTAPHID.CBOR or self.authenticator.traits.ctap1_only:
            raise CtapError(CtapError.ERR.INVALID_COMMAND)
        return self.authenticator.command(data, _Call(event, on_keepalive))

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        raise NotImplementedError("a software key is given, not found")


def u2f(apdu: bytes) -> bytes:
    """CTAP1: tells its version; everything else is an instruction that it does not have."""
    return b"U2F_V2\x90\x00" if apdu[1:2] == b"\x03" else b"\x6d\x00"
