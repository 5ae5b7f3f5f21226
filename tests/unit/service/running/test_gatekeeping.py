"""The session's rules, applied to the real process that holds the keys."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.config.amounts import Duration
from chatkeep.config.running import SessionConfig
from chatkeep.daemon.service import session
from chatkeep.daemon.service.errors import ReaderFailed
from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.logind import LoginSignal
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.progress import Progress
from chatkeep.daemon.service.running import describing
from chatkeep.daemon.service.running.gatekeeping import Gatekeeper
from chatkeep.daemon.service.running.workers import Workers
from tests.support.inside import until
from tests.support.sessions import Vault

BEGUN: list[tuple[bytes, Path]] = []


@pytest.fixture(autouse=True)
def no_reader_is_left() -> Iterator[None]:
    """Ends the sessions that a test began and did not end: else each would live for as long as its session may."""
    yield
    while BEGUN:
        session.lock(*BEGUN.pop())


class Memory:
    def __init__(self, open_: bool = False) -> None:
        self.open = open_

    def read(self) -> bool:
        return self.open

    def write(self) -> None:
        self.open = True

    def forget(self) -> None:
        self.open = False


class Play:
    """A keeper of the session of a vault, and what it did. Made in the loop."""

    def __init__(self, directory: Path, config: SessionConfig | None = None, *, remembered: bool = False) -> None:
        self.vault, self.directory = Vault(), directory
        self.events: list[Event] = []
        bus = Bus()
        bus.subscribe(self.events.append)
        self.memory = Memory(remembered)
        self.gates: list[tuple[bool, bool]] = []
        self.holds: list[bool] = []
        self.keeper = Gatekeeper(
            config or SessionConfig(),
            self.vault.id,
            self.memory,
            Workers(Progress()),
            bus,
            self.changed,
            lambda: None,
            self.holds.append,
            directory,
        )

    def changed(self) -> None:
        self.gates.append((self.keeper.rules.uploads, self.keeper.rules.session))

    async def unlock(self) -> None:
        BEGUN.append((self.vault.id, self.directory))
        await asyncio.to_thread(self.vault.begin, self.directory)

    async def there(self) -> bool:
        found = await asyncio.to_thread(session.find, self.vault.id, self.directory)
        if found is not None:
            found.close()
        return found is not None

    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events]


def test_uploads_open_with_a_session_and_stay_open_after_it(tmp_path: Path) -> None:
    async def play() -> None:
        one = Play(tmp_path)
        await one.keeper.begin()
        assert one.gates == []
        await one.unlock()
        assert await one.keeper.look()
        assert one.gates == [(True, True)]
        assert one.memory.open
        assert one.holds[-1], "suspending does not wait for the session to end"
        assert await one.keeper.lock()
        assert not await one.there()
        await until(lambda: one.gates[-1] == (True, False) and not one.keeper.rules.ending)
        assert one.holds[-1:] == [False]
        assert one.kinds() == [Kind.UNLOCKED, Kind.LOCKED]
        assert one.events[-1].values["reason"] == "command"
        assert not await one.keeper.lock()  # there is none any more

    asyncio.run(play())


@pytest.mark.parametrize(
    ("signal", "word"),
    [
        (LoginSignal.SUSPEND, "suspend"),
        (LoginSignal.SCREEN_LOCK, "screen-lock"),
        (LoginSignal.LOGOUT, "logout"),
        (LoginSignal.IDLE, "idle"),
    ],
)
def test_the_session_ends_on_what_is_configured_and_on_nothing_else(
    tmp_path: Path, signal: LoginSignal, word: str
) -> None:
    async def play(lock_on: tuple[str, ...]) -> bool:
        config = dataclasses.replace(SessionConfig(), lock_on=lock_on)  # type: ignore[arg-type]
        one = Play(tmp_path / "-".join(lock_on or ("none",)), config)
        await one.unlock()
        assert await one.keeper.look()
        one.keeper.login(signal)
        if not lock_on:
            return await one.there()
        await until(lambda: not one.keeper.rules.session and not one.keeper.rules.ending)
        assert one.events[-1].values["reason"] == word
        assert one.memory.open == (signal is not LoginSignal.LOGOUT)
        assert not one.holds[-1], "suspending waits, and nothing is left to be done"
        return await one.there()

    assert not asyncio.run(play((word,)))
    assert asyncio.run(play(()))


def test_suspending_waits_until_the_keys_are_gone(tmp_path: Path) -> None:
    async def play() -> None:
        one = Play(tmp_path)
        await one.unlock()
        assert await one.keeper.look()
        one.keeper.login(LoginSignal.SUSPEND)
        gone: list[bool] = []
        while one.holds[-1]:
            await asyncio.sleep(0)
        gone.append(not await one.there())
        assert gone == [True]

    asyncio.run(play())


def test_an_end_that_nobody_ordered_is_told(tmp_path: Path) -> None:
    async def play() -> None:
        one = Play(tmp_path)
        await one.unlock()
        assert await one.keeper.look()
        assert await asyncio.to_thread(session.lock, one.vault.id, tmp_path)
        await until(lambda: one.gates[-1:] == [(True, False)])
        assert one.events[-1].values["reason"] == "ended"

    asyncio.run(play())


def test_one_that_cannot_be_ended_is_told_to_who_asked_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        one = Play(tmp_path)
        await one.unlock()
        assert await one.keeper.look()
        real, tries = session.lock, list[int]()

        def fails(*what: object) -> bool:
            tries.append(1)
            if len(tries) == 1:
                raise ReaderFailed(reason="running")
            return real(*what)  # type: ignore[arg-type]

        monkeypatch.setattr(session, "lock", fails)
        with pytest.raises(ReaderFailed):
            await one.keeper.lock()
        await until(lambda: one.keeper.rules.wake_at is not None)
        assert one.holds[-1]
        one.keeper.rules._retry_at = 0.0  # the time has come
        one.keeper.tick()
        await until(lambda: not one.keeper.rules.ending)
        assert len(tries) == 2
        assert not await one.there()

    asyncio.run(play())


def test_remembered_from_a_daemon_before_uploads_are_open(tmp_path: Path) -> None:
    async def play() -> None:
        one = Play(tmp_path, remembered=True)
        assert one.keeper.rules.uploads
        one.keeper.login(LoginSignal.LOGOUT)
        await until(lambda: one.gates == [(False, False)])
        assert not one.memory.open

    asyncio.run(play())


def test_a_session_whose_time_is_up_is_ended(tmp_path: Path) -> None:
    async def play() -> None:
        one = Play(tmp_path, dataclasses.replace(SessionConfig(), lock_after=Duration(60)))
        await one.unlock()
        assert await one.keeper.look()
        one.keeper.rules.until = 1.0
        one.keeper.tick()
        await until(lambda: not one.keeper.rules.session and not one.keeper.rules.ending)
        assert one.events[-1].values["reason"] == "expired"
        assert not await one.there()

    asyncio.run(play())


def test_nobody_is_told_that_it_is_locked_before_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the directory of the session's socket is read-only for the daemon: it cannot end what can still read."""

    async def play() -> None:
        one = Play(tmp_path)
        await one.keeper.begin()
        await one.unlock()
        assert await one.keeper.look()
        tries = 0

        def refused(*_words: object) -> bool:
            nonlocal tries
            tries += 1
            raise OSError(errno.EROFS, "read-only")

        with monkeypatch.context() as patched:
            patched.setattr(session, "lock", refused)
            with pytest.raises(ReaderFailed):
                await one.keeper.lock()
        assert tries == 1
        assert await one.there()
        assert one.keeper.readable
        assert describing.session(one.keeper, now()).unlocked
        assert one.kinds() == [Kind.UNLOCKED]
        assert one.gates[-1] == (True, False)  # nothing that needs it is begun any more

        assert await one.keeper.lock()
        await until(lambda: len(one.kinds()) > 1)
        assert not describing.session(one.keeper, now()).unlocked
        assert one.kinds() == [Kind.UNLOCKED, Kind.LOCKED]

    asyncio.run(play())
