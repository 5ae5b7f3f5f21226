"""Answers those who ask the process that holds the keys: one thread, one frame after the other, none waits for another.

Whoever sends what is no frame, or does not read what it asked for, loses its connection. Nobody else notices.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

from chatkeep.daemon.keys.errors import Unsealable
from chatkeep.daemon.service.keyring import MOST_OPENING, Keyring, NoSuchKey, NotOurs, Signing
from chatkeep.daemon.service.wire import (
    ABOUT,
    DONE,
    FRAME,
    OPEN,
    REFUSED,
    SIGN,
    UNKNOWN_KEY,
    UNSEALABLE,
    About,
    Facts,
    Opening,
    Unreadable,
)

MOST_CLIENTS: Final = 128
"""Connections at a time. One more closes the one that was silent for the longest time."""

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at whether the session still is to be."""

_PIECE: Final = 1 << 16


class Server:
    """Serves until the session is over.

    Args:
        listener: bound and listening; taken over.
        stays: whether the socket still is where it was made; asked every `LOOK_EVERY` seconds.
        clock: ns of CLOCK_BOOTTIME.
        admits: whether a connection is this user's.
    """

    def __init__(
        self,
        listener: socket.socket,
        keyring: Keyring,
        facts: Facts,
        hardened: int,
        stays: Callable[[], bool],
        clock: Callable[[], int],
        admits: Callable[[socket.socket], bool],
    ) -> None:
        self._listener = listener
        self._keyring = keyring
        self._facts = facts
        self._hardened = hardened
        self._stays = stays
        self._clock = clock
        self._admits = admits
        self._selector = selectors.DefaultSelector()
        self._clients: dict[_Client, None] = {}  # the one that was silent for the longest time first

    def run(self) -> None:
        """Returns when the session has reached its end, or its socket is gone."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        looked = time.monotonic()
        while (left := self._facts.until - self._clock()) > 0:
            found = self._selector.select(min(LOOK_EVERY, left / 1e9))
            # Again: the machine may have slept until after the end, and what was asked meanwhile is asked of nobody.
            if self._clock() >= self._facts.until:
                return
            if time.monotonic() - looked >= LOOK_EVERY:
                if not self._stays():
                    return
                looked = time.monotonic()
            for key, _ in found:
                if key.data is None:
                    self._admit()
                elif key.data in self._clients:  # else it was closed for one that came in this round
                    self._serve(key.data)

    def about(self) -> About:
        """What the session says of itself."""
        ring = self._keyring
        return About(self._facts, ring.opened, ring.signed, self._hardened, ring.checkpoint.raw, ring.key_ids)

    def answer(self, what: int, payload: bytes) -> bytes:
        """The answer to `ABOUT` and `OPEN`. Raises `Unreadable`."""
        if what == ABOUT:
            return _frame(DONE, self.about().encode())
        try:
            return _frame(DONE, self._keyring.open(Opening.decode(payload)))
        except NotOurs:
            return _frame(REFUSED)
        except NoSuchKey:
            return _frame(UNKNOWN_KEY)
        except Unsealable:
            return _frame(UNSEALABLE)

    def signing(self, size: int) -> Signing | None:
        """Begins to sign; None for a text that is refused whatever it says."""
        try:
            return self._keyring.signing(size)
        except NotOurs:
            return None

    def _admit(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as exc:
            # It went already. Without a descriptor for it, it would be reported again and again.
            if exc.errno in {errno.EMFILE, errno.ENFILE} and self._clients:
                self._drop(next(iter(self._clients)))
            return
        if not self._admits(connection):
            connection.close()
            return
        connection.setblocking(False)
        if len(self._clients) >= MOST_CLIENTS:
            self._drop(next(iter(self._clients)))
        client = _Client(connection, self)
        self._clients[client] = None
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _serve(self, client: _Client) -> None:
        self._clients[client] = self._clients.pop(client)  # it is the last to be silent now
        if not client.serve():
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client]
        self._selector.unregister(client.connection)
        client.connection.close()


class _Client:
    """One connection, and the request that is arriving on it."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self.connection: Final = connection
        self._server = server
        self._arrived = bytearray()
        self._signing: Signing | None = None

    def serve(self) -> bool:
        """Takes what has arrived and answers what is whole; whether the connection stays."""
        try:
            piece = self.connection.recv(_PIECE)
            if not piece:
                return False
            self._arrived += piece
            while (answer := self._next()) is not None:
                # Nobody has two answers to come who waits for each, so it fits; who does not read is not waited for.
                if self.connection.send(answer) != len(answer):
                    return False
        except (Unreadable, OSError):
            return False
        return True

    def _next(self) -> bytes | None:
        """The answer to the next request, if all of it has arrived. Raises `Unreadable`."""
        if self._signing is not None:
            return self._sign(self._signing)
        if len(self._arrived) < FRAME.size:
            return None
        what, size = FRAME.unpack_from(self._arrived)
        if what == SIGN:
            self._signing = self._server.signing(size)
            del self._arrived[: FRAME.size]
            if self._signing is None:
                raise Unreadable  # what follows would have to be read to be passed over
            return self._sign(self._signing)
        # Known before it is waited for: nobody makes this process hold more than that.
        if size > {ABOUT: 0, OPEN: MOST_OPENING}.get(what, -1):
            raise Unreadable
        if len(self._arrived) < FRAME.size + size:
            return None
        payload = bytes(self._arrived[FRAME.size : FRAME.size + size])
        del self._arrived[: FRAME.size + size]
        return self._server.answer(what, payload)

    def _sign(self, signing: Signing) -> bytes | None:
        piece = bytes(self._arrived[: signing.missing])
        del self._arrived[: len(piece)]
        signing.take(piece)
        if signing.missing:
            return None
        self._signing = None
        try:
            return _frame(DONE, signing.signature())
        except NotOurs:
            return _frame(REFUSED)


def _frame(status: int, payload: bytes = b"") -> bytes:
    return FRAME.pack(status, len(payload)) + payload
