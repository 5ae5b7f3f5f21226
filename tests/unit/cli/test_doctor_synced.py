"""What `chatkeep doctor` says of a folder that another program synchronises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from tests.support.station import Station


def about_drive(config: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str, str]]:
    capsys.readouterr()
    assert main(["--config", str(config), "doctor", "--json"]) == Exit.DONE
    checks = json.loads(capsys.readouterr().out)["checks"]
    return [(each["level"], each["text"], each["remedy"]) for each in checks if each["about"] == "drive"]


def test_copies_and_what_is_away_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station = Station(tmp_path, ("drive",))
    text = station.config.read_text()
    station.config.write_text(text.replace("type: folder,", "type: folder, synced: true,"))
    assert station.config.read_text() != text
    config = station.config
    assert main(["--config", str(config), "init", "--recovery-key-file", str(station.key)]) == Exit.DONE
    assert "warn" not in {
        level for level, text, _ in about_drive(config, capsys) if "copy" in text or "disk now" in text
    }

    root = tmp_path / "drive"
    assert root.is_dir()
    slot = next((root / "slots").iterdir())
    for number in range(2, 7):
        slot.with_name(f"{slot.stem} {number}.json").write_bytes(slot.read_bytes())
    device = next((root / "devices").iterdir())
    device.with_name(f".{device.name}.icloud").write_bytes(b"")
    device.unlink()
    said = {text.split(":")[0]: (level, text, remedy) for level, text, remedy in about_drive(config, capsys)}
    level, text, remedy = said["5 conflict copies in the folder"]
    assert (level, text.count("slots/"), text[-3:]) == ("warn", 3, "...")
    assert "chatkeep verify" in remedy
    assert said["1 object of the vault is not on this disk now"][0] == "warn"
