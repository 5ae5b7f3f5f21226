"""The work of a backup: bounded snapshots are uploaded as they come; what is in the way is told."""

from __future__ import annotations

import errno
import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.service import storage
from chatkeep.daemon.service.engine import capturing, once
from chatkeep.daemon.service.engine.sending import Uploads
from tests.support.station import Station
from tests.support.trees import describe


@pytest.fixture
def station(tmp_path: Path) -> Station:
    made = Station(tmp_path, ("disk", "usb"))
    assert main(["--config", str(made.config), "init", "--recovery-key-file", str(made.key)]) == Exit.DONE
    return made


def run(station: Station, capsys: pytest.CaptureFixture[str], *words: object, code: Exit = Exit.DONE) -> Any:
    capsys.readouterr()
    assert main(["--config", str(station.config), "--json", *map(str, words)]) == code
    return json.loads(capsys.readouterr().out)


def test_a_large_first_backup_never_fills_the_outbox(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (station.source / f"{number}").write_bytes(os.urandom(1 << 20))
    monkeypatch.setattr(once, "Writer", functools.partial(Writer, budget=1 << 20))
    after: list[tuple[int, int]] = []
    send = Uploads.send

    def sending(uploads: Uploads) -> None:
        assert uploads._state.outbox.waiting()[0] > 0
        send(uploads)
        after.append(uploads._state.outbox.waiting())

    monkeypatch.setattr(Uploads, "send", sending)
    done = run(station, capsys, "backup")
    assert done["sources"][0]["snapshots"] > 2
    assert len(after) == done["sources"][0]["snapshots"] - 1 or len(after) == done["sources"][0]["snapshots"]
    assert set(after) == {(0, 0)}
    sent = [one["sent_bytes"] for one in done["providers"]]
    assert sent[0] == sent[1] > 6 << 20
    run(station, capsys, "restore", "latest", "--target", station.room / "out", "--key-file", station.key)
    assert describe(station.room / "out") == describe(station.source)


def test_one_that_is_down_is_not_asked_after_every_snapshot(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (station.source / f"{number}").write_bytes(os.urandom(1 << 20))
    station.storage("usb").rename(station.room / "away")
    monkeypatch.setattr(once, "Writer", functools.partial(Writer, budget=1 << 20))
    asked: list[str] = []
    require = storage.require_vault

    def requiring(provider: Any, vault_id: bytes) -> None:
        asked.append(provider.name)
        require(provider, vault_id)

    monkeypatch.setattr(storage, "require_vault", requiring)
    done = run(station, capsys, "backup", code=Exit.STORAGE)
    assert done["sources"][0]["snapshots"] > 2
    assert sorted(asked) == ["disk", "usb", "usb"]  # at first, and once more at the end
    assert done["providers"][0]["waiting_objects"] == 0
    assert done["providers"][1]["waiting_objects"] > 6


def test_sources_are_named(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    other = station.room / "other"
    other.mkdir()
    station.configure(station.source, other)
    assert [one["name"] for one in run(station, capsys, "backup", "other")["sources"]] == ["other"]
    error = run(station, capsys, "backup", "othr", code=Exit.USAGE)["error"]
    assert "Did you mean 'other'?" in error["text"]
    assert "There are: chat, other." in run(station, capsys, "backup", "x", code=Exit.USAGE)["error"]["text"]


def test_a_device_that_is_not_set_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = Station(tmp_path)
    error = run(bare, capsys, "backup", code=Exit.USAGE)["error"]
    assert error["code"] == "credential-refused"
    assert error["text"] == f"This device is not set up: there is no {bare.state / 'chatkeep-writer'}."
    assert "chatkeep init" in error["remedy"]


def test_a_credential_that_others_may_read(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    (station.state / "chatkeep-writer").chmod(0o640)
    error = run(station, capsys, "backup", code=Exit.FAILED)["error"]
    assert (error["code"], "chmod 600" in error["remedy"]) == ("credential-refused", True)


def test_a_credential_from_systemd(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = station.room / "credentials"
    passed.mkdir()
    (station.state / "chatkeep-writer").rename(passed / "chatkeep-writer")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(passed))
    assert run(station, capsys, "backup")["sources"][0]["error"] is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_what_the_system_refuses_is_told_and_is_no_traceback(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refusing(*_: object) -> None:
        raise OSError(number, os.strerror(number), "/somewhere")

    monkeypatch.setattr(capturing, "back_up", refusing)
    error = run(station, capsys, "backup", code=Exit.FAILED)["error"]
    assert (error["code"], error["text"]) == ("system", f"/somewhere: {os.strerror(number)}.")


def test_reading_without_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none"), "snapshots"]) == Exit.USAGE
    assert "--from FOLDER" in capsys.readouterr().err
