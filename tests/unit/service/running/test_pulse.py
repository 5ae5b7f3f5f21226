"""What wakes the daemon, and what its watchdog hears."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from chatkeep.daemon.service.moment import Moment, now
from chatkeep.daemon.service.notify import Supervisor
from chatkeep.daemon.service.progress import Progress
from chatkeep.daemon.service.running.pulse import Pulse, wall_of
from tests.support.inside import until


def test_who_wants_another_tick_all_the_time_does_not_put_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.service.running.pulse.BEAT", 0.05)

    async def play() -> None:
        ticks: list[float] = []
        pulse = Pulse(Supervisor(), Progress(), lambda: ticks.append(now().boot), lambda: None)
        pulse.start()
        async with asyncio.timeout(10):
            while len(ticks) < 3:
                pulse.wake_at(None)
                pulse.wake_at(now().boot + 1000)
                await asyncio.sleep(0)
        pulse.close()

    asyncio.run(play())


def test_it_ticks_when_it_is_time_and_in_place_of_what_was_wanted_before() -> None:
    async def play() -> None:
        ticks: list[float] = []
        pulse = Pulse(Supervisor(), Progress(), lambda: ticks.append(now().boot), lambda: None)
        pulse.start()
        wanted = now().boot + 0.05
        pulse.wake_at(wanted + 1000)
        pulse.wake_at(wanted)
        await until(lambda: ticks)
        assert ticks[0] >= wanted
        pulse.wake_at(now().boot - 5)  # it has passed
        await until(lambda: len(ticks) == 2)
        pulse.close()

    asyncio.run(play())


def test_the_watchdog_is_fed_only_while_work_moves(tmp_path: Path) -> None:
    async def play() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "n"))
            manager.setblocking(False)

            def heard() -> int:
                count = 0
                while True:
                    try:
                        count += manager.recv(4096) == b"WATCHDOG=1"
                    except BlockingIOError:
                        return count

            progress = Progress(limit=1000)
            with Supervisor(str(tmp_path / "n"), watchdog_limit=0.03) as supervisor:
                pulse = Pulse(supervisor, progress, lambda: None, lambda: None)
                pulse.start()
                await until(heard)
                progress.began("upload disk", time.monotonic() - 2000)  # it has not moved since
                heard()
                turned = asyncio.Event()
                asyncio.get_running_loop().call_later(0.2, turned.set)  # the loop itself turns all the while
                await turned.wait()
                assert heard() == 0, "fed, and a worker hangs"
                progress.moved("upload disk", time.monotonic())
                await until(heard)
                pulse.close()

    asyncio.run(play())


def test_an_instant_of_one_clock_is_shown_in_the_other() -> None:
    assert wall_of(None, Moment(5, 1.0)) is None
    assert wall_of(3.5, Moment(10, 1.0)) == 10 + 2_500_000_000
