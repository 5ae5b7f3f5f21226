"""Bounds that are rarely met: a log too large for the memory of a pin, a layer too large for one pack."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from chatkeep.daemon.backup import databases, publish, works
from chatkeep.daemon.capture.errors import SourceBusy
from chatkeep.daemon.capture.pin import Pinned
from tests.support.sources import Clock, back_and_forth, database, fill
from tests.support.trees import describe
from tests.support.whole import Device


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device.make(tmp_path / "state", Clock())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


@pytest.mark.parametrize("tries", [0, 1, 2])
def test_more_in_the_log_than_memory(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    """It is sealed under the pin, part by part; what was sealed in a pin in vain is compared again, not forgotten."""
    for module in (databases, works):
        monkeypatch.setattr(module, "ROOM", 64 << 10)
    monkeypatch.setattr(works, "LOG_ROOM", 1 << 20)
    fill(source / "a.db", 500, journal_mode="WAL")
    fill(source / "b.db", 500, journal_mode="WAL")
    device.back_up(source)
    parts: list[object] = []
    failed: list[object] = []
    batches, validate = works.batches, Pinned.validate

    def counted(*arguments: object) -> object:
        parts.append(1)
        return batches(*arguments)  # type: ignore[arg-type]

    def busy(self: Pinned) -> None:
        if len(failed) < tries:
            failed.append(1)
            with database(source / "a.db") as again:
                again.execute("UPDATE message SET text = 'in between' WHERE id < 40")
            raise SourceBusy(path=self.path, reason="changed")
        validate(self)

    monkeypatch.setattr(databases, "batches", counted)
    monkeypatch.setattr(Pinned, "validate", busy)
    with database(source / "a.db", wal_autocheckpoint=0) as app:
        app.execute(
            "INSERT INTO message(text, blob) SELECT text, randomblob(900) FROM message, (VALUES(1),(2),(3),(4))"
        )
        app.execute("UPDATE message SET text = 'new'")
        result = device.back_up(source)
        expected = app.execute("SELECT * FROM message ORDER BY id").fetchall()
    assert parts, "it fitted"
    assert len(failed) == tries
    assert result.problems == []
    device.restore(tmp_path / "now")
    with database(tmp_path / "now" / "a.db") as restored:
        assert restored.execute("SELECT * FROM message ORDER BY id").fetchall() == expected
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_layer_too_large_for_the_pack_of_its_pages(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "LAYER_ROOM", 0)
    clock = device.clock
    assert isinstance(clock, Clock)
    seen = {}
    for turn in range(4):
        fill(source / "a.db", 100, seed=turn)
        (source / f"{turn}").write_bytes(random.Random(turn).randbytes(1000))
        result = device.back_up(source)
        assert result.snapshots[0].packs >= 3
        seen[result.last_seq] = describe(source)
        clock.now += 2 * 3600 * 10**9
    for seq, expected in seen.items():
        device.restore(tmp_path / f"t{seq}", seq)
        assert describe(tmp_path / f"t{seq}") == expected
    assert os.listdir(tmp_path / "state" / "outbox" / "tmp") == []


def test_a_database_that_shrank_is_not_copied_beyond_its_end(device: Device, source: Path, tmp_path: Path) -> None:
    fill(source / "a.db", 110_000)
    assert (source / "a.db").stat().st_size > works.ROOM
    device.back_up(source)
    with database(source / "a.db") as db:
        db.executescript("DELETE FROM message WHERE id > 100; VACUUM")
    result = device.back_up(source)
    assert result.snapshots[0].new_plaintext < 200_000
    back_and_forth(device, source, tmp_path / "target")
