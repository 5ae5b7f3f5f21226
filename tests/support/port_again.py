"""The process of a ceremony that comes by a given port, as chance may have it: `python -m tests.support.port_again PORT
browser FD`."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chatkeep.daemon.control.ceremony import __main__ as ceremony
from chatkeep.daemon.control.ceremony import browser, client, loopback

TOP = Path(__file__).parents[2]


def on_port(patch: pytest.MonkeyPatch, port: int) -> None:
    """Ceremonies that are begun from now on have this port."""

    def start(kind: str, theirs: socket.socket) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "tests.support.port_again", str(port), kind, str(theirs.fileno())]
        nothing = subprocess.DEVNULL
        return subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=nothing, stdout=nothing, cwd=TOP)

    patch.setattr(client, "_start", start)


def main(port: str, *arguments: str) -> int:
    """As the ceremony's own."""

    def listen() -> loopback.Loopback:
        found = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            found.append(socket.socket(family, socket.SOCK_STREAM))
            found[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # who had it has just gone
            found[-1].bind((address, int(port)))
            found[-1].listen(16)
        return loopback.Loopback(int(port), tuple(found))

    vars(browser)["listen"] = listen
    return ceremony.main(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
