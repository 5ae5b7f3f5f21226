"""All of telling together: real channels, a real bus, and nobody who is delayed by them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.model import Config, FolderOptions, ProviderConfig, Source, VaultConfig
from chatkeep.config.running import TellConfig
from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.moment import Moment, now
from chatkeep.daemon.service.telling import deliveries, heartbeat, post, teller
from chatkeep.daemon.service.telling.memory import Memory
from chatkeep.daemon.service.telling.notice import Notice, Problem, Said
from chatkeep.daemon.service.telling.teller import Teller, limits_of
from tests.support.notification_server import NotificationServer, private_bus, until
from tests.support.telling import TOKEN
from tests.unit.service.test_telling_addresses import Server
from tests.unit.service.test_telling_addresses import server as server
from tests.unit.service.test_telling_metrics import figures

AT_ONCE = 15.0  # seconds; far from what anything here waits for that hangs, and from what a busy machine takes


@pytest.fixture(autouse=True)
def _whatever_the_disk_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teller, "LEAVING", AT_ONCE)


def said(notice: Notice) -> Said:
    return Said(f"{notice.problem} {notice.subject}", "over" if notice.over else "begun", "")


class Room:
    """A configuration, a bus, and a teller that runs for a play."""

    def __init__(self, directory: Path, **tell: Any) -> None:
        self.directory, self.bus, self.heard = directory, Bus(), list[Event]()
        (directory / "state").mkdir(exist_ok=True)
        self.bus.subscribe(self.heard.append)
        self.config = self.with_tell(**tell)
        self.teller = Teller(self.config, self.bus, said)

    def with_tell(self, **tell: Any) -> Config:
        return Config(
            vault=VaultConfig("family"),
            sources=(Source(self.directory / "signal", "signal"),),
            providers=(ProviderConfig("disk", "folder", FolderOptions(self.directory / "disk")),),
            state_dir=self.directory / "state",
            tell=TellConfig(**({"desktop": False} | tell)),
        )

    def play(self, play: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            task = asyncio.create_task(self.teller.run())
            try:
                await play()
            finally:
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=AT_ONCE)
                assert done, "it does not leave"
                assert task.cancelled()

        asyncio.run(run())

    def happens(self, kind: Kind, **values: Any) -> None:
        self.bus.publish(Event(kind, now(), values))

    def full(self) -> None:
        self.happens(Kind.UPLOAD_FAILED, provider="disk", code="quota-exceeded", disposition="needs-user")

    def good(self) -> None:
        self.happens(Kind.UPLOAD_DONE, provider="disk", bytes=1, waiting=0, acknowledged_ns=None)

    def secret(self, name: str, url: str) -> Path:
        path = self.directory / name
        path.write_text(url)
        path.chmod(0o600)
        return path

    def told(self, kind: Kind = Kind.PROBLEM) -> list[tuple[str, str]]:
        return [(e.values["problem"], e.values["subject"]) for e in self.heard if e.kind is kind]


def posts(server: Server) -> list[tuple[str, bool]]:
    return [
        (json.loads(one["body"])["problem"], json.loads(one["body"])["over"]) for one in server.came() if one["body"]
    ]


def test_a_problem_is_told_in_every_way_and_so_is_its_end(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = NotificationServer("body")
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        hook = tmp_path / "hook"
        hook.write_text(server.url(f"/200/{TOKEN}"))
        hook.chmod(0o600)
        script = ["/bin/sh", "-c", f"cat >> {tmp_path}/told"]
        figures_file = tmp_path / "chatkeep.prom"
        room = Room(tmp_path, desktop=True, webhook_file=hook, command=tuple(script), metrics_file=figures_file)

        async def play() -> None:
            await screen.start(address)
            room.full()
            await until(lambda: screen.shown and posts(server) and (tmp_path / "told").exists())
            assert [one["summary"] for one in screen.shown.values()] == ["storage-full disk"]
            assert [notice.problem for notice in room.teller.standing()] == [Problem.STORAGE_FULL]
            assert 'chatkeep_problems{problem="storage-full"} 1' in room.teller.metrics()
            await until(lambda: figures_file.exists())
            room.good()
            await until(lambda: not screen.shown and len(posts(server)) == 2)
            await until(lambda: len((tmp_path / "told").read_text().splitlines()) == 2)
            screen.stop()

        room.play(play)
    assert posts(server) == [("storage-full", False), ("storage-full", True)]
    assert room.told() == room.told(Kind.PROBLEM_OVER) == [("storage-full", "disk")]
    assert figures(figures_file.read_text())
    assert screen.wrong == []
    assert not [event for event in room.heard if TOKEN in repr(event)]


def test_what_happened_before_it_runs_is_told_too(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.happens(Kind.STARTED, version="9")
    room.full()

    async def play() -> None:
        await until(room.told)

    room.play(play)
    assert 'chatkeep_info{version="9"} 1' in room.teller.metrics()


def test_channels_that_hang_delay_nobody(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "SECONDS", 600.0)
    room = Room(tmp_path, webhook_file=None, command=("/bin/sleep", "600"))
    room.config = room.with_tell(
        webhook_file=room.secret("hook", server.url("/slow/x")),
        heartbeat_file=room.secret("heart", server.url("/slow/h")),
        command=("/bin/sleep", "600"),
    )
    room.teller.reload(room.config)

    async def play() -> None:
        room.full()
        await until(lambda: server.came())
        longest, before = 0.0, time.monotonic()
        for _ in range(500):
            room.happens(Kind.UPLOAD_PROGRESS, provider="disk", done=1, total=2)
            room.happens(Kind.SNAPSHOT_NOTHING, source="signal")
            await asyncio.sleep(0)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
        assert longest < AT_ONCE
        assert 'chatkeep_compared_timestamp_seconds{source="signal"}' in await metrics_of(room)

    room.play(play)  # and it leaves at once


async def metrics_of(room: Room) -> str:
    await until(lambda: "compared_timestamp" in room.teller.metrics())
    return room.teller.metrics()


def test_what_could_not_be_told_is_told_after_a_restart_and_nothing_twice(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "MEMORY_PACE", 0.05)
    room = Room(tmp_path)
    room.config = room.with_tell(webhook_file=room.secret("hook", server.url("/500/x")))
    room.teller.reload(room.config)

    async def play() -> None:
        room.full()
        await until(lambda: len(posts(server)) == 1)

    room.play(play)
    for _ in range(2):
        again = Room(tmp_path)
        again.config = again.with_tell(webhook_file=again.secret("hook", server.url("/200/x")))
        again.teller.reload(again.config)

        async def replay(again: Room = again) -> None:
            again.full()  # it still is
            again.happens(Kind.STARTED, version="1")
            await until(lambda: [request["path"] for request in server.came()] == ["/500/x", "/200/x"])
            await asyncio.sleep(0.2)

        again.play(replay)
        assert again.told() == []
    assert len(posts(server)) == 2


def test_a_file_that_cannot_be_used_is_itself_a_problem_until_it_can(tmp_path: Path, server: Server) -> None:
    room = Room(tmp_path)
    hook = room.secret("hook", server.url(f"/200/{TOKEN}"))
    hook.chmod(0o644)
    room.config = room.with_tell(webhook_file=hook, heartbeat_file=tmp_path / "missing")
    room.teller.reload(room.config)

    async def play() -> None:
        await until(lambda: len(room.told()) == 2)
        assert sorted(room.told()) == [("channel-broken", "heartbeat"), ("channel-broken", "webhook")]
        room.full()  # waits for the file
        await until(lambda: ("storage-full", "disk") in room.told())
        hook.chmod(0o600)
        room.teller.reload(room.config)
        await until(lambda: ("channel-broken", "webhook") in room.told(Kind.PROBLEM_OVER))
        await until(lambda: ("storage-full", False) in posts(server))

    room.play(play)
    assert {event.values["reason"] for event in room.heard if event.values.get("problem") == "channel-broken"} >= {
        "mode",
        "missing",
    }
    assert not [event for event in room.heard if TOKEN in repr(event)]


def test_a_way_that_never_works_is_told_in_the_others(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "FIRST", 0.01)
    monkeypatch.setattr(deliveries, "BROKEN", 0.05)
    room = Room(tmp_path, command=("/bin/sh", "-c", f"cat >> {tmp_path}/told"))
    room.config = room.with_tell(
        webhook_file=room.secret("hook", server.url("/404/x")), command=room.config.tell.command
    )
    room.teller.reload(room.config)

    async def play() -> None:
        room.full()
        await until(lambda: ("channel-broken", "webhook") in room.told())
        await until(lambda: "channel-broken" in (tmp_path / "told").read_text())
        waiting = room.teller._waiting["webhook"].plain()  # it is not to tell that it does not work
        assert [notice["problem"] for notice in waiting] == ["storage-full"]

    room.play(play)
    assert {problem for problem, _ in posts(server)} == {"storage-full"}


def test_it_beats_only_while_all_is_well(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "FIRST", 0.05)
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)
    room = Room(tmp_path)
    room.config = room.with_tell(heartbeat_file=room.secret("heart", server.url("/200/id")))
    room.teller.reload(room.config)

    def paths() -> list[str]:
        return [request["path"] for request in server.came()]

    async def play() -> None:
        await until(lambda: len(paths()) >= 3)
        room.full()
        await until(lambda: "/200/id/fail" in paths())
        count = len(paths())
        await asyncio.sleep(0.5)
        assert len(paths()) == count
        room.good()
        await until(lambda: len(paths()) > count)

    room.play(play)
    assert paths().count("/200/id/fail") == 1


def test_an_address_in_the_clear_is_told_and_used(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.config = room.with_tell(webhook_file=room.secret("hook", f"http://hooks.invalid/{TOKEN}"))
    room.teller.reload(room.config)

    async def play() -> None:
        await until(lambda: [event for event in room.heard if event.kind is Kind.SENT_IN_CLEAR])

    room.play(play)
    assert TOKEN not in repr(room.heard)


def test_figures_that_cannot_be_written_are_a_problem(tmp_path: Path) -> None:
    room = Room(tmp_path, metrics_file=tmp_path / "missing" / "chatkeep.prom")

    async def play() -> None:
        await until(lambda: ("channel-broken", "metrics") in room.told())

    room.play(play)


def test_a_mistake_in_words_loses_nothing_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "FIRST", 0.01)
    mistakes: list[Notice] = []

    def wrong(notice: Notice) -> Said:
        if not mistakes:
            mistakes.append(notice)
            raise KeyError(TOKEN)
        return said(notice)

    room = Room(tmp_path, command=("/bin/sh", "-c", f"cat >> {tmp_path}/told"))
    room.teller = Teller(room.config, room.bus, wrong)

    async def play() -> None:
        room.full()
        await until(lambda: (tmp_path / "told").exists() and "storage-full" in (tmp_path / "told").read_text())

    room.play(play)
    assert mistakes
    assert [event.values for event in room.heard if event.kind is Kind.LIBRARY] == [
        {"library": "telling.command", "error": "KeyError"}
    ]
    assert TOKEN not in repr(room.heard)


def test_what_a_configuration_expects(tmp_path: Path) -> None:
    limits = limits_of(Room(tmp_path).config)
    assert (limits.sources, limits.providers) == (["signal"], ["disk"])
    assert limits.jobs == {"verify": 86_400.0, "drill": 604_800.0}  # prune: never
    assert (limits.compare_every, limits.held_after, limits.unverified_after) == (21_600, 86_400, 604_800)


def test_after_a_sleep_that_nobody_told_of_nothing_is_too_long_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = 0.0

    def later() -> Moment:
        moment = now()
        return Moment(moment.wall_ns + round(asleep * 1e9), moment.boot + asleep)

    monkeypatch.setattr(teller, "now", later)
    room = Room(tmp_path)

    def compared() -> float:
        return figures(room.teller.metrics()).get("chatkeep_compared_timestamp_seconds{source=signal}", 0)

    async def wakes(days: float) -> None:
        nonlocal asleep
        asleep += days * 86_400
        room.bus.publish(Event(Kind.SNAPSHOT_NOTHING, later(), {"source": "signal"}))
        await until(lambda: compared() > later().wall_ns / 1e9 - 60)

    async def play() -> None:
        room.happens(Kind.HELD, waiting=1)
        await until(lambda: "uploads_held 1" in room.teller.metrics())
        await wakes(3)
        assert room.told() == []
        monkeypatch.setattr(teller, "SLEPT", 10**9)
        await wakes(1)  # awake all the time
        await until(lambda: ("held-too-long", "") in room.told())

    room.play(play)


def test_what_was_told_is_kept_in_a_file_of_ones_own(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.read() == {}
    memory.write({"troubles": {}, "waiting": {"desktop": []}})
    path = tmp_path / "telling" / "notes.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert memory.read()["waiting"] == {"desktop": []}
    for text in (
        "",
        "[]",
        "{",
        '{"version": 2}',
        "[" * 100_000,
        "\xff",
        json.dumps({"version": 1, "x": "y" * (1 << 20)}),
    ):
        path.write_text(text, encoding="latin-1")
        assert memory.read() == {}, text[:20]
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text('{"version": 1}')
    assert memory.read() == {}


def test_records_that_were_taken_away_are_not_begun_anew(tmp_path: Path) -> None:
    Memory(tmp_path / "gone").write({"troubles": {}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "plain", [{"troubles": 3}, {"waiting": []}, {"waiting": {"webhook": 4}}, {"waiting": {"x": [1]}}]
)
def test_whatever_the_file_says_it_runs(tmp_path: Path, plain: dict[str, Any]) -> None:
    room = Room(tmp_path)
    Memory(room.config.state_dir).write(plain)

    async def play() -> None:
        room.full()
        await until(room.told)

    room.play(play)
