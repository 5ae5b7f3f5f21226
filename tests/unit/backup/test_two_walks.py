"""What changes between the capture of the databases and the walk that finds the files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.daemon.backup import listing, run
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


def between_the_walks(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[int]:
    """Do something after the databases were captured and before the files are listed."""
    fired: list[int] = []
    listed = listing.list_source

    def late(*arguments: object) -> object:
        fired.append(1)
        if len(fired) == 2:
            act()
        return listed(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "list_source", late)
    return fired


def test_a_folder_takes_the_place_of_a_captured_database(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source / "a.db", 50)
    expected = describe(source)[b"a.db"].content

    def replace() -> None:
        (source / "a.db").unlink()
        (source / "a.db").mkdir()
        (source / "a.db" / "child").write_text("later")

    with monkeypatch.context() as patch:
        fired = between_the_walks(patch, replace)
        device.back_up(source)
    assert len(fired) == 2
    device.restore(tmp_path / "now")
    assert describe(tmp_path / "now")[b"a.db"].content == expected
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_database_missed_by_the_first_walk_is_not_called_gone(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source / "a.db", 50)
    fill(source / "b.db", 50)
    device.back_up(source)
    old = describe(source)[b"b.db"].content
    (source / "b.db").rename(tmp_path / "away")
    fill(source / "a.db", 5, seed=2)
    with monkeypatch.context() as patch:
        fired = between_the_walks(patch, lambda: (tmp_path / "away").rename(source / "b.db"))
        device.back_up(source)
    assert len(fired) == 2
    device.restore(tmp_path / "now")
    assert describe(tmp_path / "now")[b"b.db"].content == old
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_log_left_behind_does_not_come_beside_the_captured_database(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source / "a.db", 50, journal_mode="WAL")
    with database(source / "a.db") as app:
        app.execute("INSERT INTO message(text) VALUES('in the log')")
        with monkeypatch.context() as patch:
            fired = between_the_walks(patch, lambda: (source / "a.db").unlink())
            device.back_up(source)
    assert len(fired) == 2
    device.restore(tmp_path / "now")
    assert os.listdir(tmp_path / "now") == ["a.db"]
