"""A software key at a socket in a directory, which stands for the machine's USB ports: plugged in and pulled out."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

from tests.support.soft_key.authenticator import SoftAuthenticator
from tests.support.soft_key.hid_server import Connection, Gone


class Port:
    """Where one key is plugged in. `pull_at`: it is pulled out, without an answer, when the n-th command arrives."""

    def __init__(self, path: str, authenticator: SoftAuthenticator) -> None:
        self.path, self.authenticator = path, authenticator
        self.pull_at: int | None = None
        self.pulled = 0  # how often it was pulled out
        self._listening: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def plug(self) -> None:
        """Puts the key in. Its power was off before."""
        self.authenticator.power_cycle()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(self.path + ".new")
        listening.listen()
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        os.rename(self.path + ".new", self.path)  # a key that is seen is one that can be opened

    def pull(self) -> None:
        """Pulls the key out: its device is gone, and so is whatever was being asked of it."""
        with self._lock:
            if self._listening is None:
                return
            os.unlink(self.path)
            for connected in (self._listening, *self._open):
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)
                connected.close()
            self._listening, self._open = None, []
            self.pulled += 1

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(connected)
            served = Connection(connected, self.authenticator, self._before)
            threading.Thread(target=served.serve, daemon=True).start()

    def _before(self, command: int) -> None:
        if self.pull_at is None:
            return
        self.pull_at -= 1
        if self.pull_at == 0:
            self.pull_at = None
            self.pull()
            raise Gone
