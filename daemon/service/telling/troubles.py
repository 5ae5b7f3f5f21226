"""From what happens, and the clock, to what is worth telling a person. Pure: values and instants in, notices out.

What passes by itself is not told: a provider that cannot be reached for a minute, a file that was busy. What lasts, or
what only a person can mend, is told once, again after a day, sooner only when it changed or came back, and three times
a day at most. When it is over, that is told to whoever was told that it began.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chatkeep.daemon.service.events import Event, Kind
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.telling.notice import SLIGHT, Key, Notice, Problem

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86_400.0
TRIES: Final = 3  # failures in a row that only a person can mend: the second could still meet what the first met
LASTING: Final = HOUR  # or failing for this long, whatever it is
PATIENCE: Final = 6 * HOUR  # for what may succeed by itself: a machine is offline for an evening
SETTLING: Final = 15 * MINUTE  # after a start or a resume, before "too long" is said: there was no chance to do better
FLAPPING: Final = 5 * MINUTE  # a watch that is back by then was never worth a word
SOONEST: Final = HOUR  # between two notices about one thing, however it changes
MOST: Final = 3  # notices about one thing within a day
LAPSED: Final = DAY  # what the daemon found and nobody ever says is over: it is forgotten when not found again

# Nothing went wrong when these end a backup, an upload or a job: each has its own kind of event, or its own limit.
_NO_FAILURE: Final = frozenset(
    {"cancelled", "outbox-full", "uploads-held", "not-ready", "vault-locked", "session-outdated"}
)
# May succeed by itself, or with a disk that is plugged in when it is at hand.
_PASSING: Final = frozenset({"unavailable", "throttled", "storage-missing", "source-busy"})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# Storage does not let this device in. A key that was just made may be known there a minute later; none has expired so.
_AT_THE_DOOR: Final[Mapping[object, Problem]] = {
    "login-needed": Problem.LOGIN_NEEDED,
    "storage-credential-refused": Problem.KEY_REFUSED,
}
_CHECKS: Final = frozenset({"verify", "drill"})  # what they find, nobody may learn late
_BY_TIME: Final = frozenset(
    {Problem.BACKUP_OVERDUE, Problem.UPLOAD_OVERDUE, Problem.UNVERIFIED, Problem.JOB_OVERDUE, Problem.HELD}
)
_OURS: Final = frozenset(Problem)
# Said again by whoever starts if it is still so.
_STANDING: Final = _BY_TIME | {Problem.OUTBOX_FULL, Problem.WATCH_DEGRADED, Problem.RELOAD_REFUSED}


@dataclass(frozen=True, slots=True)
class Limits:
    """What is expected, in seconds.

    Attributes:
        sources, providers: their names.
        compare_every: how often every source is looked at, whatever happens.
        jobs: how often each one runs; those that never do are left out.
        held_after: how long uploads may wait for an unlock, or stand still.
        unverified_after: how long what is stored may go unchecked.
    """

    sources: Sequence[str]
    providers: Sequence[str]
    compare_every: float
    jobs: Mapping[str, float]
    held_after: float
    unverified_after: float


@dataclass(frozen=True, slots=True)
class Known:
    """When things last went well, before the daemon started: UNIX nanoseconds by name. What is left out never did.

    Attributes:
        compared: by source, when it was last looked at.
        jobs: when each last did what it is for.
        snapshots: by source, when the newest was taken.
        acknowledged: by provider, when the newest was taken that it has in full.
    """

    compared: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)
    snapshots: Mapping[str, int] = field(default_factory=dict)
    acknowledged: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Trouble:
    since: Moment
    due: float  # on the clock `boot`: worth telling from then
    values: Mapping[str, Any]
    met: float = 0.0  # last, on the clock `boot`
    times: int = 1
    shown: bool = False  # told, and not over since
    remembered: bool = False  # from before a start, and not met again yet


class Troubles:
    """What is wrong now, and what was told of it."""

    def __init__(self, limits: Limits, now: Moment, known: Known | None = None) -> None:
        known = Known() if known is None else known
        self._limits, self._known = limits, known
        self._open: dict[Key, _Trouble] = {}
        self._told: dict[Key, list[float]] = {}  # the last instants, newest last
        self._said: dict[Key, list[object]] = {}  # what was told then: for whether it changed
        # What never went well is expected from now on, until `remember` says since when it was.
        self._compared = {name: _age(known.compared.get(name), now) for name in limits.sources}
        self._done = {job: _age(known.jobs.get(job), now) for job in limits.jobs}
        self._verified = _age(max((known.jobs[job] for job in _CHECKS & known.jobs.keys()), default=None), now)
        self._behind: dict[str, Moment] = {}  # since when something waits for a provider and nothing moves
        self._done_bytes: dict[str, int] = {}
        self._calm = now.boot + SETTLING

    # What is asked

    def standing(self, now: Moment) -> list[Notice]:
        """What is wrong now and worth knowing, told already or not; the oldest first."""
        worth = [(key, trouble) for key, trouble in self._open.items() if self._due(key, trouble) <= now.boot]
        return sorted((self._notice(key, trouble, now) for key, trouble in worth), key=lambda one: one.since_ns)

    def well(self, now: Moment) -> bool:
        """Whether nothing is wrong that is worth knowing, but for what is slight: backups go on in spite of it."""
        return all(self._due(key, trouble) > now.boot or key[0] in SLIGHT for key, trouble in self._open.items())

    @property
    def wake_at(self) -> float:
        """When `tick` has something to do at the latest, on the clock `boot`: after what it was last given."""
        return min(
            (
                *(self._next(key, trouble) for key, trouble in self._open.items()),
                *(when for _, when, _ in self._deadlines()),
                *(self._lapses(key) for key in self._open),
                *([self._calm] if any(self._unsure(*item) for item in self._open.items()) else []),
            ),
            default=float("inf"),
        )

    # What comes in

    def take(self, event: Event) -> list[Notice]:
        """What is to be told now that this happened."""
        over = list(self._take(event))
        return over + self.tick(event.at)

    def tick(self, now: Moment) -> list[Notice]:
        """What is to be told by now."""
        notices = []
        self._meet_deadlines(now)
        for key, trouble in list(self._open.items()):
            if now.boot >= self._calm and self._unsure(key, trouble):
                notices += self._clear(now, key)
        for key in [key for key in self._open if self._lapses(key) <= now.boot]:
            del self._open[key]  # and nobody is told that it is over: nobody knows
        self._meet_deadlines(now)  # of what the one that is over stood before
        for key, trouble in self._open.items():
            if self._next(key, trouble) <= now.boot:
                notices.append(self._tell(key, trouble, now))
        return notices

    def slept(self, now: Moment) -> None:
        """The machine did nothing until now: for a while nothing is said to take too long."""
        self._calm = max(self._calm, now.boot + SETTLING)

    def configure(self, limits: Limits, now: Moment) -> list[Notice]:
        """Goes on with other limits. What was wrong with something that is not configured any more is over."""
        self._limits = limits
        self._compared = {name: self._compared.get(name, now) for name in limits.sources}
        self._done = {job: self._done.get(job, now) for job in limits.jobs}
        self._behind = {name: when for name, when in self._behind.items() if name in limits.providers}
        gone = [key for key in self._open if not self._concerns(key) and key[0] != Problem.CHANNEL_BROKEN]
        self._told = {key: told for key, told in self._told.items() if key not in gone}
        return [notice for key in gone for notice in self._clear(now, key)]

    def broken(self, channel: str, now: Moment, values: Mapping[str, Any]) -> list[Notice]:
        """A way of telling does not work."""
        self._meet((Problem.CHANNEL_BROKEN, channel), now, now.boot, values)
        return self.tick(now)

    def mended(self, channel: str, now: Moment) -> list[Notice]:
        """It works, or is not used any more."""
        return self._clear(now, (Problem.CHANNEL_BROKEN, channel))

    # What is remembered over a restart

    def plain(self, now: Moment) -> dict[str, Any]:
        """What `remember` wants to be given after a restart, as JSON has it."""
        told = {key: times for key, times in self._told.items() if times[-1] > now.boot - DAY}
        since = {"compared": self._compared, "done": self._done, "behind": self._behind}
        return {
            "since_ns": {name: {key: at.wall_ns for key, at in of.items()} for name, of in since.items()},
            "verified_ns": self._verified.wall_ns,
            "troubles": [
                {
                    "shown": key in self._open and self._open[key].shown,
                    "due_ns": _wall(self._open[key].due, now) if key in self._open else None,
                    "told_ns": [_wall(when, now) for when in told.get(key, [])],
                    "said": self._said.get(key, [None, None]),
                    "notice": self._notice(key, self._open.get(key) or _Trouble(now, 0, {}), now).plain(),
                }
                for key in sorted({*self._open, *told})
            ],
        }

    def remember(self, plain: Mapping[str, Any], now: Moment) -> None:
        """Takes up what was known before a restart. What cannot be understood is left out: it is met again."""
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self._remember_since(plain, now)
        troubles = plain.get("troubles")
        for one in troubles if isinstance(troubles, list) else []:
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
                self._remember_trouble(one, now)

    def _remember_since(self, plain: Mapping[str, Any], now: Moment) -> None:
        since, known = plain["since_ns"], self._known
        for mine, theirs, stored in (
            (self._compared, known.compared, since["compared"]),
            (self._done, known.jobs, since["done"]),
        ):
            for name in mine.keys() & stored.keys():
                mine[name] = _age(max(int(stored[name]), theirs.get(name, 0)), now)
        self._behind = {
            name: _age(int(when), now) for name, when in since["behind"].items() if name in self._limits.providers
        }
        checked = [known.jobs[job] for job in _CHECKS & known.jobs.keys()]
        self._verified = _age(max(int(plain["verified_ns"]), *checked, 0), now)

    def _remember_trouble(self, one: Mapping[str, Any], now: Moment) -> None:
        notice = Notice.of_plain(one["notice"], now)
        told = sorted(_age(int(when), now).boot for when in one["told_ns"])[-MOST:]
        due_ns, shown, (code, reason) = one["due_ns"], bool(one["shown"]) and bool(told), one["said"]
        if told and told[-1] > now.boot - DAY:
            self._told[notice.key] = told
            self._said[notice.key] = [code, reason]
        if due_ns is not None and self._concerns(notice.key):
            due = now.boot + (int(due_ns) - now.wall_ns) / 1e9
            due = min(due, now.boot) if shown else max(due, now.boot + SETTLING)
            since = _age(notice.since_ns, now)
            self._open[notice.key] = _Trouble(since, due, notice.values, now.boot, notice.times, shown, True)

    def _concerns(self, key: Key) -> bool:
        limits = self._limits
        return key[0] not in _OURS or key[1] in {"", *limits.sources, *limits.providers, *limits.jobs}

    # What happened

    def _take(self, event: Event) -> Iterator[Notice]:
        now, values = event.at, event.values
        subject = str(values.get("source") or values.get("provider") or values.get("job") or "")
        match event.kind:
            case Kind.STARTED | Kind.RESUMED:
                self.slept(now)
            case Kind.SNAPSHOT_MADE | Kind.SNAPSHOT_NOTHING:
                yield from self._saved(event, subject)
            case Kind.SNAPSHOT_FAILED | Kind.UPLOAD_FAILED:
                self._failed(event, subject)
            case Kind.UPLOAD_PROGRESS:
                self._moved(event, subject)
            case Kind.UPLOAD_DONE | Kind.PROVIDER_BACK:
                yield from self._uploaded(event, subject)
            case Kind.HELD:
                self._meet((Problem.HELD, ""), now, now.boot + self._limits.held_after, {})
            case Kind.UNLOCKED:
                self._behind = dict.fromkeys(self._behind, now)  # now they can move
                yield from self._clear(now, (Problem.HELD, ""))
            case Kind.JOB_DONE:
                yield from self._ran(event, subject)
            case Kind.JOB_FAILED:
                self._job_failed(event, subject)
            case _:
                yield from self._turned(event, subject)

    def _turned(self, event: Event, subject: str) -> Iterator[Notice]:
        now = event.at
        match event.kind:
            case Kind.WATCH_DEGRADED:
                self._meet((Problem.WATCH_DEGRADED, subject), now, now.boot + FLAPPING, event.values)
            case Kind.WATCH_RESTORED:
                yield from self._clear(now, (Problem.WATCH_DEGRADED, subject))
            case Kind.OUTBOX_FULL:
                # A first backup fills it for as long as its upload takes; only standing so is worth a word.
                self._meet((Problem.OUTBOX_FULL, ""), now, now.boot + self._limits.held_after, event.values)
            case Kind.OUTBOX_FREED:
                yield from self._clear(now, (Problem.OUTBOX_FULL, ""))
            case Kind.RELOAD_REFUSED:
                self._meet((Problem.RELOAD_REFUSED, ""), now, now.boot, event.values)
            case Kind.RELOADED:
                yield from self._clear(now, (Problem.RELOAD_REFUSED, ""))
            case Kind.PROBLEM | Kind.PROBLEM_OVER if "again" not in event.values:  # else it is one of ours
                yield from self._found(event)
            case _:
                pass

    def _found(self, event: Event) -> Iterator[Notice]:
        """What the daemon itself says is wrong."""
        key = str(event.values.get("problem")), str(event.values.get("subject"))
        if event.kind is Kind.PROBLEM_OVER:
            yield from self._clear(event.at, key)
        else:
            values = {name: value for name, value in event.values.items() if name not in {"problem", "subject"}}
            self._meet(key, event.at, event.at.boot + (LASTING if _passing(values) else 0), values)

    def _saved(self, event: Event, source: str) -> Iterator[Notice]:
        if source in self._compared:
            self._compared[source] = event.at
        if event.kind is Kind.SNAPSHOT_MADE:
            for provider in self._limits.providers:
                self._behind.setdefault(provider, event.at)
        for problem in (Problem.BACKUP_FAILING, Problem.BACKUP_OVERDUE, Problem.DISK_FULL, Problem.DEVICE_REMOVED):
            yield from self._clear(event.at, (problem, source))

    def _failed(self, event: Event, subject: str) -> None:
        code, now = event.values.get("code"), event.at
        if code in _NO_FAILURE:
            return
        backup = event.kind is Kind.SNAPSHOT_FAILED
        if code == "device-removed":
            self._meet((Problem.DEVICE_REMOVED, subject), now, now.boot, event.values)
        elif code == "quota-exceeded" and not backup:
            self._meet((Problem.STORAGE_FULL, subject), now, now.boot, event.values)
        elif code in _AT_THE_DOOR and not backup:
            self._meet((_AT_THE_DOOR[code], subject), now, now.boot, event.values)
        elif backup and event.values.get("errno") in _FULL:
            self._meet((Problem.DISK_FULL, subject), now, now.boot, event.values)
        else:
            self._fail((Problem.BACKUP_FAILING if backup else Problem.UPLOAD_FAILING, subject), event)

    def _moved(self, event: Event, provider: str) -> None:
        done = event.values.get("done")
        if provider in self._behind and done != self._done_bytes.get(provider):
            self._behind[provider] = event.at
            self._done_bytes[provider] = done if isinstance(done, int) else 0

    def _uploaded(self, event: Event, provider: str) -> Iterator[Notice]:
        self._behind.pop(provider, None)
        if event.values.get("waiting"):
            self._behind[provider] = event.at
        for problem in (
            *(Problem.UPLOAD_FAILING, Problem.UPLOAD_OVERDUE, Problem.STORAGE_FULL, Problem.DEVICE_REMOVED),
            *(Problem.LOGIN_NEEDED, Problem.KEY_REFUSED),
        ):
            yield from self._clear(event.at, (problem, provider))
        yield from self._clear(event.at, (Problem.HELD, ""))

    def _ran(self, event: Event, job: str) -> Iterator[Notice]:
        if job in self._done:
            self._done[job] = event.at
        yield from self._clear(event.at, (Problem.JOB_FAILED, job))
        yield from self._clear(event.at, (Problem.JOB_OVERDUE, job))
        if job in _CHECKS:
            self._verified = event.at
            yield from self._clear(event.at, (Problem.UNVERIFIED, ""))

    def _job_failed(self, event: Event, job: str) -> None:
        if event.values.get("code") in _NO_FAILURE:
            return
        key = (Problem.JOB_FAILED, job)
        if job in _CHECKS and not _passing(event.values):
            self._meet(key, event.at, event.at.boot, event.values)
        else:
            self._fail(key, event)

    def _fail(self, key: Key, event: Event) -> None:
        passing = _passing(event.values)
        trouble = self._meet(key, event.at, event.at.boot + (PATIENCE if passing else LASTING), event.values)
        if not passing:
            lasting = trouble.since.boot + LASTING
            trouble.due = min(trouble.due, lasting, event.at.boot if trouble.times >= TRIES else lasting)

    # What stands

    def _meet(self, key: Key, since: Moment, due: float, values: Mapping[str, Any]) -> _Trouble:
        known = self._open.get(key)
        if known is None:
            known = self._open[key] = _Trouble(since, due, dict(values), since.boot)
        else:
            if values:
                known.times += 1
                known.values = dict(values)
            known.due = min(known.due, due)
            known.met = max(known.met, since.boot)
            known.remembered = False
        return known

    def _clear(self, now: Moment, key: Key) -> list[Notice]:
        trouble = self._open.pop(key, None)
        if trouble is None or not trouble.shown:
            return []
        return [self._notice(key, trouble, now, over=True)]

    def _meet_deadlines(self, now: Moment) -> None:
        for key, when, since in list(self._deadlines()):
            if when <= now.boot:
                self._meet(key, since, when, {})

    def _deadlines(self) -> Iterator[tuple[Key, float, Moment]]:
        """What becomes a problem by time alone: when, and since when it is counted."""
        limits = self._limits
        for source, when in self._compared.items():
            yield from self._unmet((Problem.BACKUP_OVERDUE, source), when, _overdue(limits.compare_every))
        for job, when in self._done.items():
            yield from self._unmet((Problem.JOB_OVERDUE, job), when, _overdue(limits.jobs[job]))
        for provider, when in self._behind.items():
            if (Problem.HELD, "") not in self._open and (Problem.UPLOAD_FAILING, provider) not in self._open:
                yield from self._unmet((Problem.UPLOAD_OVERDUE, provider), when, limits.held_after)
        yield from self._unmet((Problem.UNVERIFIED, ""), self._verified, limits.unverified_after)

    def _unmet(self, key: Key, since: Moment, after: float) -> Iterator[tuple[Key, float, Moment]]:
        known = self._open.get(key)
        if known is None or known.remembered:
            yield key, since.boot + after, since

    def _lapses(self, key: Key) -> float:
        return float("inf") if key[0] in _OURS else self._open[key].met + LAPSED

    def _unsure(self, key: Key, trouble: _Trouble) -> bool:
        """Whether it is only known from before a start, and whoever knows would have said it again by now."""
        return trouble.remembered and key[0] in _STANDING

    def _due(self, key: Key, trouble: _Trouble) -> float:
        return trouble.due if trouble.shown or key[0] not in _BY_TIME else max(trouble.due, self._calm)

    def _next(self, key: Key, trouble: _Trouble) -> float:
        """When it is to be told next, if it is still so then."""
        told, due = self._told.get(key, []), self._due(key, trouble)
        if told:
            changed = _print(trouble.values) != self._said.get(key)
            wait = SOONEST if changed or not trouble.shown else DAY
            due = max(due, told[-1] + wait)
        if len(told) >= MOST:
            due = max(due, told[-MOST] + DAY)
        return due

    def _tell(self, key: Key, trouble: _Trouble, now: Moment) -> Notice:
        again, trouble.shown = trouble.shown, True
        self._told[key] = [*self._told.get(key, []), now.boot][-MOST:]
        self._said[key] = _print(trouble.values)
        return self._notice(key, trouble, now, again=again)

    def _notice(self, key: Key, trouble: _Trouble, now: Moment, *, over: bool = False, again: bool = False) -> Notice:
        problem, subject = key
        return Notice(problem, subject, over, trouble.since.wall_ns, now, trouble.times, again, trouble.values)


def _print(values: Mapping[str, Any]) -> list[object]:
    return [values.get("code"), values.get("reason")]


def _passing(values: Mapping[str, Any]) -> bool:
    """Whether it may succeed by itself."""
    return values.get("disposition") == "retry" or values.get("code") in _PASSING


def _overdue(every: float) -> float:
    """Twice as long as usual, and so long that a night or an evening off is no alarm."""
    return max(2 * every, every + DAY)


def _age(wall_ns: int | None, now: Moment) -> Moment:
    """An instant of the wall clock on both clocks; a clock that was set back makes nothing lie in the future."""
    if wall_ns is None:
        return now
    seconds = max(0, now.wall_ns - wall_ns) / 1e9
    return Moment(min(wall_ns, now.wall_ns), now.boot - seconds)


def _wall(boot: float, now: Moment) -> int:
    return now.wall_ns + round((boot - now.boot) * 1e9)
