"""When a way in last opened something on this device: the time of an empty file per slot, in the state directory.

Of use for telling which ways in are still at hand, and for nothing else: it may be lost, and it is nobody's proof.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.frame import Frame

_DIRECTORY: Final = "used"


def state_dir(frame: Frame) -> Path | None:
    """Where this device keeps it; None without a configuration, as on a machine that only restores."""
    try:
        return frame.config().state_dir
    except ChatkeepError:
        return None


def note(directory: Path | None, slot_id: bytes) -> None:
    """Notes that this slot opened something now. On a device without a state directory nothing is noted."""
    if directory is None:
        return
    file = directory / _DIRECTORY / slot_id.hex()
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        # Nothing has to be locked: whoever comes second leaves the later time.
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        os.utime(file, follow_symlinks=False)


def last(directory: Path | None, slot_id: bytes) -> int | None:
    """When it last did (ns since 1970 UTC); None when that is not known."""
    if directory is None:
        return None
    try:
        return (directory / _DIRECTORY / slot_id.hex()).lstat().st_mtime_ns
    except OSError:
        return None


def forget(directory: Path, slot_ids: Iterable[bytes]) -> None:
    """Drops what is known of slots that are none any more."""
    for slot_id in slot_ids:
        with contextlib.suppress(OSError):
            (directory / _DIRECTORY / slot_id.hex()).unlink()
