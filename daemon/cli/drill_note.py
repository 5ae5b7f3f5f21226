"""What the last drill of each source came to, kept in the state directory for `chatkeep status`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "drill"
_FILE: Final = "last.json"


@dataclasses.dataclass(frozen=True, slots=True)
class DrillNote:
    """One source's last drill: when (ns); the snapshot's number; whether everything that was tried is proven, and why
    not: codes; files and databases that came back; bytes; seconds."""

    at: int
    seq: int
    good: bool
    codes: tuple[str, ...]
    files: int
    databases: int
    size: int
    seconds: float


def remember(state_dir: Path, fresh: Mapping[str, DrillNote]) -> None:
    """Keeps these, and of other sources what is there. Raises OSError."""
    from chatkeep.providers.durable import write_durably

    known = recall(state_dir) | dict(fresh)
    plain = {source: dataclasses.asdict(note) for source, note in known.items()}
    write_durably(state_dir / FOLDER / _FILE, json.dumps(plain).encode())


def recall(state_dir: Path) -> dict[str, DrillNote]:
    """By source. Nothing where none was made, or where the file is not one of ours: a new drill writes it anew."""
    try:
        found = json.loads((state_dir / FOLDER / _FILE).read_bytes())
        return {source: _note(**row) for source, row in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _note(*, codes: list[str], **rest: Any) -> DrillNote:
    note = DrillNote(codes=tuple(codes), **rest)
    numbers = (note.at, note.seq, note.files, note.databases, note.size, note.seconds)
    if not all(isinstance(one, int | float) for one in numbers) or not all(isinstance(one, str) for one in codes):
        raise TypeError
    return note
