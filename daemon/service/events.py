"""What happens in the daemon, as it is told: to the log, to `status --watch`, to metrics, to whoever is to be warned.

Events are for telling, never for working: nothing that must happen depends on one being received. They hold names of
sources and providers, codes and figures; no secret, and no path of a user's file except in `detail`, which stays in a
log at debug level.
"""

from __future__ import annotations

import math
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Self

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.service.moment import Moment, now

Plain = str | int | float | bool | None | tuple["Plain", ...]


class Kind(StrEnum):
    """What happened. `CARRIES` says which values each one has at least."""

    STARTED = "started"
    STOPPING = "stopping"
    RELOADED = "reloaded"
    RELOAD_REFUSED = "reload-refused"
    SNAPSHOT_BEGUN = "snapshot-begun"
    SNAPSHOT_MADE = "snapshot-made"
    SNAPSHOT_NOTHING = "snapshot-nothing"  # compared, and nothing had changed
    SNAPSHOT_FAILED = "snapshot-failed"
    UPLOAD_BEGUN = "upload-begun"
    UPLOAD_PROGRESS = "upload-progress"
    UPLOAD_DONE = "upload-done"  # the provider has everything that there was
    UPLOAD_FAILED = "upload-failed"
    PROVIDER_BACK = "provider-back"  # an upload got through to one that had failed before
    LEFT_BEHIND = "left-behind"  # what it lacks left the outbox: it is brought up from another provider when it is back
    CAUGHT_UP = "caught-up"
    HELD = "held"  # uploads wait for an unlock
    UNLOCKED = "unlocked"
    LOCKED = "locked"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    JOB_BEGUN = "job-begun"
    JOB_DONE = "job-done"
    JOB_FAILED = "job-failed"
    WATCH_DEGRADED = "watch-degraded"  # a source is looked at from time to time only
    WATCH_RESTORED = "watch-restored"
    OVERFLOW = "overflow"  # the system lost events; everything is compared
    OUTBOX_FULL = "outbox-full"
    OUTBOX_FREED = "outbox-freed"
    PROBLEM = "problem"  # something that a person should know, as judged from what happened
    PROBLEM_OVER = "problem-over"
    COMMAND_ENDED = "command-ended"  # the program that is given problems, and what it wrote
    SENT_IN_CLEAR = "sent-in-clear"  # an address of http: what is told there can be read on the way
    LIBRARY = "library"  # one of the libraries complains
    LISTENER_LOST = "listener-lost"  # who listened here failed at it and hears no more


CARRIES: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        Kind.STARTED: ("version",),
        Kind.STOPPING: ("reason",),
        Kind.RELOADED: (),
        Kind.RELOAD_REFUSED: ("code",),
        Kind.SNAPSHOT_BEGUN: ("source",),
        # snapshot: its number. bytes: sealed by it. pending: whether more of the source waits for the next one.
        Kind.SNAPSHOT_MADE: ("source", "snapshot", "taken_ns", "bytes", "pending"),
        Kind.SNAPSHOT_NOTHING: ("source",),
        Kind.SNAPSHOT_FAILED: ("source", "code"),
        Kind.UPLOAD_BEGUN: ("provider", "waiting"),  # bytes that it does not have yet
        Kind.UPLOAD_PROGRESS: ("provider", "done", "total"),  # bytes
        # bytes: sent by this upload. waiting: bytes still to be sent. acknowledged_ns: when the newest snapshot that
        # the provider has was taken, None before the first.
        Kind.UPLOAD_DONE: ("provider", "bytes", "waiting", "acknowledged_ns"),
        Kind.UPLOAD_FAILED: ("provider", "code"),
        Kind.PROVIDER_BACK: ("provider",),
        Kind.LEFT_BEHIND: ("provider",),
        Kind.CAUGHT_UP: ("provider",),
        Kind.HELD: ("waiting",),
        Kind.UNLOCKED: (),
        Kind.LOCKED: ("reason",),
        Kind.SUSPENDED: (),
        Kind.RESUMED: (),
        Kind.JOB_BEGUN: ("job",),
        Kind.JOB_DONE: ("job",),
        Kind.JOB_FAILED: ("job", "code"),
        Kind.WATCH_DEGRADED: ("source", "reason"),
        Kind.WATCH_RESTORED: ("source",),
        Kind.OVERFLOW: (),
        Kind.OUTBOX_FULL: ("waiting", "limit"),
        Kind.OUTBOX_FREED: ("waiting", "limit"),
        Kind.PROBLEM: ("problem", "subject"),
        Kind.PROBLEM_OVER: ("problem", "subject"),
        Kind.COMMAND_ENDED: ("status",),
        Kind.SENT_IN_CLEAR: ("channel",),
        Kind.LIBRARY: ("library",),
        Kind.LISTENER_LOST: ("listener",),
    }
)

