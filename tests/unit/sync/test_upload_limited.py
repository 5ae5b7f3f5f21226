"""The uploader and the rate of a provider: it keeps to it, waits by its own clock, and is stopped while it waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.config.amounts import AtOnce, Rate
from chatkeep.config.limits import Limit
from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.upload import Pace, upload
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.used import used_on
from chatkeep.providers.wrap import Limited, Narrow, Patience, wrapped
from tests.support.memory_provider import MemoryProvider
from tests.unit.sync.test_upload import DEVICE, HOME, VAULT, snapshot


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state", VAULT, DEVICE) as opened:
        yield opened


class Clock:
    """Moved on by whoever sleeps by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_an_upload_keeps_to_the_rate_and_waits_as_it_waits_to_try_again(state: State) -> None:
    snapshot(state, packs=20)
    total = state.outbox.waiting()[1]
    clock, store = Clock(), MemoryProvider(HOME)

    def never(_seconds: float) -> None:
        raise AssertionError("this cannot be stopped")

    provider = Limited(store, Limit(upload=Rate(100)), never, clock.monotonic)
    result = upload(state.outbox, provider, pace=Pace(3, Patience(), clock.sleep))
    assert (result.bytes, result.problems) == (total, ())
    last = len(store.objects[store.verbs[-1][1]])
    assert (total - last) / 100 - 0.5 <= clock.now <= total / 100 + 0.5


def test_an_upload_that_waits_for_its_rate_can_be_stopped(state: State) -> None:
    snapshot(state, packs=20)
    store, asked = MemoryProvider(HOME), [0]

    def stop() -> bool:
        asked[0] += 1
        return bool(store.objects) and asked[0] > 3

    provider = Limited(store, Limit(upload=Rate(1)))
    begun = time.monotonic()
    result = upload(state.outbox, provider, cancelled=stop, pace=Pace(1))
    assert result.cancelled
    assert 1 <= result.objects < 21
    assert time.monotonic() - begun < 20, "at the rate it would have taken minutes"
    again = upload(state.outbox, Narrow(store, 1))
    assert again.objects == 21 - result.objects


def test_a_folder_takes_the_files_themselves_through_its_wrappers(state: State, tmp_path: Path) -> None:
    snapshot(state, packs=3)
    files = {path.stat().st_ino for path in state.outbox.directory.iterdir() if path.is_file()}
    memo = MemoryMemo()
    config = ProviderConfig(HOME, "folder", None, connections=AtOnce(1), limit=Limit(upload=Rate(1)))
    provider = wrapped(FolderProvider(HOME, tmp_path / HOME, create=True), config, memo)
    assert upload(state.outbox, provider).problems == ()
    provider.close()
    kept = {path.stat().st_ino for path in (tmp_path / HOME).rglob("*") if path.is_file()}
    assert files <= kept, "shared, and so no byte went over any line"
    assert used_on(memo, time.time()).requests["adopt"] == 4
