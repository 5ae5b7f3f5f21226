"""The works, with tools that copy instead: order, growth, proof. The scan, the generator and the size of a profile."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from bench.floor import floor, page_digests
from bench.generate import BuiltIn
from bench.measure import Usage
from bench.outcome import FULL, RESTORE, UNCHANGED, appended
from bench.scan import WrongScan, scan
from bench.tools import Tool, available, tree_size
from bench.works import Works, occupied


class Copying:
    """A tool that stores whole copies; `broken`: it forgets a file."""

    def __init__(self, name: str, place: Path, calls: list[str], *, broken: bool = False) -> None:
        self.name = name
        self._vault = place / name
        self._calls = calls
        self._broken = broken
        self._count = 0

    def version(self) -> str:
        return "0"

    def create(self) -> None:
        shutil.rmtree(self._vault, ignore_errors=True)
        self._vault.mkdir()

    def backup(self, profile: Path) -> Usage:
        self._calls.append(self.name)
        self._count += 1
        shutil.copytree(profile, self._vault / str(self._count), symlinks=True)
        return Usage(1, 1, 1)

    def restore(self, target: Path) -> tuple[Usage, Path]:
        shutil.copytree(self._vault / str(self._count), target, symlinks=True)
        if self._broken:
            (target / "messages.db").unlink()
        return Usage(1, 1, 1), target

    def stored(self) -> int:
        return tree_size(self._vault)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    BuiltIn().make(tmp_path / "profile", 200_000, seed=1, media=3)
    return tmp_path / "profile"


def works(profile: Path, tools: list[Tool]) -> Works:
    return Works(profile, profile.parent, tools, BuiltIn(), seed=7, say=lambda _: None)


def test_tools_take_turns_and_growth_is_measured(profile: Path, tmp_path: Path) -> None:
    calls: list[str] = []
    doing = works(profile, [Copying("a", tmp_path, calls), Copying("b", tmp_path, calls)])

    doing.full(3)
    doing.restore(1)
    doing.unchanged(2)
    doing.append(100, 2)

    assert calls == ["a", "b", "b", "a", "a", "b", "a", "b", "b", "a", "a", "b", "b", "a"]
    outcome = doing.outcome
    assert outcome.works() == [FULL, RESTORE, UNCHANGED, appended(100)]
    assert outcome.wrong == []
    assert len(outcome.paces) == len(calls) + 2
    full, grown = outcome.of(FULL, "a")[0].stored, [one.stored or 0 for one in outcome.of(appended(100), "a")]
    assert full is not None
    assert grown[0] > full
    assert [one.pages > 3 for one in outcome.floors[100]] == [True, True]


def test_a_restore_that_is_not_equal_is_told(profile: Path, tmp_path: Path) -> None:
    doing = works(profile, [Copying("a", tmp_path, [], broken=True)])
    doing.full(1)
    doing.restore(1)
    (problem,) = doing.outcome.wrong
    assert problem.startswith("a: 1 paths differ")
    assert "messages.db" in problem


def test_appended_messages_are_all_in_the_file(profile: Path) -> None:
    database = profile / "messages.db"

    def count() -> int:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?immutable=1", uri=True)) as connection:
            found: int = connection.execute("SELECT count(*) FROM messages").fetchone()[0]
            return found

    before, media, digests = count(), tree_size(profile / "media"), page_digests(database)
    BuiltIn().append(profile, 100, seed=5)
    assert count() == before + 100
    assert tree_size(profile / "media") == media
    assert floor(digests, database).size > 0
    assert not (profile / "messages.db-wal").exists()


def test_the_scan_finds_what_differs_and_counts_every_byte(profile: Path, tmp_path: Path) -> None:
    database = profile / "messages.db"
    found = scan(database, tmp_path / "table", random.Random(3))
    assert found["bytes"] == database.stat().st_size
    assert found["cpu"] > 0


def test_a_scan_that_finds_nothing_is_no_measure(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatkeep.daemon.capture.database.differing", lambda *_: [])
    with pytest.raises(WrongScan):
        scan(profile / "messages.db", tmp_path / "table", random.Random(3))


def test_holes_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with (tmp_path / "p/hole").open("wb") as file:
        file.truncate(10 << 20)
    (tmp_path / "p/full").write_bytes(b"x" * 100_000)
    assert 100_000 <= occupied(tmp_path / "p") < 1 << 20


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    tools, missing = available(tmp_path, tmp_path, ["chatkeep", "borg"])
    assert ([tool.name for tool in tools], missing) == (["chatkeep"], ["borg"])
