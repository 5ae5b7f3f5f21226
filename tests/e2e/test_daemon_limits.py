"""The daemon and the rates of its providers: it keeps to them, and a changed one holds from the reload on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.service.events import Kind
from chatkeep.providers import base, registry
from chatkeep.providers.memo import Memo
from tests.support.inside import inside, until
from tests.support.running import configured
from tests.support.station import Station, fill


class Line:
    """A provider that cannot take files as they lie: all bytes go over a line."""

    def __init__(self, inner: base.Provider, puts: list[tuple[float, int]]) -> None:
        self.name, self._inner, self._puts = inner.name, inner, puts

    def put(self, name: str, body: bytes) -> None:
        self._puts.append((time.monotonic(), len(body)))
        self._inner.put(name, body)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._inner.get(name, offset, length)

    def stat(self, name: str) -> base.ObjectStat:
        return self._inner.stat(name)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return self._inner.list(prefix)

    def delete(self, name: str) -> None:
        self._inner.delete(name)

    def probe(self) -> base.Capabilities:
        return self._inner.probe()

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """When how many bytes were put."""
    found: list[tuple[float, int]] = []
    real = registry.open_provider

    def opened(config: ProviderConfig, memo: Memo | None = None, **how: Any) -> Line:
        return Line(real(config, memo, **how), found)

    monkeypatch.setattr(registry, "open_provider", opened)
    return found


def test_a_limit_that_is_changed_holds_at_once(
    station: Station, puts: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(station.runtime))
    fill(station.source / "messages.db")
    configured(station, "session: {require_unlock: false}", "tell: {desktop: false}")
    plain = station.config.read_text()
    slow = plain.replace("type: folder", "type: folder, limit: {upload: 10 KB/s}")
    slow = slow if slow != plain else plain.replace("type: folder\n", "type: folder\n    limit: {upload: 10 KB/s}\n")
    assert "10 KB/s" in slow

    async def play() -> None:
        async with inside(station) as one:
            await one.told(Kind.UPLOAD_DONE)
            station.config.write_text(slow)
            await one.daemon.reload()
            before = len(puts)
            (station.source / "picture.jpg").write_bytes(os.urandom(3_000_000))
            # The first object goes at once, at full speed; the next one waits for five minutes.
            await until(lambda: len(puts) > before)
            waits_since = time.monotonic()
            await until(lambda: time.monotonic() > waits_since + 1.5)
            assert len(puts) == before + 1, "it does not wait"
            assert puts[before][1] > 3_000_000
            done = len(one.kinds(Kind.UPLOAD_DONE))
            station.config.write_text(plain)
            await one.daemon.reload()
            await until(lambda: len(one.kinds(Kind.UPLOAD_DONE)) > done)
            assert len(puts) > before + 1
            assert time.monotonic() - waits_since < 60, "at the old rate it would have taken five minutes"
            assert (await one.daemon.standing()).providers[0].waiting == 0

    asyncio.run(play())
