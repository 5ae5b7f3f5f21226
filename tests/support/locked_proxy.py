"""A proxy on loopback that wants a password, and fails at what it is asked for."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import threading
from typing import Final, Self

USER, PASSWORD = "upstairs", "s3kritpassage"
SAID: Final = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
"""How the password is sent."""
SPELLED: Final = (PASSWORD, SAID)

FAILURES: Final = ("refuses", "repeats", "closes", "babbles", "breaks")
_ASKED: Final = re.compile(rb"proxy-authorization: *(basic [^\r\n]*)", re.IGNORECASE)


class LockedProxy:
    """Takes one request of each connection, and fails.

    Args:
        how: one of `FAILURES`. refuses: 407. repeats: 502, with what it was sent in its own words. closes: no reply.
            babbles: no HTTP. breaks: agrees to a tunnel, and closes that.

    Attributes:
        url: with user and password, as the environment names it.
        knocked: requests that came with the right password.
    """

    def __init__(self, how: str) -> None:
        self._how = how
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}"
        self.knocked = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                self._fail(connection)

    def _fail(self, connection: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked and (more := connection.recv(65536)):
            asked += more
        found = _ASKED.search(asked)
        self.knocked += found is not None and found[1].split()[-1] == SAID.encode()
        said = found[1] if found else b"nothing"
        connection.sendall(
            {
                "refuses": b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
                "repeats": b"HTTP/1.1 502 not by " + said + b"\r\nContent-Length: 0\r\n\r\n",
                "closes": b"",
                "babbles": b"\0\1\2 " + said + b"\r\n\r\n",
                "breaks": b"HTTP/1.1 200 Yes\r\n\r\n",
            }[self._how]
        )
