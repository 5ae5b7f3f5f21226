"""What became of the jobs, remembered in the state directory: from when the next time counts, and the last result.

Nothing depends on a note being there: damaged or lost, its job is one that never ran, and does so soon.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from chatkeep.providers.durable import make_directories, write_durably

_LOG: Final = logging.getLogger(__name__)
_FOLDER: Final = "jobs"
_FILE: Final = "notes.json"
_VERSION: Final = 1
_LARGEST: Final = 1 << 20
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_NS: Final = 1 << 63


class Outcome(StrEnum):
    """What a run came to."""

    GOOD = "good"  # done, and all is as it should be
    BAD = "bad"  # done, and something is wrong: `code` says what
    FAILED = "failed"  # it could not be done to the end
    PUT_OFF = "put-off"  # the vault was locked meanwhile, or the daemon ended: no run at all


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a run ended.

    Attributes:
        code: of the error or of the worst finding, None when all was well; `params` are its parameters, plain.
        figures: numbers by name, for showing.
        checked: providers of which everything that was to be looked at was.
    """

    outcome: Outcome
    code: str | None = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    figures: Mapping[str, int] = field(default_factory=dict)
    checked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobNote:
    """One job. Times are wall clock, UNIX nanoseconds, as the clock was then.

    Attributes:
        counts_ns: from when its interval counts: the last run, or less after one that failed.
        last_ns: when the last run ended, None before the first; `seconds` is how long it took.
        good_ns: when one last ended well.
        outcome, code, params, figures: of the last run.
        checked_ns: when each provider was last looked at to the end.
        failures: runs in a row that could not be done.
    """

    counts_ns: int
    last_ns: int | None = None
    seconds: float = 0.0
    good_ns: int | None = None
    outcome: Outcome | None = None
    code: str | None = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    figures: Mapping[str, int] = field(default_factory=dict)
    checked_ns: Mapping[str, int] = field(default_factory=dict)
    failures: int = 0


class JobNotes:
    """The file of the notes. No lock: one daemon has the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._file: Final = state_dir / _FOLDER / _FILE

    def read(self) -> dict[str, JobNote]:
        """By job; without those that are not as they were written."""
        try:
            # By an opener: what is no file after all is closed again.
            with open(self._file, "rb", opener=lambda path, _: os.open(path, _FLAGS)) as stream:
                raw = stream.read(_LARGEST + 1)
            found = json.loads(raw) if len(raw) <= _LARGEST else None
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as exc:
            _LOG.warning("job-notes-unreadable: %s", type(exc).__name__)
            return {}
        if not isinstance(found, dict) or found.get("version") != _VERSION or not isinstance(found.get("jobs"), dict):
            _LOG.warning("job-notes-unreadable: content")
            return {}
        notes = {name: note for name, row in found["jobs"].items() if (note := _parsed(row)) is not None}
        if len(notes) < len(found["jobs"]):
            _LOG.warning("job-notes-unreadable: %d of them", len(found["jobs"]) - len(notes))
        return notes

    def write(self, notes: Mapping[str, JobNote]) -> bool:
        """Keeps these and no others; whether that worked. The file is the old one or the new one at any instant."""
        plain = {"version": _VERSION, "jobs": {name: asdict(note) for name, note in notes.items()}}
        try:
            make_directories(self._file.parent, 0o700)
            write_durably(self._file, json.dumps(plain).encode())
        except OSError as exc:
            # A full disk. The daemon that runs goes by what it knows; after a restart the job is early, never lost.
            _LOG.warning("job-notes-not-kept: %s", os.strerror(exc.errno or 0))
            return False
        return True


def _parsed(row: Any) -> JobNote | None:
    """A note as it was written; None for anything else. What is not there has its default."""
    try:
        outcome = row.get("outcome")
        note = JobNote(
            counts_ns=_time(row["counts_ns"]),
            last_ns=_perhaps(row.get("last_ns")),
            seconds=float(min(max(row.get("seconds", 0.0), 0.0), 1e9)),
            good_ns=_perhaps(row.get("good_ns")),
            outcome=None if outcome is None else Outcome(outcome),
            code=_text(row.get("code")),
            params={_sure(name): value for name, value in row.get("params", {}).items() if _plain(value)},
            figures={_sure(name): _time(value) for name, value in row.get("figures", {}).items()},
            checked_ns={_sure(name): _time(value) for name, value in row.get("checked_ns", {}).items()},
            failures=min(max(int(row.get("failures", 0)), 0), 1000),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return note


def _time(value: Any) -> int:
    if type(value) is not int or not -_MOST_NS < value < _MOST_NS:
        raise ValueError
    return value


def _perhaps(value: Any) -> int | None:
    return None if value is None else _time(value)


def _text(value: Any) -> str | None:
    return None if value is None else _sure(value)


def _sure(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _plain(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
