"""What was told, and what is yet to be, over a restart: a small file in the state directory.

Nothing depends on it. Lost or damaged, something is told once more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chatkeep.providers.durable import make_directories, write_durably

_FOLDER: Final = "telling"
_FILE: Final = "notes.json"
_VERSION: Final = 1
_LARGEST: Final = 1 << 20
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Memory:
    """The file. No lock: one daemon has the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._file: Final = state_dir / _FOLDER / _FILE

    def read(self) -> dict[str, Any]:
        """What was written; nothing when there is no such file, or it is not as it was written."""
        try:
            # By an opener: what is no file after all is closed again.
            with open(self._file, "rb", opener=lambda path, _: os.open(path, _FLAGS)) as stream:
                raw = stream.read(_LARGEST + 1)
            found = json.loads(raw) if len(raw) <= _LARGEST else None
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) and found.get("version") == _VERSION else {}

    def write(self, plain: Mapping[str, Any]) -> None:
        """Keeps this and nothing else; a disk that is full keeps what was there."""
        if not self._file.parent.parent.is_dir():
            return  # the records were taken away: one that holds nothing else must not look like them
        try:
            make_directories(self._file.parent, 0o700)
            write_durably(self._file, json.dumps({"version": _VERSION, **plain}).encode())
        except OSError:
            return
