"""The state directory, lent and taken back, whoever goes away meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.conducting.inputs import Input
from chatkeep.daemon.service.events import Bus
from chatkeep.daemon.service.progress import Progress
from chatkeep.daemon.service.running import tenancy as subject
from chatkeep.daemon.service.running.tenancy import Tenancy
from chatkeep.daemon.service.running.workers import Workers
from chatkeep.daemon.state import StateBusy

PATIENCE = 10.0


class Engines:
    """In place of `Engine`: at most one is open, as the lock of the records has it.

    Attributes:
        gate: opening waits for it.
        opening: how often somebody waits there.
        taken: another process has the records.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.opening = 0
        self.taken = False
        self.configs = list[Any]()
        self.current: object = None

    def open(self, config: Any) -> Any:
        self.opening += 1
        assert self.gate.wait(PATIENCE)
        if self.taken or self.current is not None:
            raise StateBusy(path="state")
        self.configs.append(config)
        self.current = made = SimpleNamespace(config=config, close=self._close)
        return made

    def _close(self) -> None:
        self.current = None


class Scene:
    def __init__(self) -> None:
        self.engines = Engines()
        self.config: Any = "first"
        self.told = list[Input]()
        self.failed = list[BaseException]()
        self.workers = Workers(Progress())
        self.tenancy = Tenancy(lambda: self.config, self.workers, Bus(), self._tell, self._opened, self.failed.append)

    def _tell(self, said: Input) -> None:
        """As a conductor of which nothing runs."""
        self.told.append(said)
        if isinstance(said, inputs.Lend):
            self.tenancy.handed()

    def _opened(self, _engine: object) -> None:
        self.told.append(inputs.Returned())

    async def lent(self, command: str | None, body: Callable[[], Awaitable[None]]) -> None:
        async with self.tenancy.lent_to(command):
            await body()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.005)


def run(monkeypatch: pytest.MonkeyPatch, test: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        monkeypatch.setattr(subject, "BUSY_AGAIN", 0.01)
        scene = Scene()
        monkeypatch.setattr(subject, "Engine", scene.engines)
        async with asyncio.timeout(3 * PATIENCE):
            await test(scene)
        assert scene.failed == []

    asyncio.run(main())


async def _nothing() -> None:
    pass


def test_who_goes_away_while_it_is_taken_back_keeps_nobody_from_borrowing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(scene: Scene) -> None:
        assert await scene.tenancy.try_open()
        scene.engines.gate.clear()
        first = asyncio.ensure_future(scene.lent(None, _nothing))
        await until(lambda: scene.engines.opening == 2)  # it is being taken back
        first.cancel()
        seen = list[object]()

        async def borrowed() -> None:
            seen.append((scene.tenancy.engine, scene.engines.current))

        second = asyncio.ensure_future(scene.lent("prune", borrowed))
        await asyncio.sleep(0)
        assert not seen, "lent to two"
        scene.engines.gate.set()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert seen == [(None, None)], "the records were open while they were lent"
        await until(lambda: scene.tenancy.engine is not None)
        assert scene.tenancy.engine is scene.engines.current

    run(monkeypatch, test)


def test_what_was_changed_while_it_was_being_opened_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        scene.engines.gate.clear()
        opening = asyncio.ensure_future(scene.tenancy.try_open())
        await until(lambda: scene.engines.opening == 1)
        scene.config = "second"
        scene.engines.gate.set()
        assert await opening
        engine: Any = scene.tenancy.engine
        assert engine.config == "second"

    run(monkeypatch, test)


def test_a_daemon_that_ends_does_not_wait_for_records_that_another_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(scene: Scene) -> None:
        assert await scene.tenancy.try_open()
        never = asyncio.Event()

        async def borrowed() -> None:
            await never.wait()

        lent = asyncio.ensure_future(scene.lent(None, borrowed))
        await until(lambda: scene.engines.current is None)
        scene.engines.taken = True
        scene.tenancy.end()
        lent.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([lent])
        assert lent.cancelled()
        await scene.tenancy.close()
        assert scene.engines.current is None

    run(monkeypatch, test)
