"""How things stand with a running daemon: what it says of itself, as values. Pure.

These are the shapes that go over the control socket (docs/control.md): names of sources and providers, codes and
figures; no secret, and no path of a user's file. Times are wall clock, UNIX nanoseconds UTC, for showing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.service.events import Plain


class Mode(StrEnum):
    """What the daemon is, as a whole."""

    STARTING = "starting"  # it serves, and does not work yet
    RUNNING = "running"
    LENT = "lent"  # a command has the state directory
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that is remembered: its code, and what is known of it. Words are made of it where it is shown."""

    code: str
    params: Mapping[str, Plain] = field(default_factory=dict)
    since_ns: int | None = None

    @classmethod
    def of(cls, error: ChatkeepError, since_ns: int | None = None) -> Fault:
        """What is plain in an error; anything else in its parameters as text."""
        return cls(error.code, {name: _plain(value) for name, value in error.params.items()}, since_ns)


@dataclass(frozen=True, slots=True)
class Doing:
    """Something that runs now. `what`: `snapshot`, `upload`, `job` or `sweep`; `subject`: of which source, to which
    provider, which job. `done` and `total` are bytes; total None: not known."""

    what: str
    subject: str
    since_ns: int
    done: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class SourceStanding:
    """One source.

    Attributes:
        watched: `events` (changes are noticed), `polling` (looked at from time to time), `missing` (not there), `off`.
        changed: whether something is known or supposed to have changed since the last snapshot began.
        next_ns: when it is captured next, as things are; None: it is being captured.
        looked_ns: when a snapshot last ended well, also one that found nothing.
        fault: why the last one failed.
    """

    name: str
    watched: str
    changed: bool = False
    next_ns: int | None = None
    looked_ns: int | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class ProviderStanding:
    """One provider.

    Attributes:
        waiting: bytes that it does not have yet.
        acknowledged_ns: when the newest snapshot that it has was taken; None: it has none.
        behind_ns: when the oldest snapshot that it lacks was taken; None: it lacks none. The lag is now less this.
        left_behind_ns: since when it is not waited for: it is brought up from another provider when it is back. None:
            it is waited for.
        next_ns: when an upload is tried next, after a failure.
        fault: why the last upload failed.
    """

    name: str
    required: bool
    waiting: int = 0
    acknowledged_ns: int | None = None
    behind_ns: int | None = None
    left_behind_ns: int | None = None
    next_ns: int | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class SessionStanding:
    """The session as the daemon sees it.

    Attributes:
        unlocked: whether there is one.
        uploads: whether uploads may run; False: they are held until somebody unlocks.
        since_ns, until_ns: of the session that there is.
        locked: why the last one ended, None when there was none.
    """

    unlocked: bool
    uploads: bool
    since_ns: int | None = None
    until_ns: int | None = None
    locked: str | None = None


@dataclass(frozen=True, slots=True)
class OutboxStanding:
    """What waits on this device, in bytes. `full`: nothing more is captured until some of it is sent."""

    waiting: int
    limit: int | None
    full: bool


@dataclass(frozen=True, slots=True)
class JobStanding:
    """One job. `compare` is all sources together: the earliest `next_ns`, the oldest `looked_ns`, any `fault`.

    Attributes:
        every_s: seconds, at the latest; None: only when asked for.
        next_ns: None: only when asked for, or all of it runs now.
        last_ns: None: it never ran; of `compare`: some source was never compared, as far as is known.
        due: its time has come, and it waits for something, for one until the vault is unlocked.
        fault: what the last run came to, None: it was well, or never ran; of `compare` with the `source` it is about.
    """

    name: str
    every_s: float | None
    next_ns: int | None = None
    last_ns: int | None = None
    due: bool = False
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class ProblemStanding:
    """Something that a person should know, as judged by `telling`: kind, what it is about, since when."""

    problem: str
    subject: str
    since_ns: int
    values: Mapping[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything.

    Attributes:
        version: of the program.
        pid: of the daemon.
        since_ns: when it was started.
        vault: id, in hex.
        config: the file it was configured with; `config_ns`: when that was read; `config_fault`: why what is there now
            was refused, and the one before goes on.
        lent: to which command, when `mode` says so.
    """

    version: str
    pid: int
    since_ns: int
    mode: Mode
    vault: str
    session: SessionStanding
    outbox: OutboxStanding
    config: str | None = None
    config_ns: int | None = None
    config_fault: Fault | None = None
    lent: str | None = None
    doing: tuple[Doing, ...] = ()
    sources: tuple[SourceStanding, ...] = ()
    providers: tuple[ProviderStanding, ...] = ()
    jobs: tuple[JobStanding, ...] = ()
    problems: tuple[ProblemStanding, ...] = ()


def _plain(value: object) -> Plain:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
