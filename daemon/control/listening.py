"""The place where the daemon can be asked: its socket, made for this user alone, and whether it still is there."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final, Self

from chatkeep.daemon.control.errors import ControlError, DaemonRunning
from chatkeep.daemon.control.noted import note
from chatkeep.daemon.control.wire import socket_name
from chatkeep.daemon.service.places import Place, runtime_directory

_BACKLOG: Final = 1024  # as many may come at once and wait; the system may allow less
_PATIENCE: Final = 2.0  # seconds for a daemon that may be there to take a connection


class Listening:
    """A listening socket in its place. To be closed.

    Attributes:
        path: of the socket.
        listener: it.
    """

    def __init__(self, place: Place, name: str, listener: socket.socket) -> None:
        self._place = place
        self._name = name
        self.listener: Final = listener
        self.path: Final = place.path / name
        self._made = self._there()

    @classmethod
    def begin(cls, state_dir: Path, directory: Path | None = None) -> Self:
        """Listens for those who ask for the daemon of this state directory; in place of one that is dead.

        `directory`: of the sockets; None for the usual one.

        Raises:
            DaemonRunning: one that is alive listens there, whether it answers or not.
            SocketRefused: what is there is not this user's.
            ControlError, OSError: it could not be made.
        """
        place = Place.open(directory or runtime_directory(), make=True)
        if place is None:
            raise ControlError  # made, and gone again: the user is logging out
        name = socket_name(state_dir)
        try:
            # Two that start together: the second must see the first one's socket, not replace it.
            with place.alone(f"{name}.lock"):
                _refuse_another(place, name)
                made = cls(place, name, _bound(place, name))
                note(state_dir, place.path)
                return made
        except BaseException:
            place.close()
            raise

    def stays(self) -> bool:
        """Whether the socket still is where it was made. A logout takes its directory."""
        with contextlib.suppress(OSError):
            return self._there() == self._made
        return False

    def close(self) -> None:
        """Nobody can connect any more. The name goes, if it still is this one's."""
        self.listener.close()
        with contextlib.suppress(OSError):
            if self.stays():
                self._place.remove(self._name)
        self._place.close()

    def _there(self) -> tuple[int, int, bool]:
        # By its path, not in the directory that is open: that one stays, when it is deleted, for those who have it.
        facts = os.lstat(self.path)
        return facts.st_dev, facts.st_ino, stat.S_ISSOCK(facts.st_mode)


def _refuse_another(place: Place, name: str) -> None:
    try:
        found = place.connect(name, _PATIENCE)
    except TimeoutError as exc:
        raise DaemonRunning(path=str(place.path / name)) from exc  # it hangs, and is there
    if found is not None:
        found.close()
        raise DaemonRunning(path=str(place.path / name))


def _bound(place: Place, name: str) -> socket.socket:
    """Under its name only when it takes connections: there is never a socket of ours that nobody listens at."""
    new = f"{name}.new"
    place.remove(new)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Before it has a name: made with the modes of the umask it could be connected to for an instant.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(place.reach(new))
        os.chmod(place.reach(new), 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        os.rename(new, name, src_dir_fd=place.descriptor, dst_dir_fd=place.descriptor)
    except BaseException:
        listener.close()
        raise
    return listener
