"""The provider that other tests stand on keeps the contract too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.providers.stations import Lack, Place, Station
from tests.support.memory_provider import MemoryProvider


class Memory(Station):
    name = "memory"
    http = False
    lacks = frozenset({Lack.TIMES, Lack.CLOCK, Lack.STALE_LISTS, Lack.QUOTA, Lack.CREDENTIALS, Lack.PUT_ONLY})

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        kept = MemoryProvider(self.name)
        yield Place(lambda _: kept)


STATION = Memory()
