"""Killed at every durable step of prune: before the commit nothing happened, after it the checkpoint exists."""

from __future__ import annotations

import contextlib
from pathlib import Path

from chatkeep.daemon.state.pruning import CHECKPOINTS
from tests.support.crashing import Crash, crash, durable_steps
from tests.support.thinning import DAY, KEEP, Home


def test_killed_at_every_durable_step(home: Home, tmp_path: Path) -> None:
    counted = home.copy(tmp_path / "counted")
    with durable_steps(counted.room / "state", -1, crash) as steps:
        counted.prune()
    assert steps.names.count("before COMMIT") > 3
    outcomes = set()
    for at, step in enumerate(steps.names):
        one = home.copy(tmp_path / f"at-{at}")
        with durable_steps(one.room / "state", at, crash) as watched, contextlib.suppress(Crash):
            one.prune()
        assert watched.fired == step
        with one.state() as state:
            assert state.outbox.recover() == []
            made = state.pruning.checkpoints()
            queued = [item for item in state.outbox.queue("disk") if item.stream == CHECKPOINTS]
            assert bool(made) == bool(state.pruning.condemned()), "a checkpoint without what it condemns, or that alone"
            assert not queued or made
            outcomes.add(bool(made))
            one.send(state, one.storages)
        one.prune()
        one.world.pass_(8 * DAY)
        assert all(result.waiting == 0 for result in one.sweep(policy=KEEP))
        assert one.storages[0].own("d/") == one.storages[1].own("d/")
        newest = max(one.content)
        assert one.check(one.storages[1], only=[newest])[0] == newest
    assert outcomes == {True, False}
