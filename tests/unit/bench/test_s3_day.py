from __future__ import annotations

import itertools
import random

from bench.s3_day import arrivals, cost, snapshots
from chatkeep.config.running import WatchConfig

WATCH = WatchConfig()


def test_when_snapshots_begin() -> None:
    assert snapshots([], WATCH) == []
    assert snapshots([10.0], WATCH) == [(12.0, 1)]
    assert snapshots([10.0, 11.0, 12.5], WATCH) == [(14.5, 3)]  # quiet after the last
    assert snapshots([10.0 + each for each in range(20)], WATCH) == [(18.0, 9), (78.0, 11)]  # it never rests
    assert snapshots([10.0, 30.0, 40.0], WATCH) == [(12.0, 1), (72.0, 2)]  # a minute from the one before
    assert snapshots([10.0, 200.0], WATCH) == [(12.0, 1), (202.0, 1)]


def test_every_message_is_in_a_snapshot_and_none_begins_too_soon() -> None:
    moments = arrivals(random.Random(3), 500, 2)
    plan = snapshots(moments, WATCH)
    assert sum(count for _, count in plan) == 500
    begins = [begin for begin, _ in plan]
    assert all(later - earlier > 59.999 for earlier, later in itertools.pairwise(begins))


def test_the_money() -> None:
    assert cost({"put": 1000, "list": 1000, "get": 10_000, "delete": 5}) == 0.014