# Parameters of errors that say what is wrong and no path of anybody's file; all others go into `detail`.
_TOLD: Final = frozenset(
    {"provider", "source", "errno", "seconds", "limit", "free", "needed", "size", "count", "epoch"}
)
_WORDS: Final = frozenset({"reason", "what"})  # told when they are words of ours
_WORD: Final = re.compile(r"[a-z0-9-]{1,40}")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        at: when, in both clocks.
        values: plain values, lists as tuples; copied, and not to be changed.
        detail: the same, with what is only for a log at debug level: paths.

    Raises TypeError when made with a value that is not plain, or with a number that JSON does not have.
    """

    kind: Kind
    at: Moment
    values: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("values", "detail"):
            fixed = {key: _fixed(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(fixed))

    @classmethod
    def now(cls, kind: Kind, **values: Plain) -> Self:
        """An event of this instant."""
        return cls(kind, now(), values)

    @classmethod
    def failed(cls, kind: Kind, at: Moment, error: ChatkeepError, **values: Plain) -> Self:
        """An event of something that failed: `values`, and the code, disposition and harmless parameters of the error;
        its other parameters are in `detail`, as text."""
        told: dict[str, object] = {"code": error.code, "disposition": error.disposition.value}
        detail: dict[str, str] = {}
        for name, value in error.params.items():
            if _harmless(name, value):
                told[name] = value
            else:
                detail[name] = str(value)
        return cls(kind, at, {**told, **values}, detail)

    def missing(self) -> list[str]:
        """Values that its kind should carry, and it does not."""
        return [name for name in CARRIES[self.kind] if name not in self.values]

    def plain(self) -> dict[str, object]:
        """As JSON has it: kind, wall_ns, boot, values. Without detail."""
        return {"kind": str(self.kind), "wall_ns": self.at.wall_ns, "boot": self.at.boot, "values": dict(self.values)}


def _fixed(value: object) -> Plain:
    if isinstance(value, list | tuple):
        return tuple(_fixed(item) for item in value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)  # the text of an enumeration too
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise TypeError(type(value).__name__)


def _harmless(name: str, value: object) -> bool:
    if name in _WORDS:
        return isinstance(value, str) and _WORD.fullmatch(value) is not None
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return name in _TOLD and isinstance(value, str | int | float)


class Bus:
    """From those to whom something happens to those who tell it. For any thread.

    `publish` never waits and never raises: a backup must not fail, or take longer, because somebody listens. What it
    calls must therefore return at once; what raises is not called again, and the others hear of it (`listener-lost`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[int, tuple[str, Callable[[Event], object]]] = {}
        self._next = 0

    def subscribe(self, listener: Callable[[Event], object], name: str = "") -> Callable[[], None]:
        """Calls `listener` with every event from now on, in the thread that publishes it; events of one thread come in
        their order. Returns what ends that. `name`: what it is called should it be lost."""
        with self._lock:
            number = self._next
            self._next += 1
            self._listeners[number] = (name, listener)

        def end() -> None:
            self._remove(number)

        return end

    def publish(self, event: Event) -> None:
        """Tells everybody."""
        telling = deque([event])
        while telling:
            event = telling.popleft()
            with self._lock:
                listeners = list(self._listeners.items())
            for number, (name, listener) in listeners:
                try:
                    listener(event)
                except Exception as exc:
                    if self._remove(number):  # once, also when several threads find out together
                        values = {"listener": name, "error": type(exc).__name__}
                        telling.append(Event(Kind.LISTENER_LOST, event.at, values))

    def _remove(self, number: int) -> bool:
        with self._lock:
            return self._listeners.pop(number, None) is not None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a stream had: how many events were dropped before these, and these, oldest first."""

    dropped: int
    events: tuple[Event, ...]


class Stream:
    """Events for a reader that may be slow, kept for it up to a bound. To be closed.

    When there are more, upload progress is dropped first, then the oldest, and the reader is told how many. `wake`,
    called in the thread that publishes, says that there is something: a loop gives `call_soon_threadsafe`.
    """

    def __init__(self, bus: Bus, limit: int = 1000, wake: Callable[[], object] | None = None, name: str = "stream"):
        self._limit, self._wake = limit, wake
        self._arrived = threading.Condition()
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._closed = False
        self._end = bus.subscribe(self._take_in, name)

    def take(self, seconds: float = 0.0) -> Batch:
        """Everything there is, after waiting up to `seconds` for the first; empty when nothing came or it is closed."""
        with self._arrived:
            if seconds > 0:
                self._arrived.wait_for(lambda: self._events or self._closed, seconds)
            batch = Batch(self._dropped, tuple(self._events))
            self._events.clear()
            self._dropped = 0
            return batch

    def close(self) -> None:
        """No event comes any more; who waits is woken."""
        self._end()
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _take_in(self, event: Event) -> None:
        with self._arrived:
            if self._closed:
                return
            if len(self._events) >= self._limit:
                self._drop()
            self._events.append(event)
            self._arrived.notify_all()
        if self._wake is not None:
            self._wake()

    def _drop(self) -> None:
        self._dropped += 1
        for at, event in enumerate(self._events):
            if event.kind is Kind.UPLOAD_PROGRESS:
                del self._events[at]
                return
        self._events.popleft()
