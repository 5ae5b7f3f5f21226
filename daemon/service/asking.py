"""Asking the process that holds the keys. Imports no cryptography: `status` asks too."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Final, Self

from chatkeep.daemon.keys.errors import Unsealable
from chatkeep.daemon.service.errors import ReaderFailed, SocketRefused
from chatkeep.daemon.service.places import Place, peer, runtime_directories, socket_name, vault_of
from chatkeep.daemon.service.wire import (
    ABOUT,
    DONE,
    FRAME,
    MOST_ABOUT,
    OPEN,
    REFUSED,
    SIGN,
    SIGNATURE,
    UNKNOWN_KEY,
    UNSEALABLE,
    About,
    Opening,
    Unreadable,
)
from chatkeep.daemon.vault.errors import UnknownKey, VaultLocked

PATIENCE: Final = 30.0
"""Seconds for one answer, which takes a thousandth: longer than that it is stopped, or the machine is."""


class Session:
    """An unlocked vault, seen from a command. Thread-safe: one question after the other. To be closed.

    Attributes:
        about: what the session said of itself when it was found.
        pid: of the process that holds the keys.
    """

    def __init__(self, connection: socket.socket, pid: int, vault_id: bytes) -> None:
        self.pid: Final = pid
        self._vault_id = vault_id
        self._lock = threading.Lock()
        self._connection: socket.socket | None = connection
        self.about: Final = self.ask()

    @classmethod
    def find(cls, vault_id: bytes, directory: Path | None = None, *, patience: float = PATIENCE) -> Self | None:
        """The session of this vault, or None when it is locked.

        Args:
            directory: of the sockets; None for every one that this user's may be in.
            patience: seconds for one answer.

        Raises:
            SocketRefused: what is in its place is not this user's, or not this vault's.
            ReaderFailed: it does not answer as it should.
            OSError: its directory cannot be opened.
        """
        for each in _where(directory):
            session = cls._find(vault_id, each, patience)
            if session is not None:
                return session
        return None

    @classmethod
    def _find(cls, vault_id: bytes, directory: Path, patience: float) -> Self | None:
        place = Place.open(directory)
        if place is None:
            return None
        with place:
            path = str(place.path / socket_name(vault_id))
            try:
                connection = place.connect(socket_name(vault_id), patience)
            except TimeoutError as exc:
                raise ReaderFailed(reason="silent", path=path) from exc
        if connection is None:
            return None
        try:
            session = cls(connection, peer(connection)[0], vault_id)
            if session.about.facts.vault_id != vault_id:
                raise SocketRefused(path=path, reason="vault")
        except VaultLocked:
            connection.close()
            return None  # it ended this very moment
        except BaseException:
            connection.close()
            raise
        return session

    def ask(self) -> About:
        """What the session says of itself now. Raises as `open`."""
        status, answer = self._exchange(ABOUT, b"")
        try:
            if status == DONE:
                return About.decode(answer)
        except Unreadable as exc:
            raise ReaderFailed(reason="answer") from exc
        raise ReaderFailed(reason="answer")

    def open(self, epoch: int, key_id: bytes, sealed: bytes, bound: bytes) -> bytes:
        """Opens what is sealed to the key of an epoch and bound to `bound`.

        Raises:
            Unsealable: it does not open.
            UnknownKey: the session has no such key.
            VaultLocked: the session has ended.
            ReaderFailed: it does not answer as it should.
        """
        status, answer = self._exchange(OPEN, Opening(epoch, key_id, bound, sealed).encode())
        # What is bound to another vault is refused: here as anywhere else it just does not open.
        if status in (UNSEALABLE, REFUSED):
            raise Unsealable(key_id=key_id.hex())
        if status == UNKNOWN_KEY:
            raise UnknownKey(what="epoch", epoch=epoch, key=key_id.hex())
        return self._done(status, answer)

    def sign(self, text: bytes) -> bytes:
        """The signature of a whole checkpoint, given without one. Raises VaultLocked, ReaderFailed."""
        signature = self._done(*self._exchange(SIGN, text))
        if len(signature) != SIGNATURE:
            raise ReaderFailed(reason="answer")
        return signature

    def close(self) -> None:
        """Closes the connection; the session goes on. Twice is once."""
        with self._lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _exchange(self, what: int, payload: bytes) -> tuple[int, bytes]:
        with self._lock:
            if self._connection is None:
                raise VaultLocked(reason="ended")
            try:
                self._connection.sendall(FRAME.pack(what, len(payload)) + payload)
                status, size = FRAME.unpack(self._receive(self._connection, FRAME.size))
                if size > MOST_ABOUT:
                    raise ReaderFailed(reason="answer")
                return status, self._receive(self._connection, size)
            except TimeoutError as exc:
                # What it still says later would be taken for the answer to another question.
                self._close()
                raise ReaderFailed(reason="silent") from exc
            except OSError as exc:
                self._close()
                raise VaultLocked(reason="ended") from exc
            except BaseException:
                self._close()
                raise

    def _receive(self, connection: socket.socket, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            piece = connection.recv(size - len(received))
            if not piece:
                raise VaultLocked(reason="ended")
            received += piece
        return bytes(received)

    def _done(self, status: int, answer: bytes) -> bytes:
        if status == DONE:
            return answer
        raise ReaderFailed(reason="refused" if status == REFUSED else "answer")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def present(directory: Path | None = None) -> list[bytes]:
    """The vaults that may have a session of this user: those with a socket. Raises SocketRefused, OSError."""
    found = set[bytes]()
    for each in _where(directory):
        place = Place.open(each)
        if place is not None:
            with place:
                found.update(filter(None, map(vault_of, os.listdir(place.descriptor))))
    return sorted(found)


def _where(directory: Path | None) -> list[Path]:
    return runtime_directories() if directory is None else [directory]
