"""`chatkeep doctor`: each thing that can be wrong is found, with its remedy, and hides no other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.cli import checks, provider_findings
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.service import storage
from chatkeep.daemon.state import Commit, ObjectRow, SnapshotRow, SnapshotStatistics, State
from chatkeep.daemon.vault.names import VAULTS
from chatkeep.providers.base import ClientMissing, PermissionRefused
from chatkeep.providers.folder import FolderProvider
from tests.support.station import COMMAND, Station
from tests.support.terminal import converse


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """A station whose vault was just made, in this process."""
    made = Station(tmp_path, ("disk", "usb"))
    code = main(["--config", str(made.config), "init", "--recovery-key-file", str(made.key)])
    assert code == Exit.DONE
    return made


def examine(
    station: Station, capsys: pytest.CaptureFixture[str], code: Exit = Exit.DONE
) -> dict[str, list[dict[str, Any]]]:
    """The checks by what they are about."""
    capsys.readouterr()
    assert main(["--config", str(station.config), "doctor", "--json"]) == code
    found: dict[str, list[dict[str, Any]]] = {}
    for check in json.loads(capsys.readouterr().out)["checks"]:
        found.setdefault(check["about"], []).append(check)
    return found


def bad(found: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """What is not ok: about what, and how bad."""
    return {about: check["level"] for about, all_of in found.items() for check in all_of if check["level"] != "ok"}


def test_all_well_but_for_one_way_in(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    found = examine(station, capsys)
    assert bad(found) == {"ways in": "warn"}
    assert found.keys() >= {"configuration", "state directory", "this device", "records", "clock", "disk", "versions"}
    assert main(["--config", str(station.config), "doctor"]) == Exit.DONE
    assert "It works; see the warnings." in capsys.readouterr().out


def test_a_device_that_was_removed(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    text = examine(station, capsys)["this device"][0]["text"]
    device_id = text.split()[1]
    change = ["device", "remove", device_id, "--yes", "--key-file", str(station.key)]
    assert main(["--config", str(station.config), *change]) == Exit.DONE
    assert "This device backs up nothing any more, until: chatkeep join" in capsys.readouterr().out
    (said,) = examine(station, capsys, Exit.FAILED)["this device"]
    assert (said["level"], "was removed from the vault" in said["text"]) == ("fail", True)
    assert "chatkeep join" in said["remedy"]


def test_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.yaml"), "doctor"]) == Exit.FAILED
    said = capsys.readouterr().out
    assert "There is no configuration at" in said
    assert "chatkeep config example" in said
    assert "Python" in said


def test_what_others_may_read(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    station.state.chmod(0o755)
    (station.state / "chatkeep-writer").chmod(0o644)
    found = examine(station, capsys, Exit.FAILED)
    assert bad(found) == {"state directory": "fail", "this device": "fail", "ways in": "warn"}
    assert "chmod 700" in found["state directory"][0]["remedy"]


def test_a_source_and_a_disk_that_are_away(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    station.source.rmdir()
    station.storage("usb").rename(station.room / "away")
    found = examine(station, capsys, Exit.FAILED)
    assert bad(found) == {"configuration": "fail", "usb": "fail", "ways in": "warn"}
    assert len(found["configuration"]) == 2  # both are named


def test_a_vault_that_is_not_ours(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    (marker,) = (station.storage("usb") / VAULTS).iterdir()
    marker.rename(marker.with_name("0" * 32))
    assert bad(examine(station, capsys, Exit.FAILED))["usb"] == "fail"


def test_a_slot_that_one_lacks(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    other = station.room / "second.txt"
    key = ["--key-file", str(station.key)]
    words = ["key", "add", "recovery", "--recovery-key-file", str(other), *key]
    assert main(["--config", str(station.config), *words]) == Exit.DONE
    assert bad(examine(station, capsys)) == {}
    next((station.storage("usb") / "slots").iterdir()).unlink()
    found = examine(station, capsys)
    assert bad(found) == {"ways in": "warn"}
    assert "usb lacks 1 way" in found["ways in"][0]["text"]


def test_slots_that_are_damaged_everywhere(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    other, key = station.room / "second.txt", ["--key-file", str(station.key)]
    first = {path.name for path in (station.storage("usb") / "slots").iterdir()}
    assert main([*config(station), "key", "add", "recovery", "--recovery-key-file", str(other), *key]) == Exit.DONE
    for place in station.names:
        for path in (station.storage(place) / "slots").iterdir():
            if path.name in first:
                path.write_bytes(path.read_bytes()[:-1])
    texts = [one["text"] for one in examine(station, capsys)["ways in"]]
    assert texts[0] == "1 way into the vault: damaged or lost in storage"
    assert texts[1].startswith("There is one key slot")
    for place in station.names:
        for path in (station.storage(place) / "slots").iterdir():
            path.unlink()
    (said,) = examine(station, capsys, Exit.FAILED)["ways in"]
    assert (said["level"], "nobody can read" in said["text"]) == ("fail", True)
    # Nor is it taken for an empty storage, which a new vault could be made in.
    assert main([*config(station), "key", "list"]) == Exit.DONE
    assert "chatkeep key add" in capsys.readouterr().err


def test_slots_that_one_provider_does_not_give(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else of it is well."""
    get, refused = FolderProvider.get, []

    def refusing(self: FolderProvider, name: str, *where: Any) -> bytes:
        if self.name == "usb" and name.startswith("slots/"):
            refused.append(name)
            raise PermissionRefused(provider=self.name)
        return get(self, name, *where)

    monkeypatch.setattr(FolderProvider, "get", refusing)
    found = examine(station, capsys)
    assert refused
    assert bad(found) == {"usb": "warn", "ways in": "warn"}
    assert found["usb"][-1]["text"] == "Storage refuses access."


