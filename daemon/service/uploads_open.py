"""That uploads are open is remembered in the directory of the sockets, so that a daemon which is started again in the
same login session goes on.

The directory goes when the user logs out, and the note with it. Where there is none that does (a service of the system,
a container), it stands in the state directory and counts until the machine is started anew, or the daemon is told of a
logout. Whoever can write there is this user, and could as well upload by other means: the note keeps uploads from
beginning by mistake, not from somebody who wants them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import Final

from chatkeep.daemon.service.errors import SocketRefused
from chatkeep.daemon.service.places import Place

_LOG: Final = logging.getLogger(__name__)
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")  # proc(5): another one for each start of the machine
_LONGEST: Final = 64


class UploadsOpen:
    """The note of one vault. Nothing here raises for what the system refuses: without the note uploads wait for the
    next unlock, and that is said where they wait.

    Args:
        directory: None for the usual one.
        boot: what tells one start of the machine from another; None for what the kernel says.
    """

    def __init__(self, vault_id: bytes, directory: Path | None = None, boot: str | None = None) -> None:
        self._name: Final = f"{vault_id.hex()}.uploads"
        self._directory = directory
        self._boot = _boot_id() if boot is None else boot

    def read(self) -> bool:
        """Whether uploads are open since an unlock of this login session."""
        try:
            place = Place.open(self._directory)
            if place is None:
                return False
            with place:
                flags, at = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, place.descriptor
                # By an opener: what is no file after all is closed again.
                with open(self._name, "rb", opener=lambda name, _: os.open(name, flags, dir_fd=at)) as stream:
                    if not _ours(os.fstat(stream.fileno())):
                        return False
                    return bool(self._boot) and stream.read(_LONGEST) == self._boot.encode()
        except (OSError, SocketRefused):
            return False

    def write(self) -> None:
        """They are."""
        if not self._boot:
            return
        try:
            place = Place.open(self._directory, make=True)
            if place is None:
                return
            with place:
                fresh = f"{self._name}.{os.getpid()}"
                place.remove(fresh)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with open(os.open(fresh, flags, 0o600, dir_fd=place.descriptor), "wb") as stream:
                    stream.write(self._boot.encode())
                # Not fsynced: after a power cut the boot id is another one, and the note says nothing.
                os.replace(fresh, self._name, src_dir_fd=place.descriptor, dst_dir_fd=place.descriptor)
        except (OSError, SocketRefused) as exc:
            _LOG.warning("uploads-open-not-kept: %s", _cause(exc))

    def forget(self) -> None:
        """They are not."""
        try:
            place = Place.open(self._directory)
            if place is not None:
                with place:
                    place.remove(self._name)
        except (OSError, SocketRefused) as exc:
            _LOG.warning("uploads-open-not-forgotten: %s", _cause(exc))


def _ours(facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o077


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return ""


def _cause(exc: OSError | SocketRefused) -> str:
    return os.strerror(exc.errno or 0) if isinstance(exc, OSError) else str(exc.params.get("reason", exc.code))
