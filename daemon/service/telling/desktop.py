"""Notices on the desktop: org.freedesktop.Notifications on the session bus, Desktop Notifications Specification 1.2.

A notice about the same thing replaces the one that is shown, and one that is over is taken away. Without a desktop a
notice waits for one: the user may log in later.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from chatkeep.daemon.service.telling.errors import Undelivered
from chatkeep.daemon.service.telling.notice import Key, Notice, Said
from chatkeep.daemon.service.telling.scrub import scrubbed

SERVICE: Final = "org.freedesktop.Notifications"
PATH: Final = "/org/freedesktop/Notifications"
SECONDS: Final = 10.0  # for one call
_NORMAL, _CRITICAL = 1, 2  # urgencies: a critical one stays until it is dismissed
_WATCH: Final = f"type='signal',interface='{SERVICE}',member='NotificationClosed',path='{PATH}'"


class Desktop:
    """Shows notices. To be closed.

    `address`: of the bus; empty: this session's.
    """

    name: Final = "desktop"

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._bus: MessageBus | None = None
        self._shown: dict[Key, int] = {}
        self._markup = False

    async def deliver(self, notice: Notice, said: Said) -> None:
        """Shows one, or takes away what is over. Raises Undelivered."""
        try:
            async with asyncio.timeout(SECONDS):
                bus = await self._connected()
                if notice.over:
                    await self._take_away(bus, notice.key)
                else:
                    await self._show(bus, notice, said)
        except TimeoutError:
            self._leave()
            raise Undelivered(channel=self.name, reason="silent") from None
        except (OSError, EOFError) as exc:
            self._leave()
            raise Undelivered(channel=self.name, reason="absent") from exc

    async def close(self) -> None:
        """Leaves the bus. What is shown stays, as far as the desktop keeps what its programs left."""
        self._leave()

    async def _connected(self) -> MessageBus:
        if self._bus is not None and self._bus.connected:
            return self._bus
        self._leave()
        try:
            # The one that is connected is kept: some desktops take notices away when their sender leaves the bus.
            bus = MessageBus(self._address or None, BusType.SESSION)
            self._bus = await bus.connect()
        except Exception as exc:
            raise ConnectionError from exc  # no address, no such socket, refused: there is no desktop to speak of
        bus.add_message_handler(self._heard)
        await self._call(bus, "AddMatch", "s", [_WATCH], "org.freedesktop.DBus", "/org/freedesktop/DBus")
        found = await self._call(bus, "GetCapabilities", "", [])
        self._markup = "body-markup" in found[0]
        return bus

    async def _show(self, bus: MessageBus, notice: Notice, said: Said) -> None:
        body = scrubbed("\n".join(filter(None, (said.text, said.remedy))))
        hints = {
            "urgency": Variant("y", _NORMAL if notice.slight else _CRITICAL),
            "category": Variant("s", "device.error"),
            "desktop-entry": Variant("s", "chatkeep"),
        }
        replaces = self._shown.get(notice.key, 0)
        arguments = ["Chatkeep", replaces, "dialog-warning", scrubbed(said.title), self._plain(body), [], hints, -1]
        (number,) = await self._call(bus, "Notify", "susssasa{sv}i", arguments)
        self._shown[notice.key] = number

    async def _take_away(self, bus: MessageBus, key: Key) -> None:
        number = self._shown.pop(key, None)
        if number is not None:
            # An error: it is not shown any more, which is what was wanted.
            with contextlib.suppress(ConnectionError):
                await self._call(bus, "CloseNotification", "u", [number])

    async def _call(
        self, bus: MessageBus, member: str, signature: str, body: list[Any], service: str = SERVICE, path: str = PATH
    ) -> list[Any]:
        message = Message(service, path, service, member, signature=signature, body=body)
        reply = await bus.call(message)
        if reply is None or reply.message_type is MessageType.ERROR:
            raise ConnectionError
        return reply.body

    def _heard(self, message: Message) -> None:
        """Forgets what the user closed: its number may be given to another notice, which must not be replaced."""
        if message.message_type is MessageType.SIGNAL and message.member == "NotificationClosed" and message.body:
            self._shown = {key: number for key, number in self._shown.items() if number != message.body[0]}

    def _plain(self, text: str) -> str:
        """As it is to be read: a name of a source is no markup."""
        if not self._markup:
            return text
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    def _leave(self) -> None:
        self._shown = {}
        if self._bus is not None:
            with contextlib.suppress(Exception):
                self._bus.disconnect()
            self._bus = None
