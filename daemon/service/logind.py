"""What systemd-logind says about the machine and this user's logins: it is about to sleep, the screen is locked, nobody
is logged in any more, nobody is there.

The interface is org.freedesktop.login1(5), on the system bus. All of it is optional: where there is no bus, no logind,
or where it refuses, that is noted once, looked for again from time to time, and nothing else is different.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import time
from collections.abc import Callable
from typing import Any, Final

from dbus_fast import AuthError, BusType, DBusError, InvalidAddressError, Message, MessageFlag, MessageType
from dbus_fast.aio import MessageBus

_NAME: Final = "org.freedesktop.login1"
_MANAGER, _USER, _SESSION = (f"{_NAME}.{interface}" for interface in ("Manager", "User", "Session"))
_PATH: Final = "/org/freedesktop/login1"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_BUS: Final = "org.freedesktop.DBus"
_RULES: Final = (
    f"type='signal',sender='{_NAME}',path_namespace='{_PATH}'",
    f"type='signal',sender='{_BUS}',member='NameOwnerChanged',arg0='{_NAME}'",
)
_THERE: Final = frozenset({"active", "online", "opening"})  # states of a user who is logged in; lingering is none

ANSWER_WITHIN: Final = 10.0
"""Seconds for an answer. Longer than the bus and logind take on a machine that just woke up."""

AGAIN_FIRST, AGAIN_MOST = 1.0, 300.0
"""Seconds until a bus that is not there, or went away, is tried again: doubled from the first to the most."""

LOOK_EVERY: Final = 60.0
"""Seconds between looks at the user. A login that leaves programs behind ends without a signal, and a terminal becomes
idle without one."""


class LoginSignal(enum.Enum):
    """What happened. The values that are also in `session.lock_on` are the same words."""

    SUSPEND = "suspend"  # about to happen; it waits for `hold(False)`, or as long as logind has patience: 5 s
    RESUME = "resume"
    SCREEN_LOCK = "screen-lock"
    SCREEN_UNLOCK = "screen-unlock"
    LOGOUT = "logout"  # of the last login: this user is not logged in any more
    IDLE = "idle"  # for as long as was asked


class Note(enum.Enum):
    """How well it goes, for a log. Each is given once, until there is another."""

    NO_BUS = "no-bus"  # there is no system bus, or it does not let us in
    NO_LOGIND = "no-logind"  # nobody on the bus has its name
    REFUSED = "refused"  # logind does not answer, or answers no
    WORKS = "works"


class _Trouble(Exception):
    """A question that got no answer, or no for one."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Login:
    """Listens to logind, and has suspending wait for us. All in one event loop; `run` is its task.

    Args:
        tell: called in the loop with every signal; a signal can come twice, and must mean the same then.
        note: called in the loop with what goes wrong, and when it is over.
        idle_after: seconds without anybody until `IDLE` is told, once each time; None: it is not looked for.
            A terminal counts as idle after what logind has configured for it, 30 minutes, if that is longer.
        uid: whose logins. address: of the bus. look_every: seconds.
    """

    def __init__(
        self,
        tell: Callable[[LoginSignal], object],
        note: Callable[[Note], object],
        *,
        idle_after: float | None = None,
        uid: int | None = None,
        address: str | None = None,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._tell, self._note = tell, note
        self.idle_after = idle_after
        self._uid = os.getuid() if uid is None else uid
        self._address, self._look_every = address, look_every
        self._noted: Note | None = None
        self._bus: MessageBus | None = None
        self._owner = ""  # the unique name of logind
        self._happened: asyncio.Queue[Message | None] = asyncio.Queue()
        self._wanted = self._sleeping = False
        self._delay: int | None = None  # the descriptor that makes suspending wait
        self._there = False
        self._locked = frozenset[str]()  # paths of sessions whose screen is known to be locked
        self._idle_told = 0  # when the idleness began that was told, in logind's microseconds

    @property
    def holds(self) -> bool:
        """Whether suspending waits for us now."""
        return self._delay is not None

    def hold(self, wanted: bool) -> None:
        """Whether suspending is to wait from now on: as long as there is something to be done before.

        False lets it go on at once, in this call. True is done by `run` as soon as it can be, again after each resume.
        """
        self._wanted = wanted
        if not wanted:
            self._let_go()
        elif self._delay is None:
            self._happened.put_nowait(None)

    async def run(self) -> None:
        """Listens until it is cancelled."""
        again = AGAIN_FIRST
        try:
            while True:
                begun = time.monotonic()
                try:
                    await self._connected()
                except (OSError, AuthError, InvalidAddressError, _Trouble, TimeoutError, EOFError):
                    self._says(Note.NO_BUS)
                if time.monotonic() - begun > again:
                    again = AGAIN_FIRST
                await asyncio.sleep(again)
                again = min(2 * again, AGAIN_MOST)
        finally:
            self._let_go()

    async def _connected(self) -> None:
        """One connection, from its beginning until it is gone."""
        self._happened = asyncio.Queue()
        bus = MessageBus(self._address, BusType.SYSTEM, negotiate_unix_fd=True)
        gone: asyncio.Future[None] | None = None
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await bus.connect()
            gone = asyncio.ensure_future(_ended(bus))
            gone.add_done_callback(self._wake)
            self._bus = bus
            bus.add_message_handler(self._receive)
            for rule in _RULES:
                await self._call(_BUS, "/org/freedesktop/DBus", _BUS, "AddMatch", "s", rule)
            try:
                (self._owner,) = await self._call(_BUS, "/org/freedesktop/DBus", _BUS, "GetNameOwner", "s", _NAME)
            except _Trouble:
                self._says(Note.NO_LOGIND)
            try:
                await self._serve(gone)
            except _Trouble:
                if bus.connected:
                    self._says(Note.REFUSED)
                    return
            self._says(Note.NO_BUS)
        finally:
            self._owner, self._bus, self._sleeping = "", None, False
            self._let_go()  # without the bus nobody says when to
            if gone is not None:
                bus.disconnect()
                with contextlib.suppress(Exception):  # how it ended is nobody's concern
                    async with asyncio.timeout(1):  # or its socket is left to the collector
                        await gone

    async def _serve(self, gone: asyncio.Future[None]) -> None:
        wait = self._look_every
        if self._owner:
            await self._arrived()
        while not gone.done():
            message: Message | None = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    message = await self._happened.get()
            if gone.done():
                return
            if message is not None and message.member == "NameOwnerChanged":
                self._owner = message.body[2]
                if not self._owner:
                    self._sleeping = False
                    self._says(Note.NO_LOGIND)
                else:
                    await self._arrived()
            elif self._owner and message is not None and str(message.path).startswith(f"{_PATH}/session/"):
                await self._screen(message)
            if self._owner and self._happened.empty():
                await self._take()
                wait = await self._look()

    def _receive(self, message: Message) -> bool:
        """Called by the library with everything that arrives. Any program of any user may send us something."""
        if message.message_type in (MessageType.METHOD_RETURN, MessageType.ERROR):
            return False
        for descriptor in message.unix_fds:
            os.close(descriptor)  # nobody has a reason to send one; kept, they would be all that we may have
        if message.message_type is not MessageType.SIGNAL:
            return False
        if message.sender == _BUS:
            if message.member == "NameOwnerChanged" and message.signature == "sss" and message.body[0] == _NAME:
                self._happened.put_nowait(message)
        elif self._owner and message.sender == self._owner:
            if message.member == "PrepareForSleep" and message.path == _PATH and message.signature == "b":
                self._sleep(message.body[0])  # at once: the machine waits for seconds only
            else:
                self._happened.put_nowait(message)
        return False

    def _sleep(self, begins: bool) -> None:
        self._sleeping = begins
        self._tell(LoginSignal.SUSPEND if begins else LoginSignal.RESUME)
        if not begins:
            self._let_go()  # one that nobody let go in time does not count for the next time
            self._happened.put_nowait(None)

    async def _arrived(self) -> None:
        """Logind is there, maybe anew: what was missed meanwhile."""
        await self._look()
        for path in await self._sessions():
            with contextlib.suppress(_Trouble):  # gone since it was listed
                if (await self._get_all(path, _SESSION)).get("LockedHint") is True:
                    self._screen_is(path, True)
        self._says(Note.WORKS)
        await self._take()

    async def _screen(self, message: Message) -> None:
        """A signal of one session, which may be another user's."""
        if message.interface == _PROPERTIES and message.signature == "sa{sv}as":
            if message.body[0] != _SESSION or "LockedHint" not in message.body[1]:
                return
            locked = message.body[1]["LockedHint"].value is True
            told = False
        elif message.interface == _SESSION and message.member in ("Lock", "Unlock"):
            locked = message.member == "Lock"
            told = True
        else:
            return
        if message.path is not None and message.path in await self._sessions():
            # An order to lock is told each time: not every desktop says when its screen is open again.
            self._screen_is(message.path, locked, always=told)

    def _screen_is(self, path: str, locked: bool, always: bool = False) -> None:
        known = path in self._locked
        self._locked = self._locked | {path} if locked else self._locked - {path}
        if known != locked or always:
            self._tell(LoginSignal.SCREEN_LOCK if locked else LoginSignal.SCREEN_UNLOCK)

    async def _look(self) -> float:
        """Whether the user is there; returns after how many seconds to look again."""
        user = await self._user()
        there = user.get("State") in _THERE
        if self._there and not there:
            self._locked = frozenset()
            self._tell(LoginSignal.LOGOUT)
        self._there = there
        since = int(user.get("IdleSinceHintMonotonic", 0))
        if self.idle_after is None or not (there and user.get("IdleHint") is True and since):
            return self._look_every
        left = since / 1e6 + self.idle_after - time.monotonic()
        if left > 0:
            return min(self._look_every, left + 0.001)
        if since != self._idle_told:
            self._idle_told = since
            self._tell(LoginSignal.IDLE)
        return self._look_every

    async def _user(self) -> dict[str, Any]:
        """What logind knows of this user: nothing when it does not know them."""
        try:
            (path,) = await self._call(_NAME, _PATH, _MANAGER, "GetUser", "u", self._uid)
            return await self._get_all(path, _USER)
        except _Trouble as trouble:
            if trouble.name in (f"{_NAME}.NoSuchUser", "org.freedesktop.DBus.Error.UnknownObject"):
                return {}
            raise

    async def _sessions(self) -> frozenset[str]:
        """Paths of this user's logins."""
        return frozenset(path for _, path in (await self._user()).get("Sessions", ()))

    async def _take(self) -> None:
        """Has suspending wait, if it is to."""
        if not self._wanted or self._sleeping or self._delay is not None:
            return
        words = ("sleep", "Chatkeep", "The session that can read the backup is closed first", "delay")
        try:
            reply = await self._reply(_NAME, _PATH, _MANAGER, "Inhibit", "ssss", *words)
        except _Trouble:
            self._says(Note.REFUSED)
            return
        for descriptor in reply.unix_fds:
            if self._delay is None and self._wanted and not self._sleeping:
                os.set_inheritable(descriptor, False)  # a program that we start would have the machine wait for it
                self._delay = descriptor
            else:
                os.close(descriptor)

    def _let_go(self) -> None:
        if self._delay is not None:
            os.close(self._delay)
        self._delay = None

    def _wake(self, gone: asyncio.Future[None]) -> None:
        if not gone.cancelled():
            gone.exception()  # looked at, or it is reported as an error that nobody saw
        self._happened.put_nowait(None)

    def _says(self, note: Note) -> None:
        if note is not self._noted and not (self._noted is None and note is Note.WORKS):
            self._note(note)
        self._noted = note

    async def _get_all(self, path: str, interface: str) -> dict[str, Any]:
        (values,) = await self._call(_NAME, path, _PROPERTIES, "GetAll", "s", interface)
        return {name: variant.value for name, variant in values.items()}

    async def _call(self, to: str, path: str, interface: str, member: str, signature: str, *body: object) -> list[Any]:
        return list((await self._reply(to, path, interface, member, signature, *body)).body)

    async def _reply(self, to: str, path: str, interface: str, member: str, signature: str, *body: object) -> Message:
        """Asks; raises _Trouble when the answer is an error or does not come."""
        if self._bus is None:
            raise _Trouble("disconnected")
        question = Message(
            destination=to,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            flags=MessageFlag.NO_AUTOSTART,
        )
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reply = await self._bus.call(question)
        except (TimeoutError, DBusError, EOFError, OSError) as exc:
            raise _Trouble(type(exc).__name__) from exc
        if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
            raise _Trouble("" if reply is None else str(reply.error_name))
        return reply


async def _ended(bus: MessageBus) -> None:
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
