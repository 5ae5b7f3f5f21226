"""Sessions for tests: real keys, the real process, in a directory of their own."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.seeds import ReadingSeeds
from chatkeep.daemon.service import session
from chatkeep.daemon.service.asking import Session, present
from chatkeep.daemon.service.errors import SocketRefused
from chatkeep.daemon.service.session import SessionKeys
from chatkeep.daemon.service.wire import About, Facts, Opening
from chatkeep.daemon.vault.labels import MANIFEST, MANIFEST_MAGIC, PACK

DEADLINE = 180.0
HOUR = 3600 * 10**9


class Vault:
    """A vault as a session sees it: its id, and the keys of its epochs."""

    def __init__(self, epochs: int = 2) -> None:
        self.id = os.urandom(16)
        self.head = os.urandom(32)
        self.epochs = [EpochKeys(RootSecret.generate()) for _ in range(epochs)]

    def facts(self, until: int | None = None, label: str = "paper") -> Facts:
        end = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + HOUR if until is None else until
        return Facts(self.id, self.head, b"s" * 16, "recovery-64", label, end, time.time_ns())

    def keys(self, until: int | None = None) -> SessionKeys:
        return SessionKeys(self.facts(until), ReadingSeeds.of(self.epochs))

    def begin(self, directory: Path, until: int | None = None) -> About:
        return session.start(self.keys(until), directory)

    def whose(self, epoch: int) -> bytes:
        return self.id + epoch.to_bytes(4, "big") + self.epochs[epoch - 1].open.public.key_id

    def pack(self, epoch: int = 2, content: bytes = b"k" * 48) -> Opening:
        """A capsule of a pack of this vault, as it is asked for."""
        return self.sealed(epoch, PACK + self.whose(epoch) + b"d" * 16, content)

    def manifest(self, epoch: int = 2) -> Opening:
        rest = b"d" * 16 + b"t" * 16 + (1).to_bytes(8, "big") + bytes(32) + bytes(16)
        return self.sealed(epoch, MANIFEST + MANIFEST_MAGIC + self.whose(epoch) + rest, b"k" * 32)

    def sealed(self, epoch: int, bound: bytes, content: bytes) -> Opening:
        public = self.epochs[epoch - 1].open.public
        return Opening(epoch, public.key_id, bound, public.seal(content, bound))


def ask(found: Session, asked: Opening) -> bytes:
    """What a session opens."""
    return found.open(asked.epoch, asked.key_id, asked.sealed, asked.bound)


@contextlib.contextmanager
def ended(pid: int) -> Iterator[None]:
    """The process of this id, which is there now, has ended by itself when the block is over, or soon after."""
    process = os.pidfd_open(pid)
    try:
        yield
        poll = select.poll()
        poll.register(process, select.POLLIN)
        assert poll.poll(DEADLINE * 1000), "it runs on"
    finally:
        os.close(process)


def named(listener: socket.socket, path: Path) -> None:
    """Binds it to a name. An address has 107 bytes, and the path of a directory of pytest's may have more."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def end_all(directory: Path) -> None:
    """Ends every session there."""
    with contextlib.suppress(SocketRefused):
        for vault_id in present(directory):
            session.lock(vault_id, directory)
