"""A way in whose file one of several providers lost is named, with the provider and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from tests.support.station import Station

LIST = ("key", "list", "--labels")


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """A vault at two providers."""
    made = Station(tmp_path, ("disk", "usb"))
    run(made, "init", "--recovery-key-file", str(made.key))
    return made


def run(station: Station, *words: str) -> None:
    assert main(["--config", str(station.config), *words]) == Exit.DONE


def lose(station: Station, provider: str) -> str:
    """Takes the file of the one way in away; its id."""
    (file,) = (station.storage(provider) / "slots").iterdir()
    file.unlink()
    return file.stem


@pytest.mark.parametrize("where", ["disk", "usb"])
def test_a_lost_way_in_is_named(station: Station, capsys: pytest.CaptureFixture[str], where: str) -> None:
    key = ("--key-file", str(station.key))
    run(station, *LIST, *key)
    assert "has lost" not in capsys.readouterr().err
    gone = lose(station, where)
    run(station, *LIST, *key)
    told = capsys.readouterr().err
    assert f"{where} has lost or damaged {gone[:8]}" in told
    assert "chatkeep key rotate" in told
    run(station, *LIST, *key, "--json")
    assert json.loads(capsys.readouterr().out)["lacking"] == [{"provider": where, "ids": [gone]}]
    run(station, "key", "rotate", "--yes", *key)  # what is advised helps
    capsys.readouterr()
    run(station, *LIST, *key)
    assert "has lost" not in capsys.readouterr().err


def test_one_that_is_damaged_is_told_when_another_is_added(
    station: Station, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = (station.storage("usb") / "slots").iterdir()
    file.write_bytes(b"torn")
    capsys.readouterr()
    words = ("key", "add", "recovery", "--recovery-key-file", str(station.room / "two.txt"))
    run(station, *words, "--key-file", str(station.key))
    assert f"usb has lost or damaged {file.stem[:8]}" in capsys.readouterr().err


def test_a_drill_before_there_is_a_vault_opens_no_directory_to_others(station: Station) -> None:
    station.state.rename(station.room / "away")
    main(["--config", str(station.config), "drill", "--key-file", str(station.key)])
    assert (station.state / "drill").is_dir(), "the drill made it"
    assert station.state.stat().st_mode & 0o077 == 0
