"""What is made of logind's signals, on a real message bus, with a logind that a test plays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from chatkeep.daemon.service import logind
from chatkeep.daemon.service.logind import Login, LoginSignal, Note
from tests.support.fake_logind import NAME, PATH, Bus, FakeLogind, fake_logind, running

ME, OTHER = 1000, 1001
Scenario = Callable[["Scene"], Awaitable[None]]


class Scene:
    """A listener under test, and what it said."""

    def __init__(self, bus: Bus, idle_after: float | None = None, look_every: float = 60.0) -> None:
        self.bus = bus
        self.told: list[LoginSignal] = []
        self.notes: list[Note] = []
        self.login = Login(
            self.told.append,
            self.notes.append,
            idle_after=idle_after,
            uid=ME,
            address=bus.address,
            look_every=look_every,
        )

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits for it, and fails when it does not come."""
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, (self.told, self.notes)
            await asyncio.sleep(0.005)

    async def tells(self, *signals: LoginSignal) -> None:
        """Exactly these since the last time."""
        await self.until(lambda: len(self.told) >= len(signals))
        assert self.told == list(signals)
        self.told.clear()

    async def held(self) -> None:
        await self.until(lambda: self.login.holds)

    async def settled(self) -> None:
        """Everything that was sent to the listener before has been acted upon."""
        assert self.login._bus is not None
        for _ in range(3):
            await self.login._user()
            await self.until(self.login._happened.empty)
        await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def listening(self, found: bool = True) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.login.run())
        try:
            if found:
                await self.until(lambda: self.login._noted is Note.WORKS)
            yield
            assert not task.done()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with running(tmp_path) as bus:
        yield bus


def play(bus: Bus, act: Callable[[Scene, FakeLogind], Awaitable[None]], **more: float) -> None:
    """Runs a scene with a logind at which this user is logged in once."""

    async def whole() -> None:
        async with fake_logind(bus) as fake:
            fake.login(ME, "1")
            scene = Scene(bus, **more)
            async with scene.listening():
                await act(scene, fake)

    asyncio.run(whole())


