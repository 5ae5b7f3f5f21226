"""The daemon, cut off in the midst of things: what its parts go by stays the same, and what is committed is sent."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from chatkeep.daemon.service.engine.engine import Engine
from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.state import StateFull
from tests.support.inside import inside, until
from tests.support.running import configured
from tests.support.station import Station, fill, sql

WAIT = 30.0  # seconds; what is waited for comes within


@pytest.fixture
def here(station: Station, monkeypatch: pytest.MonkeyPatch) -> Station:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(station.runtime))
    fill(station.source / "messages.db")
    configured(station, "session: {require_unlock: false}", "tell: {desktop: false}")
    return station


def test_a_reload_goes_on_when_whoever_asked_goes_away(
    here: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, gate, opening = Engine.open, threading.Event(), threading.Event()

    def opened(*config: object) -> object:
        opening.set()
        assert gate.wait(WAIT)
        return real(*config)  # type: ignore[arg-type]

    async def play() -> None:
        async with inside(here) as one:
            await one.told(Kind.UPLOAD_DONE)
            other = tmp_path / "other"
            other.mkdir()
            fill(other / "messages.db")
            here.config.write_text(here.config.read_text().replace("providers:", f"  - {other}\nproviders:"))
            monkeypatch.setattr(Engine, "open", opened)
            asked = asyncio.ensure_future(one.daemon.reload())
            await until(opening.is_set)  # the records are opened for the new configuration
            asked.cancel()
            await asyncio.wait([asked])
            assert asked.cancelled()
            gate.set()
            await one.told(Kind.RELOADED)
            await until(lambda: "other" in {event.values["source"] for event in one.kinds(Kind.SNAPSHOT_MADE)})

    asyncio.run(play())


def test_what_was_committed_before_an_error_is_sent(here: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with inside(here) as one:
            await one.told(Kind.UPLOAD_DONE)
            engine = one.daemon._tenancy.engine
            assert engine is not None
            real, failed = engine.snapshot, list[object]()

            def snapshot(*how: object) -> object:
                if failed:
                    return real(*how)  # type: ignore[arg-type]
                failed.append(real(*how))  # type: ignore[arg-type]
                raise StateFull(path="x")  # it could not even be noted how it ended

            monkeypatch.setattr(engine, "snapshot", snapshot)
            sql(here.source / "messages.db", "INSERT INTO messages(body) VALUES('on a full disk')")
            assert (await one.told(Kind.SNAPSHOT_FAILED)).values["code"] == "state-full"
            await one.told(Kind.UPLOAD_DONE, 2)
            assert failed
            assert (await one.daemon.standing()).providers[0].waiting == 0

    asyncio.run(play())
