"""CTAPHID, the device's side (CTAP 2.1, section 11.2): packets of 64 bytes on a connection, one channel for each.

The client is fido2's own `CtapHidDevice`, so that framing, keepalives and cancelling are as with a key on USB.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self

from tests.support.soft_key.authenticator import SoftAuthenticator
from tests.support.soft_key.device import u2f

PACKET = 64
BROADCAST = b"\xff\xff\xff\xff"
PING, MSG, INIT, CBOR, CANCEL, KEEPALIVE, ERROR = 0x81, 0x83, 0x86, 0x90, 0x91, 0xBB, 0xBF
PROCESSING, UP_NEEDED = b"\x01", b"\x02"
INVALID_COMMAND, INVALID_LENGTH, INVALID_SEQUENCE = b"\x01", b"\x03", b"\x04"
CAN_CBOR = 0x04
KEEPALIVE_EVERY = 0.05  # seconds; section 11.2.9.1.7 wants one every 100 ms


class Gone(Exception):
    """The connection ended."""


class Connection:
    """One opened device file. `before` is called with each command byte before it runs; it may end the connection."""

    def __init__(
        self, connected: socket.socket, authenticator: SoftAuthenticator, before: Callable[[int], None]
    ) -> None:
        self._socket, self._authenticator, self._before = connected, authenticator, before
        self._channel = os.urandom(4)
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Answers until the other side is gone, or this one is unplugged."""
        with contextlib.suppress(Gone, OSError), self._socket:
            while True:
                channel, command, body = self._message()
                if command == INIT:
                    self._greet(channel, body)
                elif command != CANCEL:  # one that comes too late is nothing
                    self._answer(command, body)

    def _greet(self, channel: bytes, nonce: bytes) -> None:
        able = 0 if self._authenticator.traits.ctap1_only else CAN_CBOR
        self._send(channel, INIT, nonce + self._channel + bytes([2, 1, 0, 0, able]))

    def _answer(self, command: int, body: bytes) -> None:
        if command == PING:
            return self._send(self._channel, PING, body)
        if command == CBOR and not self._authenticator.traits.ctap1_only:
            self._before(body[0] if body else -1)
            with _Running(self) as running:
                answer = self._authenticator.command(body, running)
            return self._send(self._channel, CBOR, answer)
        if command == MSG:
            return self._send(self._channel, MSG, u2f(body))
        return self._send(self._channel, ERROR, INVALID_COMMAND)

    def keepalive(self, status: bytes) -> None:
        """Says that it is still there."""
        self._send(self._channel, KEEPALIVE, status)

    def cancel_came(self, seconds: float) -> bool:
        """Waits for a CANCEL; the end of the connection is one."""
        self._socket.settimeout(seconds or 0.001)
        try:
            packet = self._socket.recv(PACKET)
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self._socket.settimeout(None)
        return not packet or packet[4] == CANCEL

    def _message(self) -> tuple[bytes, int, bytes]:
        packet = self._packet()
        channel, command, length = packet[:4], packet[4], int.from_bytes(packet[5:7])
        body, sequence = packet[7:], 0
        while len(body) < length:
            more = self._packet()
            if more[:4] != channel or more[4] != sequence:
                self._send(channel, ERROR, INVALID_SEQUENCE)
                raise Gone
            body, sequence = body + more[5:], sequence + 1
        return channel, command, body[:length]

    def _packet(self) -> bytes:
        packet = self._socket.recv(PACKET)
        if not packet:
            raise Gone
        return packet.ljust(PACKET, b"\0")

    def _send(self, channel: bytes, command: int, body: bytes) -> None:
        with self._sending:
            for packet in _packets(channel, command, body):
                self._socket.send(packet)


class _Running:
    """The link of a command that runs: keepalives go out beside it, a cancel comes in while it waits for a touch."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._status = PROCESSING
        self._done = threading.Event()
        self._beat = threading.Thread(target=self._beats, daemon=True)

    def __enter__(self) -> Self:
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._beat.join()

    def blinking(self) -> None:
        self._status = UP_NEEDED
        with contextlib.suppress(OSError):
            self._connection.keepalive(UP_NEEDED)

    def cancelled(self, seconds: float) -> bool:
        return self._connection.cancel_came(seconds)

    def _beats(self) -> None:
        with contextlib.suppress(OSError):
            while not self._done.wait(KEEPALIVE_EVERY):
                self._connection.keepalive(self._status)


def _packets(channel: bytes, command: int, body: bytes) -> Iterator[bytes]:
    yield (channel + bytes([command]) + len(body).to_bytes(2) + body[:57]).ljust(PACKET, b"\0")
    for sequence, at in enumerate(range(57, len(body), 59)):
        yield (channel + bytes([sequence]) + body[at : at + 59]).ljust(PACKET, b"\0")