def test_suspending_waits_until_it_is_let_go(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        assert not fake.delayed()
        scene.login.hold(True)
        await scene.until(lambda: scene.login.holds)
        assert fake.delayed()
        fake.sleep(True)
        await scene.tells(LoginSignal.SUSPEND)
        assert fake.delayed()
        scene.login.hold(False)
        assert scene.login._delay is None  # within the call
        await scene.until(lambda: not fake.delayed())
        fake.sleep(False)
        await scene.tells(LoginSignal.RESUME)
        await scene.settled()
        assert fake.given == 1

    play(bus, act)


def test_what_is_wanted_is_taken_again_after_a_resume(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        for nights in range(1, 4):
            scene.login.hold(True)
            await scene.held()
            assert fake.given == nights
            fake.sleep(True)
            await scene.tells(LoginSignal.SUSPEND)
            if nights == 2:
                scene.login.hold(False)
                scene.login.hold(True)  # too late for this night
                await scene.settled()
                assert not scene.login.holds
            fake.sleep(False)
            await scene.tells(LoginSignal.RESUME)
        await scene.held()
        assert fake.given == 4
        assert scene.notes == []

    play(bus, act)


def test_asked_for_before_logind_is_there(bus: Bus) -> None:
    async def whole() -> None:
        scene = Scene(bus)
        scene.login.hold(True)
        async with scene.listening(found=False):
            await scene.until(lambda: scene.notes == [Note.NO_LOGIND])
            async with fake_logind(bus) as fake:
                fake.login(ME, "1")
                await scene.until(lambda: scene.login.holds)
                assert fake.delayed()
                assert scene.notes == [Note.NO_LOGIND, Note.WORKS]

    asyncio.run(whole())


def test_the_end_lets_it_go(bus: Bus) -> None:
    async def whole() -> None:
        async with fake_logind(bus) as fake:
            scene = Scene(bus)
            scene.login.hold(True)
            async with scene.listening():
                await scene.until(lambda: scene.login.holds)
            assert not scene.login.holds
            await scene.until(lambda: not fake.delayed())

    asyncio.run(whole())


def test_a_delay_that_is_refused_is_noted_once(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        fake.refuses = True
        scene.login.hold(True)
        await scene.until(lambda: scene.notes)
        scene.login.hold(True)
        await scene.settled()
        assert scene.notes == [Note.REFUSED]
        fake.sleep(True)
        await scene.tells(LoginSignal.SUSPEND)

    play(bus, act)


def test_no_program_that_we_start_holds_it(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        scene.login.hold(True)
        await scene.until(lambda: scene.login.holds)
        assert scene.login._delay is not None
        assert not os.get_inheritable(scene.login._delay)

    play(bus, act)


def test_the_screen(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        session = fake.sessions["1"]
        session.lock()
        await scene.tells(LoginSignal.SCREEN_LOCK)
        session.lock()  # a desktop that never says when it is open again
        await scene.tells(LoginSignal.SCREEN_LOCK)
        session.unlock()
        await scene.tells(LoginSignal.SCREEN_UNLOCK)
        fake.hint("1", True)
        await scene.tells(LoginSignal.SCREEN_LOCK)
        fake.hint("1", True)
        fake.hint("1", False)
        await scene.tells(LoginSignal.SCREEN_UNLOCK)
        later = fake.login(ME, "2")
        later.lock()
        await scene.tells(LoginSignal.SCREEN_LOCK)

    play(bus, act)


def test_a_screen_that_was_locked_before_we_came(bus: Bus) -> None:
    async def whole() -> None:
        async with fake_logind(bus) as fake:
            fake.login(ME, "1").hint = True
            fake.login(OTHER, "2").hint = True
            scene = Scene(bus)
            async with scene.listening():
                await scene.tells(LoginSignal.SCREEN_LOCK)

    asyncio.run(whole())


def test_another_user_is_nobody(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        other = fake.login(OTHER, "2")
        other.lock()
        other.unlock()
        fake.hint("2", True)
        fake.idle(OTHER, 1.0)
        fake.logout(OTHER, "2")
        await scene.settled()
        assert scene.told == []
        fake.sessions["1"].lock()
        await scene.tells(LoginSignal.SCREEN_LOCK)

    play(bus, act, idle_after=10.0)


def test_the_last_login_counts(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        fake.login(ME, "2")
        fake.logout(ME, "1")
        await scene.settled()
        assert scene.told == []
        fake.logout(ME, "2")
        await scene.tells(LoginSignal.LOGOUT)
        fake.login(ME, "3")
        await scene.until(lambda: ME in fake.users)
        fake.sessions["3"].lock()  # makes it look
        await scene.tells(LoginSignal.SCREEN_LOCK)
        fake.logout(ME, "3", state="lingering")
        await scene.tells(LoginSignal.LOGOUT)

    play(bus, act)


def test_a_login_that_leaves_programs_behind(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        fake.users[ME].told_state = "closing"  # without a word: the session is there until its last program ends
        await scene.tells(LoginSignal.LOGOUT)

    play(bus, act, look_every=0.05)


def test_who_was_never_logged_in_does_not_log_out(bus: Bus) -> None:
    async def whole() -> None:
        async with fake_logind(bus) as fake:
            fake.login(OTHER, "1")
            scene = Scene(bus, look_every=0.02)
            async with scene.listening():
                fake.logout(OTHER, "1")
                await scene.settled()
                assert scene.told == []

    asyncio.run(whole())


def test_idle_for_as_long_as_was_asked(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        begun = time.monotonic()
        fake.idle(ME, begun)
        await scene.tells(LoginSignal.IDLE)
        assert time.monotonic() - begun >= 0.3
        fake.idle(ME, None)
        fake.idle(ME, 1.0)
        await scene.tells(LoginSignal.IDLE)
        await scene.settled()
        assert scene.told == []  # once each time

    play(bus, act, idle_after=0.3)


def test_idle_is_not_told_to_who_did_not_ask(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        fake.idle(ME, 1.0)
        await scene.settled()
        assert scene.told == []

    play(bus, act)


def test_logind_anew(bus: Bus) -> None:
    async def whole() -> None:
        scene = Scene(bus)
        scene.login.hold(True)
        async with fake_logind(bus) as fake:
            fake.login(ME, "1")
            async with scene.listening():
                await scene.until(lambda: scene.login.holds)
                await fake.stop()
                await scene.until(lambda: scene.notes == [Note.NO_LOGIND])
                assert scene.login.holds  # logind keeps what it gave out, also while it is updated
                fake.sessions["1"].hint = True
                await fake.start()
                await scene.tells(LoginSignal.SCREEN_LOCK)  # which happened meanwhile
                await scene.until(lambda: scene.notes == [Note.NO_LOGIND, Note.WORKS])
                fake.sleep(True)
                await scene.tells(LoginSignal.SUSPEND)

    asyncio.run(whole())


def test_the_bus_goes_and_comes_back(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logind, "AGAIN_FIRST", 0.02)

    async def whole() -> None:
        scene = Scene(bus)
        scene.login.hold(True)
        async with fake_logind(bus) as fake:
            fake.login(ME, "1")
            async with scene.listening():
                await scene.until(lambda: scene.login.holds)
                bus.stop()
                await scene.until(lambda: scene.notes == [Note.NO_BUS])
                assert not scene.login.holds  # nobody would tell us when to let go
                fake.users.clear()
                await fake.stop()
                bus.start()
                async with fake_logind(bus):
                    await scene.tells(LoginSignal.LOGOUT)  # meanwhile
                    await scene.until(lambda: scene.login.holds)
        assert scene.notes[0] is Note.NO_BUS
        assert scene.notes[-1] is Note.WORKS

    asyncio.run(whole())


@pytest.mark.parametrize(
    "address", ["unix:path={}/nothing", "unix:path={}/file", "nonsense", "tcp:host=nowhere.invalid"]
)
def test_no_bus_is_noted_once(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logind, "AGAIN_FIRST", 0.001)
    (tmp_path / "file").write_bytes(b"")
    tries = 0
    real = Login._connected

    async def counted(self: Login) -> None:
        nonlocal tries
        tries += 1
        await real(self)

    monkeypatch.setattr(Login, "_connected", counted)

    async def whole() -> None:
        scene = Scene(Bus(tmp_path))
        scene.login._address = address.format(tmp_path)
        scene.login.hold(True)
        async with scene.listening(found=False):
            await scene.until(lambda: tries >= 4)
            assert scene.notes == [Note.NO_BUS]
            assert not scene.login.holds
            scene.login.hold(False)

    asyncio.run(whole())


def test_a_bus_that_says_nothing_is_no_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logind, "ANSWER_WITHIN", 0.05)

    async def whole() -> None:
        asked = 0

        def mute(_reader: object, _writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            writers.append(_writer)

        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_unix_server(mute, tmp_path / "bus")
        scene = Scene(Bus(tmp_path))
        async with scene.listening(found=False):
            await scene.until(lambda: scene.notes == [Note.NO_BUS])
            assert asked == 1
        server.close()
        for writer in writers:
            writer.close()

    asyncio.run(whole())


def test_a_logind_that_does_not_answer_is_noted(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logind, "ANSWER_WITHIN", 0.1)

    async def whole() -> None:
        stuck = await MessageBus(bus.address).connect()
        stuck.add_message_handler(lambda message: message.message_type is MessageType.METHOD_CALL)  # and no reply
        await stuck.request_name(NAME)
        scene = Scene(bus)
        async with scene.listening(found=False):
            await scene.until(lambda: scene.notes == [Note.REFUSED])
        stuck.disconnect()
        await stuck.wait_for_disconnect()  # type: ignore[no-untyped-call]

    asyncio.run(whole())


def test_only_logind_is_believed(bus: Bus) -> None:
    """Any program on the bus may send a signal to any other: a stranger must not be able to end the session."""

    async def act(scene: Scene, fake: FakeLogind) -> None:
        stranger = await MessageBus(bus.address, negotiate_unix_fd=True).connect()
        assert scene.login._bus is not None
        mine, theirs = os.pipe()
        before = len(os.listdir("/proc/self/fd"))

        def forged(path: str, interface: str, member: str, signature: str, *body: object) -> Message:
            return Message(
                message_type=MessageType.SIGNAL,
                destination=scene.login._bus.unique_name if scene.login._bus else None,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
                unix_fds=[theirs] if "h" in signature else [],
            )

        session = f"{PATH}/session/_31"
        for message in (
            forged(PATH, f"{NAME}.Manager", "PrepareForSleep", "b", True),
            forged(PATH, f"{NAME}.Manager", "PrepareForSleep", "h", 0),
            forged(session, f"{NAME}.Session", "Lock", ""),
            forged("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "sss", NAME, "", ":1.99"),
        ):
            await stranger.send(message)
        fake.sessions["1"].unlock()  # behind all of them
        await scene.tells(LoginSignal.SCREEN_UNLOCK)
        await scene.settled()
        assert scene.told == []
        stranger.disconnect()
        await stranger.wait_for_disconnect()  # type: ignore[no-untyped-call]
        os.close(theirs)
        os.set_blocking(mine, False)
        assert os.read(mine, 1) == b""  # the one that was sent along is closed here as well
        os.close(mine)
        assert len(os.listdir("/proc/self/fd")) < before

    play(bus, act)


def test_signals_of_another_form_are_nothing(bus: Bus) -> None:
    async def act(scene: Scene, fake: FakeLogind) -> None:
        assert fake._bus is not None
        session = f"{PATH}/session/_31"
        for path, interface, member, signature, body in (
            (PATH, f"{NAME}.Manager", "PrepareForSleep", "s", ["yes"]),
            (session, "org.freedesktop.DBus.Properties", "PropertiesChanged", "s", ["x"]),
            (session, f"{NAME}.Session", "PauseDevice", "uus", [1, 2, "x"]),
        ):
            await fake._bus.send(Message.new_signal(path, interface, member, signature, body))
        await scene.settled()
        assert scene.told == []

    play(bus, act)
