"""`chatkeep providers`: as a person sees it, as a pipe gets it, as a program reads it."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.model import ProviderConfig
from chatkeep.config.storages import DriveOptions
from chatkeep.daemon.cli import provider_login
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.provider_findings import Check
from chatkeep.providers.registry import Opening
from tests.support.station import COMMAND, Station, fill
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
    assert all(len(line) <= 79 for line in said.splitlines() if str(station.room) not in line), "only a path is longer"
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
    last = [re.sub(r"\x1b\[[0-9;]*m", "", line.rpartition("\r\x1b[K")[2]) for line in shown.split("\n")]
    assert all(len(line.rstrip("\r")) <= 79 for line in last if str(station.room) not in line), "only a path is longer"


def test_a_terminal_without_screens_gets_whole_lines_only(station: Station) -> None:
    command = [*COMMAND, "--config", str(station.config), "providers", "test", "disk", "--quick"]
    code, shown = converse(command, [], {"TERM": "dumb"})
    assert code == 0
    assert "..." not in shown
    assert "\x1b" not in shown


def test_the_list_says_what_this_device_knows(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    fill(station.source / "messages.db")
    first = json.loads(asked(station, capsys, "list", "--json"))["providers"]
    assert [(one["name"], one["state"], one["required"]) for one in first] == [
        ("disk", "nothing-sent", True),
        ("usb", "nothing-sent", False),
    ]
    assert first[0]["place"] == str(station.storage("disk"))
    station.storage("usb").rename(station.room / "pulled-out")
    assert main(["--config", str(station.config), "backup"]) == Exit.DONE
    disk, usb = json.loads(asked(station, capsys, "list", "--json"))["providers"]
    assert (disk["state"], usb["state"]) == ("whole", "failing")
    assert disk["requests_today"]["put"] > 0
    lines = asked(station, capsys, "list").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["disk", "usb"]
    assert "has everything" in lines[0]
    assert (station.room / "pulled-out").exists()
    assert not station.storage("usb").exists(), "nothing was asked of it"


def test_the_list_before_there_is_a_vault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station = Station(tmp_path)
    (one,) = json.loads(asked(station, capsys, "list", "--json"))["providers"]
    assert (one["state"], one["requests_today"]) == ("not-set-up", {})
    assert "chatkeep init" in one["text"]
    assert not station.state.exists(), "a list leaves no traces"


def test_a_folder_needs_no_login(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs no login" in asked(station, capsys, "login", "disk")
    assert json.loads(asked(station, capsys, "login", "disk", "--json"))["needed"] is False
    asked(station, capsys, "login", "dsk", code=Exit.USAGE)


class Google:
    """A login that asks as the real one does, and is answered with an address that is pasted."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.given: list[str] = []
        self.memory = tmp_path / "memo.db"
        monkeypatch.setattr("chatkeep.providers.google_login.login", self)

    def __call__(self, opening: Opening, open_browser: Any, say: Any, *, pasted: Any, patience: float) -> None:
        assert (opening.name, patience) == ("drive", 600)
        say("open", "https://accounts.example.org/o?a=1&b=2")
        self.opened += ["yes"] * bool(open_browser("https://accounts.example.org/o?a=1&b=2"))
        while len(self.given) < 2:
            if (line := pasted()) is not None:
                self.given.append(line)
                say("not-this", "")
        opening.memo.set("token", b"x")


def test_an_address_is_shown_whole_and_what_is_pasted_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    google = Google(tmp_path, monkeypatch)
    reader, writer = os.pipe()
    os.write(writer, b"first\n\nhttp://127.0.0.1:1/?code=2")
    os.close(writer)
    said = io.StringIO()
    drive = ProviderConfig("drive", "gdrive", DriveOptions(Path("/client.json")), memory=google.memory)
    with os.fdopen(reader) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        monkeypatch.delenv("DISPLAY", raising=False)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        provider_login.log_in(Output(err=said), drive)
    assert google.given == ["first", "http://127.0.0.1:1/?code=2"], "also without a line end"
    assert google.opened == []
    assert google.memory.exists()
    shown = said.getvalue()
    assert "\nhttps://accounts.example.org/o?a=1&b=2\n" in shown
    assert "127.0.0.1" in shown[shown.index("without a browser") :]
    assert shown.count("That is not the answer.") == 2
    assert max(map(len, shown.splitlines())) <= 80


def test_the_browser_gets_the_address_by_a_file_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google = Google(tmp_path, monkeypatch)
    google.given = ["", ""]
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    shown: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    for name in ("SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)

    def open_file(path: str, _environment: object) -> bool:
        shown.append(Path(path).read_text())
        return True

    monkeypatch.setattr("chatkeep.daemon.control.ceremony.opening.open_file", open_file)
    drive = ProviderConfig("drive", "gdrive", DriveOptions(Path("/client.json")), memory=google.memory)
    provider_login.log_in(Output(err=io.StringIO()), drive)
    assert google.opened == ["yes"]
    assert "https://accounts.example.org/o?a=1&amp;b=2" in shown[0]
    assert list(runtime.iterdir()) == []
    provider_login.log_in(Output(err=io.StringIO()), drive, browser=False)
    assert google.opened == ["yes"], "not where only the address is wanted"


def test_a_limit_of_the_configuration_is_named_beside_the_speed(
    station: Station, capsys: pytest.CaptureFixture[str]
) -> None:
    text = station.config.read_text()
    station.config.write_text(text.replace("required: true}", "required: true, limit: {upload: 2 MB/s}}"))
    (disk,) = tried(station, capsys, "disk")
    up = next(row for row in disk["checks"] if row["check"] == "speed up")
    assert "as the configuration limits it now" in up["text"]
    assert up["value"] < 20_000_000, "without it, a folder takes hundreds"
