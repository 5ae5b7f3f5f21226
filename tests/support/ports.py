"""A port for a server that does not say which one the kernel gave it."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Sequence
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at, and that no other test gets while this process lives.

    None of those that the kernel gives to whoever asks for any: seconds pass until a server listens, and tests beside
    this one connect and listen all the while.
    """
    ports = _never_given() or range(1024, 65536)
    for port in random.SystemRandom().sample(ports, len(ports)):
        with contextlib.suppress(OSError), socket.socket() as tried, socket.socket(socket.AF_UNIX) as ours:
            tried.bind(("127.0.0.1", port))
            ours.bind(f"\0chatkeep-tests-port-{port}")  # until this process ends, however it does
            ours.detach()
            return port
    raise AssertionError("no port is free")


def _never_given() -> Sequence[int]:
    low, high = map(int, _RANGE.read_text(encoding="ascii").split())
    return [*range(max(1024, low - 10_000), low), *range(high + 1, 65536)]
