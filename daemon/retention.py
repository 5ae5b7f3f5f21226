"""Which snapshots stay. Pure: takes what is known of the snapshots of one source, a policy and a time.

Snapshots are ordered by their chain, never by a clock. Where a snapshot lies in time is the time of its chain, which
never falls. A clock more than a day ahead of now is not believed: such a snapshot is kept, and stands for no hour, day
or year. Those after it have a chain time that it spoiled; their own clocks place them.
"""

from __future__ import annotations

import datetime as dt
import enum
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from chatkeep.config.amounts import ALL, Amount
from chatkeep.config.model import Retention

DAY: Final = 86_400 * 10**9
CLOCK_AHEAD: Final = DAY
"""A clock so far ahead, in ns, was wrong: without this an hour in 2030 would push years of snapshots out."""


class Reason(enum.StrEnum):
    """Why a snapshot stays, the most telling first; the last two: why it goes."""

    NEWEST = "newest"  # of its source
    CLOCK = "clock"  # its clock lies in the future
    WAITING = "waiting"  # not every provider has it
    RECENT = "recent"  # everything_for
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"
    MINIMUM = "minimum"
    THINNED = "thinned"  # a neighbour stands for it
    INCOMPLETE = "incomplete"  # something of it was pending, and a complete one is near


class SnapshotKey(NamedTuple):
    """Which snapshot."""

    stream: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a snapshot.

    Attributes:
        time: of the chain, ns: the clock, or that of a snapshot before if that is greater.
        clock: of the device, at the capture, ns.
        complete: nothing is pending in it.
        layers: of its stack. A snapshot made right after a fold has few, and costs a restore fewer requests.
        newest: it is the head of its source, and stays whatever the policy says.
        waiting: some provider does not have it yet. It stays, and stands for no other: at that provider the others
            alone must be what the policy asks for.
    """

    key: SnapshotKey
    time: int
    clock: int
    complete: bool
    layers: int = 1
    newest: bool = False
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a snapshot. `time`: where it lies in time for the policy, ns."""

    candidate: Candidate
    time: int
    kept: bool
    reasons: tuple[Reason, ...]


@functools.lru_cache(maxsize=4096)
def _date_of(day: int) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(days=day)


