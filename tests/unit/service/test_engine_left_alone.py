"""A provider that was left behind, while the one that has what it lacks is away, renamed, or gone for good."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from chatkeep.daemon.service.engine import once
from chatkeep.daemon.service.engine.report import Report
from chatkeep.daemon.service.engine.steps import unwatched
from chatkeep.daemon.state.glance import Glance
from chatkeep.providers.folder import FolderProvider
from tests.support.engines import MIB, Home
from tests.support.trees import describe

LIMIT = 2 * MIB


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """`one` must have everything and has it; `two` need not, was away, and is back."""
    made = Home(tmp_path)
    made.limit(LIMIT)
    one, two = made.config.providers
    made.config = dataclasses.replace(made.config, providers=(one, dataclasses.replace(two, required=False)))
    away = (tmp_path / "two").rename(tmp_path / "elsewhere")
    for number in range(6):
        made.write(f"photo {number}", MIB // 2)
        back_up(made)
    assert behind(made) == {"two"}
    away.rename(tmp_path / "two")
    return made


def back_up(home: Home) -> Report:
    """One backup of a command."""
    return once.run(home.config, home.config.sources, unwatched, bool, lambda _: None, upload=True)


def behind(home: Home) -> set[str]:
    with Glance(home.config.state_dir) as glance:
        return {name for name in home.stores if glance.provider(name).left_behind is not None}


def held(home: Home, name: str) -> set[str]:
    return {found.name for found in FolderProvider(name, home.room / name).list("d/")}


def without_one(home: Home) -> None:
    """Its disk died, and it is in the configuration no more."""
    home.config = dataclasses.replace(home.config, providers=home.config.providers[1:])
    home.stores.pop("one")


def test_while_the_other_is_away_nothing_is_sent_to_it(home: Home) -> None:
    (home.room / "one").rename(home.room / "away")
    home.write("photo 6", MIB // 2)
    report = back_up(home)
    assert {one.code for one in report.providers[1].problems} == {"storage-missing"}
    assert behind(home) == {"two"}
    assert held(home, "two") == set()
    (home.room / "away").rename(home.room / "one")
    assert back_up(home).providers[1].problems == ()
    assert behind(home) == set()
    assert held(home, "two") == held(home, "one")


def test_when_the_other_is_gone_for_good_it_gets_everything_anew(home: Home) -> None:
    """By a command. What left the outbox only the dead disk had: a chain that went on would stand on nothing."""
    without_one(home)
    home.write("photo 6", MIB // 2)
    report = back_up(home)
    assert {one.code for one in report.providers[0].problems} == {"nowhere-whole"}  # of two threads
    assert report.renewed == ["chat"]
    report = back_up(home)
    assert report.providers[0].problems == ()
    assert behind(home) == set()
    assert describe(home.restore("from two", provider="two")) == describe(home.source)
    assert back_up(home).renewed == []
    assert home.snapshots("two")


def test_when_the_other_is_gone_for_good_a_daemon_does_the_same(home: Home) -> None:
    without_one(home)
    with home.open() as engine:
        assert [one.code for one in engine.upload("two").problems] == ["nowhere-whole"]
        assert engine.take_news().renewed == ["chat"]
        for _ in range(6):
            engine.snapshot("chat")
            assert engine.upload("two").problems == ()
        assert engine.waiting() == (0, 0)
    assert behind(home) == set()
    assert describe(home.restore("from two", provider="two")) == describe(home.source)


def test_another_name_for_the_same_storage_is_looked_at_and_not_sent_to(home: Home) -> None:
    back_up(home)
    one = home.config.providers[0]
    home.config = dataclasses.replace(home.config, providers=(dataclasses.replace(one, name="disk"),))
    home.stores["disk"] = home.stores.pop("one")
    home.stores.pop("two")
    home.stores["disk"].name = "disk"
    home.forget_calls()
    with home.open() as engine:
        assert behind(home) == {"disk"}
        assert engine.upload("disk").problems == ()
        assert behind(home) == set()
        assert engine.take_news().renewed == []
    assert home.calls()["put"] == 0
