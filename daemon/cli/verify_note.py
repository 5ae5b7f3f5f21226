"""What the last verification came to, kept in the state directory for `chatkeep status`: one that a person asked for as
well as one of the daemon's."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Final

FOLDER: Final = "verify"
_FILE: Final = "last.json"


@dataclasses.dataclass(frozen=True, slots=True)
class VerifyNote:
    """The last one: when (ns); whether everything was opened too; whether all was as it was sealed, everywhere; objects
    that were looked at; whether it is not good only because storage could not be reached."""

    at: int
    deep: bool
    good: bool
    objects: int
    away: bool = False


def remember(state_dir: Path, note: VerifyNote) -> None:
    """Keeps it, if that can be: a verification is no worse for a disk that is full."""
    from chatkeep.providers.durable import make_directories, write_durably

    with contextlib.suppress(OSError):
        make_directories(state_dir / FOLDER, 0o700)
        write_durably(state_dir / FOLDER / _FILE, json.dumps(dataclasses.asdict(note)).encode())


def recall(state_dir: Path) -> VerifyNote | None:
    """The last one; None where none was made, or where the file is not one of ours."""
    try:
        note = VerifyNote(**json.loads((state_dir / FOLDER / _FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    numbers, truths = (note.at, note.objects), (note.deep, note.good, note.away)
    whole = all(type(one) is int for one in numbers) and all(type(one) is bool for one in truths)
    return note if whole else None
