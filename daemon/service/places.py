"""Where a session's socket is: in a directory of this user alone, which is looked at before anything is said there.

Whoever could put a socket in the way would be asked, and told, in place of the session.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from chatkeep.config.places import default_state_dir
from chatkeep.daemon.service.errors import SocketRefused

_NAME: Final = "chatkeep"
_OTHERS: Final = 0o077
_NAP: Final = 0.01  # seconds between two tries to connect to one who is flooded
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred of unix(7)


def runtime_directory() -> Path:
    """The directory of the sockets, which need not exist yet.

    Below `$XDG_RUNTIME_DIR` or `/run/user/<uid>`, which go when the user logs out; where neither is this user's own,
    `run` in the usual state directory. It depends on no configuration: every command of this user looks there.
    """
    return runtime_directories()[0]


def runtime_directories() -> list[Path]:
    """Every directory that would be the one of the sockets in another environment of this user: first the one that is
    it in this one. A session that was begun from cron, or before the user logged in, is in another, and must be found
    to be ended. `/run/chatkeep/<user>` is that of a daemon that the system started (systemd/chatkeep@.service).
    """
    ours = os.geteuid()
    found = []
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{ours}", *_of_the_system(ours)):
        # Left from another user by `su` or `sudo -E` it is not ours, and we would leave files in it that it cannot
        # remove.
        with contextlib.suppress(OSError, ValueError):
            facts = os.stat(base)
            if os.path.isabs(base) and stat.S_ISDIR(facts.st_mode) and facts.st_uid == ours:
                found.append(Path(base) / _NAME)
    return list(dict.fromkeys([*found, default_state_dir() / "run"]))


def _of_the_system(uid: int) -> list[str]:
    with contextlib.suppress(KeyError, ValueError):  # a user without a name, as in a container
        return [f"/run/chatkeep/{pwd.getpwuid(uid).pw_name}"]
    return []


class Place:
    """The directory of the sockets, open, and found to be this user's alone. To be closed.

    Attributes:
        path: for messages, and for watching whether it is still there.
        descriptor: of the directory.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path: Final = path
        self.descriptor: Final = descriptor

    @classmethod
    def open(cls, path: Path | None = None, *, make: bool = False) -> Self | None:
        """The directory, or None when it is not there; `make`: it is made then.

        Raises:
            SocketRefused: it is another user's, open to others, or not a directory.
            OSError: it could not be made or opened.
        """
        path = runtime_directory() if path is None else path
        if make:
            os.makedirs(path.parent, mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno not in {errno.ELOOP, errno.ENOTDIR, errno.EACCES}:
                raise
            raise SocketRefused(path=str(path), reason=_what_is_at(path)) from exc
        try:
            facts = os.fstat(descriptor)
            if facts.st_uid != os.geteuid():
                raise SocketRefused(path=str(path), reason="owner")
            if facts.st_mode & _OTHERS:
                raise SocketRefused(path=str(path), reason="mode")
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def close(self) -> None:
        """Closes the directory."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def reach(self, name: str) -> str:
        """A path to a name in it, for sockets: theirs may be 107 bytes long, and this one always fits. It also leads
        into the very directory that was looked at, whatever stands at its path by now."""
        return f"/proc/self/fd/{self.descriptor}/{name}"

    def connect(self, name: str, seconds: float) -> socket.socket | None:
        """A connection to the socket of this name; None when nobody listens there.

        Raises:
            SocketRefused: the socket, or who listens, is not this user's.
            TimeoutError: it listens, and takes nobody.
            OSError: anything else.
        """
        try:
            facts = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISSOCK(facts.st_mode):
            raise SocketRefused(path=str(self.path / name), reason=_kind(facts.st_mode))
        if facts.st_uid != os.geteuid():
            raise SocketRefused(path=str(self.path / name), reason="owner")
        end = time.monotonic() + seconds
        while True:
            try:
                return self._connected(name, seconds)
            except (ConnectionRefusedError, FileNotFoundError):
                return None
            except BlockingIOError as exc:
                # So many wait there that it does not even take another; the system waits for nobody here.
                if time.monotonic() >= end:
                    raise TimeoutError from exc
                time.sleep(_NAP)

    def _connected(self, name: str, seconds: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(seconds)
            connection.connect(self.reach(name))
            if peer(connection)[1] != os.geteuid():
                raise SocketRefused(path=str(self.path / name), reason="peer")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Of those who begin or end a session one at a time is in the block. The file stays: to remove it would let
        two in."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self.descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Removes a name, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)


def socket_name(vault_id: bytes) -> str:
    """The name of the socket of a vault's session."""
    return f"{vault_id.hex()}.sock"


def vault_of(name: str) -> bytes | None:
    """The vault whose socket has this name; None for any other name."""
    stem, _, suffix = name.partition(".")
    if suffix != "sock" or len(stem) != 32:
        return None
    try:
        return bytes.fromhex(stem)
    except ValueError:
        return None


def lock_name(vault_id: bytes) -> str:
    """The name of the file that is locked while a session of this vault begins or ends."""
    return f"{vault_id.hex()}.lock"


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end: of a listening socket those who called `listen`, whoever has it by now."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def _what_is_at(path: Path) -> str:
    try:
        facts = os.lstat(path)
    except OSError:
        return "owner"  # it may not even be looked at
    if stat.S_ISLNK(facts.st_mode) or not stat.S_ISDIR(facts.st_mode):
        return _kind(facts.st_mode)
    return "owner" if facts.st_uid != os.geteuid() else "mode"


def _kind(mode: int) -> str:
    return "symlink" if stat.S_ISLNK(mode) else "kind"
