"""The session of an unlocked vault: begun, found, ended. What holds its keys is a process of its own (`reader`)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatkeep.daemon.keys.secret import Sensitive
from chatkeep.daemon.service.asking import Session, present
from chatkeep.daemon.service.errors import ReaderFailed, SocketRefused
from chatkeep.daemon.service.places import Place, lock_name, peer, runtime_directories, runtime_directory, socket_name
from chatkeep.daemon.service.wire import EPOCH, READY, READY_DONE, READY_SOCKET, STAY, About, Facts, Hello

if TYPE_CHECKING:
    from chatkeep.daemon.keys.seeds import ReadingSeeds

MODULE: Final = "chatkeep.daemon.service.reader"
PATIENCE: Final = 60.0  # seconds to start or to end; Python and the libraries take a tenth


class SessionKeys(Sensitive):
    """What a session is told: what it is, and its keys, which it takes over."""

    def __init__(self, facts: Facts, seeds: ReadingSeeds) -> None:
        self.facts: Final = facts
        self.seeds: Final = seeds

    def wipe(self) -> None:
        """Overwrites the keys. Twice is once."""
        self.seeds.wipe()


def start(keys: SessionKeys, directory: Path | None = None) -> About:
    """Begins a session, in place of the one there may be; returns what it says of itself. `keys` are wiped.

    `directory`: of the sockets; None for the usual one, and one that is in another of this user's is ended too.

    Raises:
        SocketRefused: the directory of the sockets cannot be trusted.
        ReaderFailed: the process did not start, or the directory could not be made. A session that there was goes on.
    """
    vault_id = keys.facts.vault_id
    try:
        with _place(directory) as place, place.alone(lock_name(vault_id)):
            older = _listening(place, socket_name(vault_id))
            try:
                with _started(keys, place) as told:
                    if older is not None:
                        _end(older)
                    told.sendall(STAY)
            finally:
                if older is not None:
                    os.close(older)
    except (BrokenPipeError, ConnectionResetError) as exc:
        raise ReaderFailed(reason="start") from exc
    except OSError as exc:
        path = runtime_directory() if directory is None else directory
        raise ReaderFailed(reason="socket", path=str(path), errno=exc.errno) from exc
    finally:
        keys.wipe()
    for each in [] if directory is not None else runtime_directories()[1:]:
        with contextlib.suppress(SocketRefused, ReaderFailed, OSError):  # `lock` tells
            _lock(vault_id, each)
    try:
        session = Session.find(vault_id, directory)
        if session is None:
            raise ReaderFailed(reason="start")
        with session:
            return session.about
    except BaseException:
        # Nobody is told of it: then it is not to be, whatever stopped this.
        with contextlib.suppress(SocketRefused, ReaderFailed, OSError):
            lock(vault_id, directory)
        raise


def find(vault_id: bytes, directory: Path | None = None) -> Session | None:
    """The session of this vault, or None when it is locked. Raises as `Session.find`."""
    return Session.find(vault_id, directory)


def lock(vault_id: bytes, directory: Path | None = None) -> bool:
    """Ends the session of this vault; whether there was one. When it returns, the process that held the keys is gone.

    `directory`: of the sockets; None for every one that this user's may be in.

    Raises:
        SocketRefused: what is in its place is not this user's.
        ReaderFailed: it could not be ended.
    """
    return bool(lock_every([vault_id], directory))


def lock_every(vault_ids: Sequence[bytes] | None, directory: Path | None = None) -> list[bytes]:
    """`lock` of each of these vaults, None: of every one that there is; those that had a session.

    What cannot be looked at keeps no other session open: all are tried, then the first trouble is raised.
    """
    ended, troubles = set[bytes](), list[Exception]()

    @contextlib.contextmanager
    def tried() -> Iterator[None]:
        try:
            yield
        except (SocketRefused, ReaderFailed, OSError) as trouble:
            troubles.append(trouble)

    for each in runtime_directories() if directory is None else [directory]:
        with tried():
            for vault_id in present(each) if vault_ids is None else vault_ids:
                with tried():
                    if _lock(vault_id, each):
                        ended.add(vault_id)
    if troubles:
        raise troubles[0]
    return sorted(ended)


def _lock(vault_id: bytes, directory: Path) -> bool:
    place = Place.open(directory)
    if place is None:
        return False
    with place, place.alone(lock_name(vault_id)):
        listening = _listening(place, socket_name(vault_id))
        if listening is not None:
            try:
                _end(listening)
            finally:
                os.close(listening)
        place.remove(socket_name(vault_id))
        return listening is not None


def _place(directory: Path | None) -> Place:
    place = Place.open(directory, make=True)
    if place is None:
        raise ReaderFailed(reason="start")  # made, and gone again: the user is logging out
    return place


@contextlib.contextmanager
def _started(keys: SessionKeys, place: Place) -> Iterator[socket.socket]:
    """The process, told the keys and ready, for the block to say that it is to stay; else it ends by itself."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = _spawn(theirs.fileno())
        try:
            ours.settimeout(PATIENCE)
            _tell(ours, keys, place)
            status, _, number = READY.unpack(_receive(ours, READY.size))
        except TimeoutError as exc:
            raise ReaderFailed(reason="silent") from exc
        finally:
            ours_ended = _reap(process)
        if status == READY_SOCKET:
            raise ReaderFailed(reason="socket", path=str(place.path), errno=number)
        if status != READY_DONE or not ours_ended:
            raise ReaderFailed(reason="start")
        yield ours


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    # -P: a module in the working directory must not be taken for one of ours. Everything else that is open is closed.
    argv = [sys.executable, "-P", "-m", MODULE, str(descriptor)]
    nothing = subprocess.DEVNULL
    try:
        return subprocess.Popen(
            argv,
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            cwd="/",
            pass_fds=[descriptor],
            start_new_session=True,
        )
    except OSError as exc:
        raise ReaderFailed(reason="start", errno=exc.errno) from exc


def _tell(ours: socket.socket, keys: SessionKeys, place: Place) -> None:
    seeds = keys.seeds
    ours.sendall(Hello(keys.facts, os.fsencode(place.path), len(seeds.open)).encode())
    for number, seed in enumerate(seeds.open, 1):
        ours.sendall(EPOCH.pack(number))
        ours.sendall(seed)
    ours.sendall(seeds.checkpoint)


def _receive(ours: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = ours.recv(size - len(received))
        if not piece:
            raise ReaderFailed(reason="start")
        received += piece
    return received


def _reap(process: subprocess.Popen[bytes]) -> bool:
    """What was started leaves the work to a process of its own and ends at once; whether it did."""
    try:
        return process.wait(PATIENCE) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def _listening(place: Place, name: str) -> int | None:
    """A descriptor of the process that listens there, if one does."""
    try:
        connection = place.connect(name, PATIENCE)
    except TimeoutError as exc:
        raise ReaderFailed(reason="silent", path=str(place.path / name)) from exc
    if connection is None:
        return None
    with connection:
        pid, _ = peer(connection)
        if not pid:
            raise ReaderFailed(reason="running")  # in a container, or outside of ours: it has no number here
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        # Had it ended before it was opened, the number could be another process's by now, and the connection cut.
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLHUP)
        if pid == os.getpid() or poll.poll(0):
            os.close(process)
            return None
        return process


def _end(process: int) -> None:
    """Ends a process, and returns when it is gone. SIGKILL: nothing it could still do is wanted."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if not poll.poll(PATIENCE * 1000):
        raise ReaderFailed(reason="running")
