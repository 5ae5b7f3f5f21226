"""A system bus of its own, and a logind on it: what org.freedesktop.login1(5) publishes of it, and no more.

It refuses what the real one refuses, by the same names, and sends its signals from the same objects. The bus is the
real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

from dbus_fast import DBusError, PropertyAccess
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusObjectPath, DBusSignature, DBusStr, DBusUInt32, DBusUInt64, DBusUnixFd
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="signal"/><allow send_type="method_call"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="signal"/><allow receive_type="method_call"/><allow receive_type="method_return"/>
<allow receive_type="error"/></policy></busconfig>
"""
Sessions = Annotated[list[tuple[str, str]], DBusSignature("a(so)")]


class Bus:
    """A message bus in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "bus"
        self._config = directory / "bus.conf"
        self._config.write_text(_CONFIG.format(socket=self._socket))
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix:path={self._socket}"

    def start(self) -> None:
        """Returns when it serves."""
        command = ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile", "--print-address"]
        self._running = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._running.stdout is not None
        assert self._running.stdout.readline()

    def stop(self) -> None:
        """Every connection ends."""
        if self._running is not None:
            self._running.kill()
            self._running.communicate()
            self._running = None
        with contextlib.suppress(FileNotFoundError):
            self._socket.unlink()


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Bus]:
    """A bus that serves."""
    bus = Bus(directory)
    bus.start()
    try:
        yield bus
    finally:
        bus.stop()


class _Session(ServiceInterface):
    def __init__(self, path: str) -> None:
        super().__init__(f"{NAME}.Session")
        self.path, self.hint = path, False

    @dbus_property(access=PropertyAccess.READ, name="LockedHint")
    def locked_hint(self) -> DBusBool:
        return self.hint

    @dbus_signal(name="Lock")
    def lock(self) -> None:
        """The screen is to be locked."""

    @dbus_signal(name="Unlock")
    def unlock(self) -> None:
        """And opened."""


class _User(ServiceInterface):
    def __init__(self) -> None:
        super().__init__(f"{NAME}.User")
        self.told_state, self.told_sessions, self.since = "active", list[tuple[str, str]](), 0

    @dbus_property(access=PropertyAccess.READ, name="State")
    def state(self) -> DBusStr:
        return self.told_state

    @dbus_property(access=PropertyAccess.READ, name="Sessions")
    def sessions(self) -> Sessions:
        return self.told_sessions

    @dbus_property(access=PropertyAccess.READ, name="IdleHint")
    def idle_hint(self) -> DBusBool:
        return bool(self.since)

    @dbus_property(access=PropertyAccess.READ, name="IdleSinceHintMonotonic")
    def idle_since(self) -> DBusUInt64:
        return self.since


class _Logins(ServiceInterface):
    def __init__(self, owner: FakeLogind) -> None:
        super().__init__(f"{NAME}.Manager")
        self._owner = owner

    @dbus_method(name="GetUser")
    def get_user(self, uid: DBusUInt32) -> DBusObjectPath:
        if uid not in self._owner.users:
            raise DBusError(f"{NAME}.NoSuchUser", "no such user")
        return f"{PATH}/user/_{uid}"

    @dbus_method(name="Inhibit")
    def inhibit(self, what: DBusStr, who: DBusStr, why: DBusStr, mode: DBusStr) -> DBusUnixFd:
        if self._owner.refuses:
            raise DBusError("org.freedesktop.DBus.Error.AccessDenied", "not you")
        if self._owner.sleeping:
            raise DBusError(f"{NAME}.OperationInProgress", "too late")
        if (what, mode) != ("sleep", "delay") or not who or not why:
            raise DBusError("org.freedesktop.DBus.Error.InvalidArgs", "not that")
        mine, theirs = os.pipe()
        self._owner.holding.append(mine)
        asyncio.get_running_loop().call_later(0.1, os.close, theirs)  # by then the library has sent it
        self._owner.given += 1
        return theirs

    @dbus_signal(name="PrepareForSleep")
    def prepare_for_sleep(self, begins: bool) -> DBusBool:
        return begins

    @dbus_signal(name="SessionRemoved")
    def session_removed(self, name: str, path: str) -> Annotated[tuple[str, str], DBusSignature("so")]:
        return name, path


class FakeLogind:
    """A logind that a test plays. What is not a property of the published interface is for the test alone.

    Attributes:
        users: who is known. holding: the ends of delays that were given out. given: how many.
        refuses: delays, as where a policy says so. sleeping: it has begun.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._bus: MessageBus | None = None
        self.users: dict[int, _User] = {}
        self.sessions: dict[str, _Session] = {}
        self.holding: list[int] = []
        self.given = 0
        self.refuses = self.sleeping = False
        self.manager = _Logins(self)

    async def start(self) -> None:
        """On the bus, under its name."""
        self._bus = await MessageBus(self._address, negotiate_unix_fd=True).connect()
        self._bus.export(PATH, self.manager)
        for uid, user in self.users.items():
            self._bus.export(f"{PATH}/user/_{uid}", user)
        for session in self.sessions.values():
            self._bus.export(session.path, session)
        await self._bus.request_name(NAME)

    async def stop(self) -> None:
        """Gone, with its connection."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.disconnect()
            with contextlib.suppress(Exception):
                await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def login(self, uid: int, name: str) -> _Session:
        """A session of this user, as after a login at the screen."""
        session = self.sessions[name] = _Session(f"{PATH}/session/_3{name}")
        user = self.users.get(uid) or _User()
        new = uid not in self.users
        self.users[uid] = user
        user.told_sessions.append((name, session.path))
        user.told_state = "active"
        if self._bus is not None:
            self._bus.export(session.path, session)
            if new:
                self._bus.export(f"{PATH}/user/_{uid}", user)
        return session

    def logout(self, uid: int, name: str, state: str = "") -> None:
        """The session ends; `state`: what becomes of the user, nothing for one who is gone when it was the last."""
        session, user = self.sessions.pop(name), self.users[uid]
        user.told_sessions.remove((name, session.path))
        if state:
            user.told_state = state
        elif not user.told_sessions:
            del self.users[uid]
        assert self._bus is not None
        self._bus.unexport(session.path)
        if uid not in self.users:
            self._bus.unexport(f"{PATH}/user/_{uid}")
        self.manager.session_removed(name, session.path)

    def hint(self, name: str, locked: bool) -> None:
        """A desktop tells logind that its screen is locked, or is not."""
        session = self.sessions[name]
        session.hint = locked
        session.emit_properties_changed({"LockedHint": locked})

    def idle(self, uid: int, since: float | None) -> None:
        """Nobody is at any of the user's sessions since then (monotonic), or somebody is."""
        self.users[uid].since = 0 if since is None else int(since * 1e6)
        self.users[uid].emit_properties_changed({"IdleHint": since is not None})

    def sleep(self, begins: bool) -> None:
        """The machine is about to sleep, or has woken up."""
        self.sleeping = begins
        self.manager.prepare_for_sleep(begins)

    def delayed(self) -> bool:
        """Whether anybody still holds a delay."""
        return any(not _let_go(end) for end in self.holding)


def _let_go(end: int) -> bool:
    os.set_blocking(end, False)
    try:
        return os.read(end, 1) == b""
    except BlockingIOError:
        return False


@contextlib.asynccontextmanager
async def fake_logind(bus: Bus) -> AsyncIterator[FakeLogind]:
    """One that answers, and knows nobody."""
    logind = FakeLogind(bus.address)
    await logind.start()
    try:
        yield logind
    finally:
        await logind.stop()
        for end in logind.holding:
            os.close(end)
