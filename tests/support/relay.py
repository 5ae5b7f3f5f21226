"""A socket between commands and the daemon that passes everything on, and keeps all of it."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.sessions import named


def reached(path: Path) -> socket.socket:
    """A connection to a socket, however long its path is."""
    connection = socket.socket(socket.AF_UNIX)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    return connection


class Relay:
    """What went through. `said`: both ways, connection by connection."""

    def __init__(self) -> None:
        self.said: list[bytearray] = []
        self._threads: list[threading.Thread] = []

    @contextlib.contextmanager
    def between(self, outer: Path, inner: Path) -> Iterator[None]:
        """Passes on what comes to `outer`, for the block."""
        outer.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            named(listener, outer)
            listener.listen()
            accepting = threading.Thread(target=self._accept, args=(listener, inner))
            accepting.start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                accepting.join()
                for thread in self._threads:
                    thread.join()

    def _accept(self, listener: socket.socket, inner: Path) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                kept = bytearray()
                self.said.append(kept)
                self._threads.append(threading.Thread(target=self._pass_on, args=(near, inner, kept)))
                self._threads[-1].start()

    @staticmethod
    def _pass_on(near: socket.socket, inner: Path, kept: bytearray) -> None:
        with near, reached(inner) as far, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    piece = key.fileobj.recv(1 << 16)
                    if not piece:
                        return
                    kept += piece
                    key.data.sendall(piece)
