"""A machine for the daemon's decisions: clocks, storage, an application that writes, a person.

Time is a number that this module moves. What runs on the machine stands still while the machine sleeps; the clock that
counts sleep does not. The wall clock is somebody else's toy.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chatkeep.daemon.service.moment import Moment
from tests.support.simulated_week_records import UNIT, Records
from tests.support.simulated_week_storage import Storage
from tests.support.simulated_week_strands import Strand

START_WALL = 1_900_000_000.0
HOUR, DAY, YEAR = 3600.0, 86_400.0, 366 * 86_400.0
LIMIT = 250 * UNIT
"""Of the outbox. A busy day makes more than that."""


@dataclass(order=True)
class _Planned:
    at: float
    number: int
    on_machine: bool = field(compare=False)
    life: int | None = field(compare=False)
    act: Callable[[], None] = field(compare=False)


class World:
    """Everything outside of the daemon's decisions."""

    def __init__(self, seed: int, place: Path, *, wall_jumps: bool = True) -> None:
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
        self._newest: dict[str, int] = {}
        self.records = Records(place, self.sources, LIMIT)
        self.storages = self.records.storages
        for name, required, units in (("disk", True, 4.0), ("cloud", True, 4.0), ("drawer", False, 1.0)):
            self.storages[name] = Storage(
                name, self.chance, self.wait, self.happened, self.records.sealed, required=required, rate=units * UNIT
            )
        self.strand: Strand | None = None  # what runs of the daemon's work
        self.looked: dict[str, int] = {}  # when each source was last compared, as the wall clock was then
        self.disk_full = False
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

    def run(self, strand: Strand) -> float | None:
        """Work goes on until it waits: for how many seconds. None: it has ended."""
        self.strand = strand
        try:
            return strand.go_on()
        finally:
            self.strand = None

    def wait(self, seconds: float) -> None:
        """Of the work that runs: time passes."""
        assert self.strand is not None
        self.strand.wait(seconds)

    # -- what is kept -------------------------------------------------------------------------------------------------

    def upto(self, source: str) -> int:
        """The newest write of a source that a committed snapshot has."""
        return self._newest.get(source, 0)

    def commit(self, source: str, begun: float, upto: int) -> bool:
        """A snapshot is committed if it has something new; whether it has."""
        before = self.upto(source)
        if upto <= before:
            return False
        assert all(at <= begun for at in self.writes[source][before:upto]), "a write after the snapshot began is in it"
        self.records.commit(source, begun, upto - before)
        self._newest[source] = upto
        return True
