"""Where the daemon listens, noted beside its records. One that was started with another `XDG_RUNTIME_DIR` listens in a
directory that nobody else would look in.

The note is a hint: the directory, the socket and who listens are looked at as everywhere before anything is said there.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

NOTE: Final = "daemon-place"
_MOST: Final = 4096  # bytes; longer no path is


def note(state_dir: Path, directory: Path) -> None:
    """Notes it. A disk that is full keeps no daemon from listening."""
    new = state_dir / f".{NOTE}.new"
    with contextlib.suppress(OSError):
        with open(new, "wb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600)) as stream:
            stream.write(os.fsencode(directory))
        os.replace(new, state_dir / NOTE)


def noted(state_dir: Path) -> Path | None:
    """What was noted last; None when nothing was."""
    try:
        with open(state_dir / NOTE, "rb") as stream:
            raw = stream.read(_MOST)
    except OSError:
        return None
    path = Path(os.fsdecode(raw.split(b"\0")[0]))
    return path if path.is_absolute() else None
