"""The process that holds what opens the vault, and the only one: `python -m chatkeep.daemon.service.reader FD`.

It is told the keys through an inherited pair of sockets, answers on a socket of its own, and runs no command: it reads
no storage, parses no object, and has no network. To lock is to end it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Final

from chatkeep.daemon.keys.hardened import Hardened, LockedBuffer, harden
from chatkeep.daemon.service.errors import SocketRefused
from chatkeep.daemon.service.keyring import Keyring
from chatkeep.daemon.service.places import Place, peer, socket_name
from chatkeep.daemon.service.serving import Server
from chatkeep.daemon.service.wire import (
    ALL_LOCKED,
    ENTRY_SIZE,
    HELLO_SIZE,
    KEYS_LOCKED,
    NO_CORE,
    NOT_DUMPABLE,
    READY,
    READY_DONE,
    READY_HELLO,
    READY_SOCKET,
    SEED_SIZE,
    STAY,
    Hello,
    Unreadable,
)

PATIENCE: Final = 30.0  # seconds for whoever starts it to say what it is to hold
BACKLOG: Final = 512


def main() -> int:
    """Becomes the process that holds the keys. Returns when the session is over."""
    _leave_the_parent()
    hardened = harden()
    with socket.socket(fileno=int(sys.argv[1])) as told:
        told.settimeout(PATIENCE)
        try:
            hello, seeds = _receive(told)
            keyring = Keyring(hello.facts.vault_id, seeds)
        except (Unreadable, OSError):
            _answer(told, READY_HELLO)
            return 1
        bits = _bits(hardened, seeds)
        try:
            place = Place.open(Path(os.fsdecode(hello.directory)))
            if place is None:
                raise FileNotFoundError
            listener, stays = _listen(place, socket_name(hello.facts.vault_id))
        except (SocketRefused, OSError) as exc:
            _answer(told, READY_SOCKET, bits, getattr(exc, "errno", None) or 0)
            return 1
        server = Server(listener, keyring, hello.facts, bits, stays, boottime, _admits)
        _answer(told, READY_DONE, bits)
        wanted = _is_wanted(told)
    try:
        if wanted:
            server.run()
    finally:
        keyring.wipe()
        if stays():
            place.remove(socket_name(hello.facts.vault_id))
    return 0


def _is_wanted(told: socket.socket) -> bool:
    """Whether whoever started it has heard that it is ready: an unlock that was cut short leaves no session."""
    try:
        return told.recv(1) == STAY
    except OSError:
        return False


def boottime() -> int:
    """Nanoseconds since the machine started, time asleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _leave_the_parent() -> None:
    """Belongs to nobody: whoever started it ends before it, and is not to reap it. Nothing secret is here yet."""
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    # Whoever started it may have had them ignored or blocked.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _receive(told: socket.socket) -> tuple[Hello, LockedBuffer]:
    """What it is to be, and the seeds, which arrive in locked memory and nowhere else."""
    head = bytearray(HELLO_SIZE)
    _fill(told, memoryview(head))
    texts = bytearray(Hello.rest(bytes(head)))
    _fill(told, memoryview(texts))
    hello = Hello.decode(bytes(head + texts))
    seeds = LockedBuffer(hello.epochs * ENTRY_SIZE + SEED_SIZE)
    with seeds.view() as view:
        _fill(told, view)
    return hello, seeds


def _fill(told: socket.socket, view: memoryview) -> None:
    while view:
        count = told.recv_into(view)
        if not count:
            raise Unreadable
        view = view[count:]


def _listen(place: Place, name: str) -> tuple[socket.socket, _Stays]:
    """The socket takes its name when it answers: what was there is replaced in one step, so there is never none."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    new = f"{name}.new"
    place.remove(new)
    listener.bind(place.reach(new))
    os.chmod(place.reach(new), 0o600)
    listener.listen(BACKLOG)
    os.rename(new, name, src_dir_fd=place.descriptor, dst_dir_fd=place.descriptor)
    return listener, _Stays(place.path / name)


class _Stays:
    """Whether a socket still is where it was made. It is not after a logout, which takes the directory, nor when a
    later unlock has taken its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made = self._there()

    def __call__(self) -> bool:
        with contextlib.suppress(OSError):
            return self._there() == self._made
        return False

    def _there(self) -> tuple[int, int, bool]:
        facts = os.lstat(self._path)
        return facts.st_dev, facts.st_ino, stat.S_ISSOCK(facts.st_mode)


def _admits(connection: socket.socket) -> bool:
    # The directory keeps others out already. Root could get in, and has no business with a session that is not its own.
    return peer(connection)[1] == os.geteuid()


def _bits(hardened: Hardened, seeds: LockedBuffer) -> int:
    reached = (
        (NO_CORE, hardened.no_core),
        (NOT_DUMPABLE, hardened.not_dumpable),
        (KEYS_LOCKED, seeds.locked and seeds.not_dumped),
        (ALL_LOCKED, hardened.all_locked),
    )
    return sum(bit for bit, is_so in reached if is_so)


def _answer(told: socket.socket, status: int, bits: int = 0, number: int = 0) -> None:
    with contextlib.suppress(OSError):  # whoever asked has gone; the socket being there is what counts
        told.sendall(READY.pack(status, bits, number))


if __name__ == "__main__":
    sys.exit(main())
