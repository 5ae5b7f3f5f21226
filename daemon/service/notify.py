"""How the daemon is, told to the service manager that started it: the protocol of sd_notify(3).

One datagram a message, to the socket that `NOTIFY_SOCKET` names. Without that variable nobody asked, and nothing is
sent. Nothing here raises because of the manager: that it is gone, restarts or is slow must not stop a backup.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Final, Self

STATUS_LIMIT: Final = 1024
"""Bytes of a status text. The manager ignores a message above 4096 altogether."""

PATIENCE: Final = 1.0
"""Seconds that a change of state waits for room in the manager's queue. What found none goes before the next one."""

_KEPT: Final = 16
_NAMES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Supervisor:
    """Who started this process and wants to know how it is, or nobody. For any thread. To be closed.

    Args:
        address: as in `NOTIFY_SOCKET`: a path, or `@` and an abstract name; anything else is nobody.
        watchdog_limit: seconds after which the manager ends a process that did not call `watchdog`; None: never.
        clock: CLOCK_MONOTONIC in nanoseconds, which the manager compares with its own.
    """

    def __init__(
        self,
        address: str = "",
        watchdog_limit: float | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.watchdog_limit: Final = watchdog_limit
        self._clock = clock
        self._lock = threading.Lock()
        self._unsent: deque[bytes] = deque(maxlen=_KEPT)  # states, oldest first
        self._status: bytes | None = None  # the newest one, while it is unsent
        self._address = _address(address)
        self._socket = None if self._address is None else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> Self:
        """As the environment has it, which then says it no more: a program that we start is not the service."""
        environment = os.environ if environment is None else environment
        address, microseconds, pid = (environment.pop(name, "") for name in _NAMES)
        ours = not pid or (_digits(pid) and int(pid) == os.getpid())
        limit = int(microseconds) / 1e6 if ours and _digits(microseconds) else 0.0
        return cls(address, limit or None)

    @property
    def listens(self) -> bool:
        """Whether there is anybody."""
        return self._socket is not None

    def watchdog_interval(self) -> float | None:
        """Seconds between two calls of `watchdog`: a third of the limit, so that one may be late. None: not asked."""
        return None if self.watchdog_limit is None else self.watchdog_limit / 3

    def ready(self, status: str = "") -> None:
        """The daemon serves; also the end of `reloading`."""
        self._state("READY=1", status)

    def reloading(self, status: str = "") -> None:
        """The configuration is being read again. `ready` must follow, also when it was refused."""
        self._state(f"RELOADING=1\nMONOTONIC_USEC={self._clock() // 1000}", status)

    def stopping(self, status: str = "") -> None:
        """The daemon has begun to end."""
        self._state("STOPPING=1", status)

    def extend_timeout(self, seconds: float) -> None:
        """Starting, reloading or stopping goes on: the manager is to wait this long from now."""
        self._state(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, text: str) -> None:
        """One line for people: what `systemctl status` shows. Never waits."""
        with self._lock:
            self._status = _status(text)
            self._flush(0)

    def watchdog(self) -> None:
        """All is well, until the limit. Never waits; takes along what found no room before."""
        with self._lock:
            if self._flush(0):
                self._send(b"WATCHDOG=1", 0)

    def close(self) -> None:
        """Nothing is sent any more. Twice is once."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _state(self, message: str, status: str = "") -> None:
        lines = message.encode()
        with self._lock:
            if status:
                lines += b"\n" + _status(status)
                self._status = None  # an older one must not come after it
            if self._socket is not None:
                self._unsent.append(lines)
            self._flush(PATIENCE)

    def _flush(self, patience: float) -> bool:
        """Sends what waits, in order; whether nothing waits any more."""
        until = time.monotonic() + patience
        while self._unsent:
            if not self._send(self._unsent[0], max(0.0, until - time.monotonic())):
                return False
            self._unsent.popleft()
        if self._status is not None:
            if not self._send(self._status, 0):
                return False
            self._status = None
        return True

    def _send(self, message: bytes, patience: float) -> bool:
        """Whether it is done with: sent, or nobody is there to have it. False: no room now."""
        if self._socket is None or self._address is None:
            return True
        self._socket.settimeout(patience)
        try:
            self._socket.sendto(message, self._address)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            pass  # gone, or never there: a manager that restarts learns the next state
        return True


def _address(text: str) -> str | None:
    if len(text) < 2 or text[0] not in "/@" or "\0" in text:
        return None  # vsock, of virtual machines that report to their host, is nothing a service gets
    return "\0" + text[1:] if text[0] == "@" else text


def _digits(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _status(text: str) -> bytes:
    # A line break would end the text and begin another assignment: a name in it could then say READY=1.
    line = "".join(character if character.isprintable() else " " for character in text)
    cut = line.encode(errors="replace")[:STATUS_LIMIT]
    return b"STATUS=" + cut.decode(errors="ignore").encode()
