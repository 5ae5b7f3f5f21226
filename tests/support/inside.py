"""The daemon inside the test's own process, so that what it asks of providers can be counted and its time be seen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from chatkeep.config.loader import load
from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.notify import Supervisor
from chatkeep.daemon.service.running.daemon import Daemon, Terms
from chatkeep.daemon.service.telling.notice import Said
from chatkeep.providers import registry
from chatkeep.providers.base import Provider
from tests.support.station import Station

DEADLINE = 60.0  # seconds; what is waited for comes within


class Counted:
    """A provider whose calls are noted, and that can be away."""

    def __init__(self, inner: Provider, calls: list[str]) -> None:
        self._inner, self._calls = inner, calls

    def __getattr__(self, name: str) -> Any:
        if name not in {"name", "close"}:
            self._calls.append(name)
        return getattr(self._inner, name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of any provider."""
    found: list[str] = []
    real = registry.open_provider

    def opened(config: ProviderConfig, **how: Any) -> Any:
        return Counted(real(config, **how), found)

    monkeypatch.setattr(registry, "open_provider", opened)
    return found


class Inside:
    """A daemon that runs in this loop, and what it told."""

    def __init__(self, station: Station) -> None:
        self.events: list[Event] = []
        self.clean: bool | None = None  # once it ended: whether all of its work did
        self.bus = Bus()
        self.bus.subscribe(self.events.append)
        self.job: Callable[[str], list[str]] = lambda name: ["false", name]
        terms = Terms(
            load=lambda: load(station.config),
            job=lambda name: self.job(name),
            status=lambda standing: str(standing.mode),
            phrase=lambda notice: Said(notice.problem, "", ""),
            version="0.0.test",
        )
        self.daemon = Daemon(terms, load(station.config), self.bus, Supervisor())

    def kinds(self, kind: Kind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]

    async def told(self, kind: Kind, count: int = 1) -> Event:
        """Waits for so many events of a kind; the last of them."""
        await until(lambda: len(self.kinds(kind)) >= count)
        return self.kinds(kind)[count - 1]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def inside(station: Station, job: Callable[[str], list[str]] | None = None) -> AsyncIterator[Inside]:
    """A daemon for the block, which has begun. `job`: the command line of one, also of a job that begins at once."""
    one = Inside(station)
    one.job = job or one.job

    @contextlib.asynccontextmanager
    async def unserved(_daemon: Daemon) -> AsyncIterator[None]:
        yield

    async def run() -> None:
        one.clean = await one.daemon.run(unserved)

    running = asyncio.create_task(run())
    try:
        await until(lambda: one.kinds(Kind.STARTED) or running.done())
        yield one
    finally:
        one.daemon.stop("test")
        await running