def _month(ns: int) -> int:
    date = _date_of(ns // DAY)
    return date.year * 12 + date.month


# Numbers of calendar units, in UTC, that rise by one from unit to unit. 1970-01-01 was a Thursday.
_HOUR: Final[Callable[[int], int]] = lambda ns: ns // (DAY // 24)  # noqa: E731
_UNITS: Final[tuple[tuple[Reason, Callable[[int], int]], ...]] = (
    (Reason.HOURLY, _HOUR),
    (Reason.DAILY, lambda ns: ns // DAY),
    (Reason.WEEKLY, lambda ns: (ns // DAY + 3) // 7),
    (Reason.MONTHLY, _month),
    (Reason.YEARLY, lambda ns: _date_of(ns // DAY).year),
)
_LONG: Final = frozenset({Reason.WEEKLY, Reason.MONTHLY, Reason.YEARLY})


def decide(candidates: Sequence[Candidate], policy: Retention, now_ns: int) -> list[Verdict]:
    """What becomes of the snapshots of one source, in their order.

    Args:
        candidates: in the order of their making: streams that ended, one after the other, then the one that goes on.
    """
    placed = [(one, _time(one, now_ns)) for one in candidates]
    reasons: dict[int, set[Reason]] = {place: set() for place in range(len(candidates))}
    for place, (one, time) in enumerate(placed):
        own = reasons[place]
        own |= {Reason.NEWEST} if one.newest else set()
        own |= {Reason.CLOCK} if _is_ahead(one, now_ns) else set()
        own |= {Reason.WAITING} if one.waiting else set()
        own |= {Reason.RECENT} if Reason.CLOCK not in own and time > now_ns - policy.everything_for.ns else set()
    able = [place for place, (one, _) in enumerate(placed) if not one.waiting and not _is_ahead(one, now_ns)]
    for reason, unit in _UNITS:
        for place in _chosen(placed, able, unit, getattr(policy, reason.value), spare=reason in _LONG):
            reasons[place].add(reason)
    for place in _last(placed, able, policy.minimum):
        reasons[place].add(Reason.MINIMUM)
    order = list(Reason)
    return [
        _verdict(one, time, tuple(sorted(reasons[place], key=order.index))) for place, (one, time) in enumerate(placed)
    ]


def _verdict(one: Candidate, time: int, reasons: tuple[Reason, ...]) -> Verdict:
    if reasons:
        return Verdict(one, time, kept=True, reasons=reasons)
    return Verdict(one, time, kept=False, reasons=(Reason.THINNED if one.complete else Reason.INCOMPLETE,))


def _is_ahead(one: Candidate, now_ns: int) -> bool:
    return one.clock > now_ns + CLOCK_AHEAD


def _time(one: Candidate, now_ns: int) -> int:
    """Where a snapshot lies in time. Of itself alone, so that it stays there whichever others go."""
    return one.time if one.time <= now_ns + CLOCK_AHEAD else one.clock


def _chosen(
    placed: Sequence[tuple[Candidate, int]],
    able: Sequence[int],
    unit: Callable[[int], int],
    count: Amount,
    *,
    spare: bool,
) -> Iterator[int]:
    """The snapshot that stands for each unit of time: of the `count` newest units that have a complete one, that one.

    Where a unit has only incomplete ones (a file that never rests leaves every snapshot so), the newest of them, within
    the last `count` units: it takes the place of no complete one, and history is not lost for want of any.
    """
    whole: dict[int, int] = {}
    partial: dict[int, int] = {}
    for place in able:
        one, time = placed[place]
        best = whole if one.complete else partial
        bucket = unit(time)
        if bucket not in best or _rank(placed, place, spare) >= _rank(placed, best[bucket], spare):
            best[bucket] = place
    yield from (whole[bucket] for bucket in sorted(whole, reverse=True)[:count])
    newest = max([*whole, *partial], default=0)
    for bucket, place in partial.items():
        # By the calendar and not by number: else a complete one that goes would make room for an incomplete one less.
        if bucket not in whole and count and (count >= ALL or bucket > newest - count):
            yield place


def _rank(placed: Sequence[tuple[Candidate, int]], place: int, spare: bool) -> tuple[int, int, int]:
    """The higher stands for its unit: the newer one; of a week and more, on its last day the one with fewest layers."""
    one, time = placed[place]
    return (time // DAY, -one.layers, place) if spare else (0, 0, place)


def _last(placed: Sequence[tuple[Candidate, int]], able: Sequence[int], count: Amount) -> Iterator[int]:
    """The newest complete ones; as far as there are fewer than `count`, the newest incomplete ones too."""
    whole = [place for place in able if placed[place][0].complete]
    partial = [place for place in able if not placed[place][0].complete]
    yield from whole[-count:] if count else ()
    lacking = min(count - min(len(whole), count), len(partial))
    yield from partial[len(partial) - lacking :]


class Alarm(enum.StrEnum):
    """Why a person should look before it is done."""

    MOST_SNAPSHOTS = "most-snapshots"  # more than half of them would go
    MOST_BYTES = "most-bytes"  # more than half of what is stored would be freed
    LAST_DAY = "last-day"  # one of the last 24 hours would go


def alarms(verdicts: Collection[Verdict], freed: int, stored: int, now_ns: int) -> list[Alarm]:
    """What speaks for a mistake in the policy. `freed`, `stored`: bytes."""
    going = [one for one in verdicts if not one.kept]
    found = []
    if 2 * len(going) > len(verdicts):
        found.append(Alarm.MOST_SNAPSHOTS)
    if 2 * freed > stored:
        found.append(Alarm.MOST_BYTES)
    if any(one.time > now_ns - DAY for one in going):
        found.append(Alarm.LAST_DAY)
    return found