def test_removed_slot_is_no_way_in(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    other, key = station.room / "second.txt", ["--key-file", str(station.key)]
    before = {path.name for path in (station.storage("usb") / "slots").iterdir()}
    assert main([*config(station), "key", "add", "recovery", "--recovery-key-file", str(other), *key]) == Exit.DONE
    assert bad(examine(station, capsys)) == {}
    (added,) = {path.name for path in (station.storage("usb") / "slots").iterdir()} - before
    assert main([*config(station), "key", "remove", added.removesuffix(".json"), "--yes", *key]) == Exit.DONE
    assert (station.storage("usb") / "slots" / added).exists()
    assert bad(examine(station, capsys)) == {"ways in": "warn"}


def config(station: Station) -> list[str]:
    return ["--config", str(station.config)]


def test_no_room_left(station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LOW_ROOM", 1 << 62)
    monkeypatch.setattr(provider_findings, "LOW_ROOM", 1 << 62)  # whatever there is, it is too little
    assert bad(examine(station, capsys)) == {"room here": "warn", "disk": "warn", "usb": "warn", "ways in": "warn"}


def test_a_clock_that_was_never_set(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert bad(examine(station, capsys, Exit.FAILED))["clock"] == "fail"


def test_objects_that_are_gone(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    from chatkeep.daemon.vault.credential import WriterCredential

    credential = WriterCredential.load(station.state / "chatkeep-writer")
    with State.open(station.state, credential.vault_id, credential.device_id) as state:
        stream = state.stream("chat").stream
        figures = SnapshotStatistics(*(0,) * 7).encode()
        row = SnapshotRow(1, "m", 1, 1, complete=True, statistics=figures)
        state.commit(Commit(stream, "chat", 1, row, b"h" * 32, [ObjectRow("m", os.urandom(32), 5, True)], ()))
    found = examine(station, capsys, Exit.FAILED)
    assert bad(found)["records"] == "fail"
    assert "before it was uploaded: 1 object" in found["records"][0]["text"]


def test_a_provider_whose_library_is_missing_hides_no_other(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = storage.opened

    def missing(configs: list[Any], **how: Any) -> Any:
        if configs[0].name == "disk":
            raise ClientMissing(provider="disk", type="s3", package="boto3", extra="s3")
        return opened(configs, **how)

    monkeypatch.setattr(storage, "opened", missing)
    found = examine(station, capsys, Exit.FAILED)
    assert "pip install 'chatkeep[s3]'" in found["disk"][0]["remedy"]
    assert found["usb"][0]["level"] == "ok"
    assert "ways in" in found


def test_storage_that_lets_nothing_be_deleted_is_a_remark(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FolderProvider, name: str) -> None:
        raise PermissionRefused(provider=self.name, object=name)

    monkeypatch.setattr(FolderProvider, "delete", refuse)
    disk = examine(station, capsys)["disk"]
    assert [check["level"] for check in disk] == ["ok", "warn"]
    assert disk[0]["text"].startswith("writes, reads and lists")
    assert "It lets nothing be deleted" in disk[1]["text"]


def test_at_a_terminal_every_line_fits(station: Station) -> None:
    station.storage("usb").rename(station.room / "pulled-out")
    code, shown = converse([*COMMAND, "--config", str(station.config), "doctor"], [], {"TERM": "dumb"})
    assert code == Exit.FAILED
    assert "Mount the disk" in shown
    wide = [line for line in shown.splitlines() if len(line) > 80 and str(station.room) not in line]
    assert wide == []
