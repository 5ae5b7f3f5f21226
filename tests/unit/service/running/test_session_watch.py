"""The daemon and a session that somebody else began: the real process that holds the keys."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.daemon.service import session
from chatkeep.daemon.service.progress import Progress
from chatkeep.daemon.service.running.session_watch import SessionWatch
from chatkeep.daemon.service.running.workers import Workers
from tests.support.sessions import DEADLINE, Vault


@pytest.fixture
def vault() -> Vault:
    return Vault()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


def known(watch: SessionWatch) -> bool:
    return watch.about is not None


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_session_is_found_and_its_end_noticed_however_it_comes(vault: Vault, tmp_path: Path) -> None:
    async def play() -> None:
        ends: list[int] = []
        watch = SessionWatch(vault.id, Workers(Progress()), lambda: ends.append(1), tmp_path)
        assert not await watch.look()
        assert not await watch.end()
        before = descriptors()
        begun = await asyncio.to_thread(vault.begin, tmp_path)
        assert await watch.look()
        assert watch.about is not None
        assert watch.about.facts == begun.facts
        assert await watch.look()  # the same one
        assert await watch.end()
        await until(lambda: ends == [1])
        assert not known(watch)

        await asyncio.to_thread(vault.begin, tmp_path)
        assert await watch.look()
        found = session.find(vault.id, tmp_path)
        assert found is not None
        with found:
            os.kill(found.pid, signal.SIGKILL)
        await until(lambda: ends == [1, 1])
        assert descriptors() == before

    asyncio.run(play())


def test_one_that_takes_the_place_of_another_is_no_end(vault: Vault, tmp_path: Path) -> None:
    async def play() -> None:
        ends: list[int] = []
        watch = SessionWatch(vault.id, Workers(Progress()), lambda: ends.append(1), tmp_path)
        first = await asyncio.to_thread(vault.begin, tmp_path)
        assert await watch.look()
        second = await asyncio.to_thread(vault.begin, tmp_path)  # nobody tells: the end of the first one does
        await until(lambda: watch.about is not None and watch.about.facts != first.facts)
        assert watch.about is not None
        assert watch.about.facts == second.facts
        assert ends == []
        watch.close()
        assert await asyncio.to_thread(session.lock, vault.id, tmp_path)
        assert ends == []

    asyncio.run(play())


def test_a_session_that_cannot_be_watched_is_not_called_none(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_pid: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    async def play() -> None:
        watch = SessionWatch(vault.id, Workers(Progress()), lambda: None, tmp_path)
        await asyncio.to_thread(vault.begin, tmp_path)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pidfd_open", no_more)
                with pytest.raises(OSError, match="too many"):
                    await watch.look()
            assert await watch.look()
        finally:
            assert await watch.end()

    asyncio.run(play())
