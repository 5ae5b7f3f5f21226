"""`chatkeep providers`: as a person sees it, as a pipe gets it, as a program reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.cli.provider_findings import Check
from tests.support.station import COMMAND, Station
from tests.support.terminal import converse


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """Two folders that hold a vault; the second is not required."""
    made = Station(tmp_path, ("disk", "usb"), optional=("usb",))
    assert main(["--config", str(made.config), "init", "--recovery-key-file", str(made.key)]) == Exit.DONE
    return made


def asked(station: Station, capsys: pytest.CaptureFixture[str], *words: str, code: Exit = Exit.DONE) -> str:
    capsys.readouterr()
    assert main(["--config", str(station.config), "providers", *words]) == code
    return capsys.readouterr().out


def tried(station: Station, capsys: pytest.CaptureFixture[str], *words: str, code: Exit = Exit.DONE) -> Any:
    return json.loads(asked(station, capsys, "test", "--json", *words, code=code))["providers"]


def objects(station: Station, name: str) -> set[str]:
    return {str(path) for path in station.storage(name).rglob("*") if path.is_file()}


def test_every_provider_is_tried_and_left_as_it_was(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    before = objects(station, "disk"), objects(station, "usb")
    found = tried(station, capsys)
    assert (objects(station, "disk"), objects(station, "usb")) == before
    assert [(one["name"], one["verdict"], one["required"]) for one in found] == [
        ("disk", "good", True),
        ("usb", "good", False),
    ]
    checks = {row["check"]: row for row in found[0]["checks"]}
    assert checks.keys() >= {Check.WRITE, Check.READ, Check.RANGE, Check.LIST, Check.DELETE, Check.UP, Check.DOWN}
    assert Check.LOGIN not in checks, "a folder wants no key"
    assert checks["speed up"]["value"] > 0
    assert found[0]["left_behind"] == 0


def test_in_a_pipe_it_is_a_plain_table_of_eighty_columns(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    said = asked(station, capsys, "test", "--quick")
    assert "\x1b" not in said
    assert "\r" not in said
    assert max(map(len, said.splitlines())) <= 79
    assert "  write         yes" in said.splitlines()
    assert said.count("Backups can go there.") == 2
    assert "speed" not in said


def test_one_that_is_away(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    station.storage("usb").rename(station.room / "pulled-out")
    found = tried(station, capsys, "--quick")
    assert [one["verdict"] for one in found] == ["good", "bad"]
    assert found[1]["checks"] == [found[1]["checks"][0]]
    assert (found[1]["checks"][0]["check"], found[1]["checks"][0]["code"]) == ("place", "storage-missing")
    said = asked(station, capsys, "test", "usb", "--quick", code=Exit.STORAGE)
    assert "It is not required" in said
    assert "disk" not in said.split("\n")[0], "only the one that was named"
    station.storage("disk").rename(station.room / "gone")
    asked(station, capsys, "test", "--quick", code=Exit.STORAGE)


def test_a_name_that_is_none(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(station.config), "providers", "test", "dsk"]) == Exit.USAGE
    assert "Did you mean 'disk'?" in capsys.readouterr().err


def test_at_a_terminal_each_line_appears_when_it_is_known(station: Station) -> None:
    code, shown = converse(
        [*COMMAND, "--config", str(station.config), "providers", "test", "disk", "--quick"],
        [],
        {"TERM": "xterm", "COLUMNS": "80"},
    )
    assert code == 0
    assert re.search(r"  read +\.\.\.\r\x1b\[K  read +\x1b\[32myes", shown), "asked first, then answered in its place"
    last = [line.rpartition("\r\x1b[K")[2] for line in shown.split("\n")]
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in last) <= 79


def test_a_terminal_without_screens_gets_whole_lines_only(station: Station) -> None:
    command = [*COMMAND, "--config", str(station.config), "providers", "test", "disk", "--quick"]
    code, shown = converse(command, [], {"TERM": "dumb"})
    assert code == 0
    assert "..." not in shown
    assert "\x1b" not in shown
