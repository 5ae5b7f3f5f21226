"""What the conductor is told."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Hint:
    """Something below a source seems to have changed, or nobody knows whether it did."""

    source: str


@dataclass(frozen=True, slots=True)
class Back:
    """A source's directory is there again, or can be watched again: what failed before may do better now."""

    source: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A person wants a snapshot of a source now, and everything uploaded."""

    source: str


class How(enum.Enum):
    """How a snapshot ended."""

    MADE = "made"  # the vault has more than before
    NOTHING = "nothing"  # nothing had changed
    FAILED = "failed"  # to be tried again
    FULL = "full"  # it stopped because too much waits to be uploaded
    STOPPED = "stopped"  # because it was told to


@dataclass(frozen=True, slots=True)
class SnapshotEnded:
    """A snapshot of a source ended. `made`: snapshots that are committed, also when it failed in the end."""

    source: str
    how: How
    made: int = 0


@dataclass(frozen=True, slots=True)
class UploadEnded:
    """An upload ended. `done`: nothing was in the way; `stopped`: it was told to; `moved`: something got a receipt."""

    provider: str
    done: bool
    stopped: bool = False
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """So many bytes wait for a provider, in all: told at the start, and when it may have changed unseen."""

    provider: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """Whether the outbox is below its limit."""

    free: bool


@dataclass(frozen=True, slots=True)
class JobDue:
    """A job's time has come; `asked`: a person wants it now, whatever its time."""

    name: str
    asked: bool = False


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job ended, well or not."""

    name: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether uploads may run, and whether there is a session: what the session's rules decided."""

    uploads: bool
    session: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """The machine slept, for however long."""


@dataclass(frozen=True, slots=True)
class Lend:
    """A command wants the state directory for itself."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The state directory is ours again, and open."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The daemon ends."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Input: TypeAlias = (
    Hint
    | Back
    | Asked
    | SnapshotEnded
    | UploadEnded
    | Waiting
    | Room
    | JobDue
    | JobEnded
    | Gate
    | Resumed
    | Lend
    | Returned
    | Stop
    | Tick
)
