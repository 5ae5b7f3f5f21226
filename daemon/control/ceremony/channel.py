"""What a command and the process of its ceremony say to each other: frames over a socket pair.

A frame is a length (4 bytes, big-endian) and one JSON object of that length. If the object has the key `secret`, that
is the length of a secret, whose raw bytes follow. A secret is never part of the JSON: a parser would leave copies of it
in memory that nobody can overwrite.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from chatkeep.daemon.keys.secret import Buffer, wipe

SECRET_SIZE: Final = 32
LARGEST: Final = 256 * 1024
"""No frame is longer: the credential ids of every slot a vault can have fit in, a runaway length does not."""

_LENGTH: Final = struct.Struct(">I")


class ChannelClosed(Exception):
    """The other side is gone."""


class ChannelBroken(Exception):
    """The other side said something that is no frame."""


class Received(NamedTuple):
    """A frame, and the secret that came with it, which whoever takes it wipes."""

    frame: dict[str, Any]
    secret: bytearray | None


class Channel:
    """One end. Neither end is used by two threads in the same direction at once."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def fileno(self) -> int:
        """The descriptor, to wait for."""
        return self._socket.fileno()

    def send(self, frame: Mapping[str, object], secret: Buffer | None = None) -> None:
        """Sends a frame; with a secret, whose length is added to it. Raises `ChannelClosed`."""
        fields = dict(frame) if secret is None else {**frame, "secret": len(secret)}
        text = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("ascii")
        if len(text) > LARGEST or (secret is not None and len(secret) != SECRET_SIZE):
            raise ValueError("not a frame")
        try:
            self._socket.sendall(_LENGTH.pack(len(text)) + text)
            if secret is not None:
                self._socket.sendall(secret)  # not joined to the frame: that would be a copy
        except OSError as exc:
            raise ChannelClosed from exc

    def receive(self, timeout: float | None = None) -> Received:
        """The next frame. The timeout is for each part of it, in seconds.

        Raises:
            ChannelClosed: the other side closed its end, or died.
            ChannelBroken: what came is no frame.
            TimeoutError: nothing came in time.
        """
        self._socket.settimeout(timeout)
        length = _LENGTH.unpack(self._exactly(_LENGTH.size))[0]
        if length > LARGEST:
            raise ChannelBroken("length")
        try:
            frame = json.loads(self._exactly(length))
        except (ValueError, RecursionError) as exc:
            raise ChannelBroken("json") from exc
        if not isinstance(frame, dict):
            raise ChannelBroken("json")
        if "secret" not in frame:
            return Received(frame, None)
        if type(frame["secret"]) is not int or frame["secret"] != SECRET_SIZE:
            raise ChannelBroken("secret")
        return Received(frame, self._exactly(SECRET_SIZE))

    def close(self) -> None:
        """Closes this end; the other side finds out at once. Twice is once."""
        self._socket.close()

    def _exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        try:
            while view:
                count = self._socket.recv_into(view)
                if not count:
                    raise ChannelClosed
                view = view[count:]
        except BaseException as exc:
            wipe(buffer)  # the first bytes of a secret, perhaps
            if isinstance(exc, OSError) and not isinstance(exc, TimeoutError):
                raise ChannelClosed from exc
            raise
        return buffer
