"""Notices on a desktop, over a real message bus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.service.telling import desktop as module
from chatkeep.daemon.service.telling.desktop import Desktop
from chatkeep.daemon.service.telling.errors import Undelivered
from chatkeep.daemon.service.telling.notice import Notice, Problem, Said
from tests.support.notification_server import NotificationServer, private_bus, until
from tests.support.telling import AT

SAID = Said("Storage is full", "The disk <b> & more.", "Free some room.")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with private_bus(tmp_path) as found:
        yield found


def notice(subject: str = "disk", *, over: bool = False, problem: Problem = Problem.STORAGE_FULL) -> Notice:
    return Notice(problem, subject, over, AT.wall_ns, AT)


def live(address: str, server: NotificationServer, play: Callable[[Desktop], Awaitable[None]]) -> None:
    """Plays with a desktop that is there, and finds that it was treated well."""

    async def run() -> None:
        await server.start(address)
        shower = Desktop(address)
        try:
            await play(shower)
        finally:
            await shower.close()
            server.stop()
        assert server.wrong == []

    asyncio.run(run())


def test_the_same_again_replaces_it_and_the_end_takes_it_away(address: str) -> None:
    server = NotificationServer("body", "body-markup")

    async def play(shower: Desktop) -> None:
        await shower.deliver(notice("disk"), SAID)
        await shower.deliver(notice("cloud"), SAID)
        await shower.deliver(notice("disk"), SAID._replace(title="Storage is still full"))
        assert sorted(one["summary"] for one in server.shown.values()) == ["Storage is full", "Storage is still full"]
        await shower.deliver(notice("disk", over=True), SAID)
        assert [one["summary"] for one in server.shown.values()] == ["Storage is full"]
        await shower.deliver(notice("disk", over=True), SAID)
        await shower.deliver(notice("cloud", over=True), SAID)
        assert server.shown == {}

    live(address, server, play)
    assert [name for name, _ in server.calls].count("GetCapabilities") == 1
    assert [name for name, _ in server.calls].count("CloseNotification") == 2


@pytest.mark.parametrize(
    ("capabilities", "body"),
    [
        (("body", "body-markup"), "The disk &lt;b&gt; &amp; more.\nFree some room."),
        (("body",), "The disk <b> & more.\nFree some room."),
    ],
)
def test_words_are_no_markup(address: str, capabilities: tuple[str, ...], body: str) -> None:
    server = NotificationServer(*capabilities)

    async def play(shower: Desktop) -> None:
        await shower.deliver(notice(), SAID)
        await shower.deliver(notice(problem=Problem.WATCH_DEGRADED), SAID)

    live(address, server, play)
    assert [(one["body"], one["urgency"]) for one in server.shown.values()] == [(body, 2), (body, 1)]


def test_what_the_user_closed_is_not_replaced(address: str) -> None:
    server = NotificationServer("body")

    async def play(shower: Desktop) -> None:
        await shower.deliver(notice(), SAID)
        server.dismiss(1)
        await until(lambda: not shower._shown)
        await shower.deliver(notice(), SAID)
        assert list(server.shown) == [2]
        await shower.deliver(notice(over=True), SAID)
        assert server.shown == {}

    live(address, server, play)


def test_a_desktop_that_went_and_came_again(address: str) -> None:
    async def run() -> None:
        first, second = NotificationServer("body"), NotificationServer("body")
        await first.start(address)
        shower = Desktop(address)
        await shower.deliver(notice(), SAID)
        first.stop()
        with pytest.raises(Undelivered) as caught:
            await shower.deliver(notice(), SAID)
        assert caught.value.params == {"channel": "desktop", "reason": "absent"}
        await second.start(address)
        await shower.deliver(notice(), SAID)
        assert list(second.shown) == [1]
        assert second.wrong == []
        await shower.close()
        second.stop()

    asyncio.run(run())


@pytest.mark.parametrize("where", ["unix:path=/nonexistent/bus", "nonsense", "tcp:host=127.0.0.1,port=1"])
def test_without_a_bus_there_is_nobody_to_tell(where: str) -> None:
    async def run() -> None:
        shower = Desktop(where)
        with pytest.raises(Undelivered) as caught:
            await shower.deliver(notice(), SAID)
        assert caught.value.params["reason"] == "absent"
        await shower.close()

    asyncio.run(run())


def test_without_an_address_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    test_without_a_bus_there_is_nobody_to_tell("")


def test_a_bus_without_a_desktop(address: str) -> None:
    test_without_a_bus_there_is_nobody_to_tell(address)


def test_a_desktop_that_hangs_is_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NotificationServer("body")
    server.silent = True

    async def play(shower: Desktop) -> None:
        with monkeypatch.context() as hasty:
            hasty.setattr(module, "SECONDS", 0.5)
            async with asyncio.timeout(60):
                with pytest.raises(Undelivered) as caught:
                    await shower.deliver(notice(), SAID)
        assert caught.value.params["reason"] == "silent"
        server.silent = False
        await shower.deliver(notice(), SAID)
        assert len(server.shown) == 1

    live(address, server, play)
    assert server.calls
