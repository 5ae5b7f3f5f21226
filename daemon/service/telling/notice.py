"""What is worth telling a person: that something is wrong, and that it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from chatkeep.daemon.service.events import Event, Kind
from chatkeep.daemon.service.moment import Moment


class Problem(StrEnum):
    """What can be wrong. The subject is a source, a provider, a job, a way of telling, or empty."""

    BACKUP_FAILING = "backup-failing"  # of a source
    BACKUP_OVERDUE = "backup-overdue"  # of a source: it was neither saved nor compared for much too long
    UPLOAD_FAILING = "upload-failing"  # to a provider
    UPLOAD_OVERDUE = "upload-overdue"  # to a provider: something waits, nothing moves, and nothing says why
    HELD = "held-too-long"  # uploads wait for an unlock
    UNVERIFIED = "unverified"  # what is stored was not checked for too long
    STORAGE_FULL = "storage-full"  # of a provider
    LOGIN_NEEDED = "login-needed"  # at a provider: what a login gave is not accepted any more
    KEY_REFUSED = "storage-credential-refused"  # by a provider: its key or password is not accepted
    DISK_FULL = "disk-full"  # of this machine, met by the backup of a source
    OUTBOX_FULL = "outbox-full"  # backups wait for uploads
    WATCH_DEGRADED = "watch-degraded"  # of a source: changes are noticed late
    DEVICE_REMOVED = "device-removed"  # as a source or provider shows: nothing it writes counts any more
    JOB_FAILED = "job-failed"  # verify, drill, prune
    JOB_OVERDUE = "job-overdue"
    RELOAD_REFUSED = "reload-refused"  # the configuration is wrong; the one before it is in force
    CHANNEL_BROKEN = "channel-broken"  # one of the ways that problems are told does not work


SLIGHT: Final = frozenset({Problem.WATCH_DEGRADED, Problem.RELOAD_REFUSED, Problem.CHANNEL_BROKEN})
Key = tuple[str, str]


class Said(NamedTuple):
    """A notice in words: one line, what happened, what to do about it (which may be nothing)."""

    title: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell.

    Attributes:
        problem: one of `Problem`, or the code of what the daemon itself found.
        over: it is not so any more.
        since_ns: when it began, UNIX nanoseconds.
        at: when it was found worth telling.
        times: how often it was met.
        again: it was told before, and still is so.
        values: plain values of what was met last: code, reason, provider.
    """

    problem: str
    subject: str
    over: bool
    since_ns: int
    at: Moment
    times: int = 1
    again: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    @property
    def key(self) -> Key:
        """What it is about: a later notice of the same key takes its place."""
        return self.problem, self.subject

    @property
    def slight(self) -> bool:
        """Whether it can wait: backups go on."""
        return self.problem in SLIGHT

    def event(self) -> Event:
        """As everybody who listens hears it."""
        kind = Kind.PROBLEM_OVER if self.over else Kind.PROBLEM
        mine = {"problem": str(self.problem), "subject": self.subject, "since_ns": self.since_ns, "times": self.times}
        return Event(kind, self.at, {**self.values, **mine, "again": self.again})

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "problem": str(self.problem),
            "subject": self.subject,
            "over": self.over,
            "since_ns": self.since_ns,
            "at_ns": self.at.wall_ns,
            "times": self.times,
            "again": self.again,
            "values": dict(self.values),
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any], now: Moment) -> Self:
        """What `plain` said; its instant becomes `now`, for the clock of delays began anew with the machine.

        Raises KeyError, TypeError or ValueError when it is no such thing.
        """
        return cls(
            str(plain["problem"]),
            str(plain["subject"]),
            bool(plain["over"]),
            int(plain["since_ns"]),
            now,
            int(plain["times"]),
            bool(plain["again"]),
            dict(plain["values"]),
        )
