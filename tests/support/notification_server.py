"""A message bus of one's own, and a desktop on it that holds callers to the letter of the specification."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

SERVICE = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={directory}/bus</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


@contextmanager
def private_bus(directory: Path) -> Iterator[str]:
    """The address of a bus that nobody else is on, and that starts no services."""
    config = directory / "bus.conf"
    config.write_text(_CONFIG.format(directory=directory))
    command = ["dbus-daemon", "--nofork", "--print-address=1", f"--config-file={config}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


class NotificationServer:
    """The desktop.

    Attributes:
        shown: what is on the screen, by number.
        calls: what was asked, with its arguments.
        wrong: what no client may do.
    """

    def __init__(self, *capabilities: str) -> None:
        self.capabilities = list(capabilities)
        self.shown: dict[int, dict[str, Any]] = {}
        self.calls: list[tuple[str, list[Any]]] = []
        self.wrong: list[str] = []
        self.silent = False
        self._next = 1

    async def start(self, address: str) -> None:
        """Owns the name on a bus."""
        self._bus = await MessageBus(address).connect()
        self._bus.add_message_handler(self._asked)
        await self._bus.request_name(SERVICE)

    def stop(self) -> None:
        self._bus.disconnect()

    def dismiss(self, number: int, reason: int = 2) -> None:
        """The user closes one."""
        del self.shown[number]
        self._bus.send(Message.new_signal(PATH, SERVICE, "NotificationClosed", "uu", [number, reason]))

    def _asked(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or message.interface != SERVICE:
            return None
        self.calls.append((str(message.member), message.body))
        if self.silent:
            return True
        answers = {"Notify": self._notify, "CloseNotification": self._close, "GetCapabilities": self._able}
        if message.path != PATH or message.member not in answers:
            self.wrong.append(f"no such call: {message.path} {message.member}")
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", "")
        return answers[message.member](message)

    def _able(self, message: Message) -> Message:
        return Message.new_method_return(message, "as", [self.capabilities])

    def _notify(self, message: Message) -> Message:
        if message.signature != "susssasa{sv}i":
            self.wrong.append(f"signature {message.signature}")
            return Message.new_error(message, "org.freedesktop.DBus.Error.InvalidArgs", "")
        _, replaces, _, summary, body, actions, hints, timeout = message.body
        if replaces and replaces not in self.shown:
            self.wrong.append(f"replaces {replaces}, which is not shown")
        if "body-markup" in self.capabilities and re.search(r"&(?!amp;|lt;|gt;|quot;|apos;)|[<>]", body):
            self.wrong.append(f"bad markup: {body}")
        if not summary or "\n" in summary or actions or timeout < -1:
            self.wrong.append(f"bad: {summary!r} {actions} {timeout}")
        kinds = {"urgency": "y", "category": "s", "desktop-entry": "s"}
        for name, value in hints.items():
            if not isinstance(value, Variant) or kinds.get(name) != value.signature:
                self.wrong.append(f"hint {name}")
        number = replaces or self._next
        self._next = max(self._next, number + 1)
        self.shown[number] = {"summary": summary, "body": body, "urgency": hints["urgency"].value}
        return Message.new_method_return(message, "u", [number])

    def _close(self, message: Message) -> Message:
        (number,) = message.body
        if number not in self.shown:
            return Message.new_error(message, f"{SERVICE}.Error.ExceedsMaxSize", "no such notification")
        self.dismiss(number, 3)
        return Message.new_method_return(message)


async def until(what: Any, seconds: float = 20) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.01)
