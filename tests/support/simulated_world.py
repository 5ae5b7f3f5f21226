"""A machine for the daemon's decisions: clocks, storage, an application that writes, a person. No threads, no disk.

Time is a number that this module moves. What runs on the machine stands still while the machine sleeps; the clock that
counts sleep does not. The wall clock is somebody else's toy.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from chatkeep.daemon.service.moment import Moment

START_WALL = 1_900_000_000.0
HOUR, DAY, YEAR = 3600.0, 86_400.0, 366 * 86_400.0


@dataclass
class Snapshot:
    """One that is committed: everything written to a source before it began, up to a number."""

    source: str
    upto: int
    begun: float
    size: int


@dataclass
class Storage:
    """One provider: how many of the committed snapshots it has, in their order, and whether it can be reached."""

    name: str
    has: int = 0
    up: bool = True
    attempts: list[float] = field(default_factory=list)  # that failed


@dataclass(order=True)
class _Planned:
    at: float
    number: int
    on_machine: bool = field(compare=False)
    life: int | None = field(compare=False)
    act: Callable[[], None] = field(compare=False)


class World:
    """Everything outside of the daemon's decisions."""

    def __init__(self, seed: int, *, wall_jumps: bool = True) -> None:
        self.chance = random.Random(seed)
        self.t = 0.0
        self.booted = -500.0
        self.offset = 0.0
        self.wall_jumps = wall_jumps
        self.life = 0  # of the daemon; what an earlier one began does not go on
        self.asleep = False
        self.awake_since = self._sleeps_until = 0.0  # as `t`
        self.counts: dict[str, int] = {}
        self._plans: list[_Planned] = []
        self._numbers = itertools.count()
        # what there is to keep, and where it is
        self.sources = ("chat", "mail", "notes")
        self.writes: dict[str, list[float]] = {name: [] for name in self.sources}
        self.committed: list[Snapshot] = []
        self._until = [0]  # bytes of the first so many of them
        self._newest: dict[str, int] = {}
        self.storages = {name: Storage(name) for name in ("disk", "cloud")}
        self.looked: dict[str, int] = {}  # when each source was last compared, as the wall clock was then
        self.disk_full = False
        self.damaged_until = 0.0
        # the person
        self.session: int | None = None
        self.session_until = 0.0
        self.logged_in = True
        self.remembered = False
        self.calm = False  # nothing goes wrong any more

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Moment:
        return Moment(int((START_WALL + self.t + self.offset) * 1e9), self.t - self.booted)

    def plan(self, after: float, act: Callable[[], None], *, on_machine: bool = True, life: int | None = None) -> None:
        """Something happens later; on the machine, it waits while that sleeps; of a life, only while that lasts."""
        since = self._sleeps_until if self.asleep and on_machine else self.t
        heapq.heappush(self._plans, _Planned(since + after, next(self._numbers), on_machine, life, act))

    def step(self, end: float) -> bool:
        """The next thing happens, if it does before the end."""
        while self._plans and self._plans[0].at <= end:
            one = heapq.heappop(self._plans)
            if one.life is not None and one.life != self.life:
                continue
            self.t = max(self.t, one.at)
            one.act()
            return True
        self.t = end
        return False

    def sleep(self, seconds: float) -> None:
        """The machine sleeps: what runs on it happens that much later."""
        for one in self._plans:
            if one.on_machine:
                one.at += seconds
        heapq.heapify(self._plans)
        self.asleep, self._sleeps_until = True, self.t + seconds

    def happened(self, what: str) -> None:
        """Counted, so that a test can say that it did."""
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- what is kept -------------------------------------------------------------------------------------------------

    def upto(self, source: str) -> int:
        """The newest write of a source that a committed snapshot has."""
        return self._newest.get(source, 0)

    def behind(self, storage: str) -> Snapshot | None:
        """The oldest snapshot that a provider lacks."""
        has = self.storages[storage].has
        return self.committed[has] if has < len(self.committed) else None

    def waiting(self, storage: str) -> int:
        """What waits for it."""
        return self._until[-1] - self._until[self.storages[storage].has]

    @property
    def outbox(self) -> int:
        """What waits for anybody."""
        return max(map(self.waiting, self.storages))

    def commit(self, source: str, begun: float, upto: int) -> bool:
        """A snapshot is committed if it has something new; whether it has."""
        before = self.upto(source)
        if upto <= before:
            return False
        assert all(at <= begun for at in self.writes[source][before:upto]), "a write after the snapshot began is in it"
        self.committed.append(Snapshot(source, upto, begun, 1 + (upto - before)))
        self._until.append(self._until[-1] + self.committed[-1].size)
        self._newest[source] = upto
        return True
