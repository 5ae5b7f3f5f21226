"""A capsule that went wrong in memory: found at the next unlock, told, remembered, and healed with little to send."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.keys.hybrid import HybridPublic
from chatkeep.daemon.service import device
from chatkeep.daemon.state import State, glance
from chatkeep.daemon.vault.labels import MANIFEST, MANIFEST_CAPSULE, PACK, PACK_CAPSULE
from tests.support.station import Station
from tests.support.trees import describe


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """Two base runs of a database, media, and so a pack of each kind."""
    made = Station(tmp_path)
    assert main(["--config", str(made.config), "init", "--recovery-key-file", str(made.key)]) == Exit.DONE
    with closing(sqlite3.connect(made.source / "a.db")) as db:
        db.execute("CREATE TABLE m(b BLOB)")
        db.executemany("INSERT INTO m VALUES(?)", [(os.urandom(3000),) for _ in range(700)])
        db.commit()
    (made.source / "a.jpg").write_bytes(os.urandom(600_000))
    return made


def run(station: Station, capsys: pytest.CaptureFixture[str], *words: object, code: Exit = Exit.DONE) -> Any:
    capsys.readouterr()
    assert main(["--config", str(station.config), "--json", *map(str, words)]) == code
    return json.loads(capsys.readouterr().out)


def sealing_wrong(monkeypatch: pytest.MonkeyPatch, label: bytes, which: int, at: int) -> list[int]:
    """The capsule number `which` with this label gets one bit flipped at byte `at`."""
    seal = HybridPublic.seal
    calls: list[bytes] = []
    fired: list[int] = []

    def wrong(self: HybridPublic, plain: Any, info: bytes) -> bytes:
        sealed = bytearray(seal(self, plain, info))
        if info.startswith(label):
            calls.append(info)
            if len(calls) == which:
                sealed[at] ^= 1
                fired.append(at)
        return bytes(sealed)

    monkeypatch.setattr(HybridPublic, "seal", wrong)
    return fired


def unproven(station: Station) -> tuple[int, list[str]]:
    with glance.Glance(station.state) as seen:
        return seen.capsules()


def test_all_is_well_and_nothing_is_said(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    run(station, capsys, "backup")
    count, failed = unproven(station)
    assert (count, failed) == (4, [])
    assert main(["--config", str(station.config), "snapshots", "--key-file", str(station.key)]) == Exit.DONE
    assert capsys.readouterr().err == ""
    assert unproven(station) == (0, [])


@pytest.mark.parametrize("at", [0, PACK_CAPSULE // 2, PACK_CAPSULE - 1])
@pytest.mark.parametrize("which", [1, 2, 3], ids=["base", "media", "layer"])
def test_a_pack(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, which: int, at: int
) -> None:
    fired = sealing_wrong(monkeypatch, PACK, which, at)
    before = station.objects()
    run(station, capsys, "backup")
    assert fired == [at]
    first = {path.name: path for name, path in station.objects().items() if "/p/" in name and name not in before}
    capsys.readouterr()
    assert main(["--config", str(station.config), "key", "add", "recovery", *new_key(station)]) == Exit.INTEGRITY
    assert "does not open" in capsys.readouterr().err
    _, (name,) = unproven(station)
    bad = first[Path(name).name]
    assert any("does not open" in problem["text"] for problem in run(station, capsys, "status")["problems"])
    found = run(station, capsys, "snapshots", "--key-file", station.key, code=Exit.INTEGRITY)["findings"]
    assert [one["code"] for one in found if one["code"] == "capsule-failed"] == ["capsule-failed"]
    before = station.objects()
    assert run(station, capsys, "backup")["sources"][0]["snapshot"]["seq"] == 1  # of a new chain
    sent = [path.stat().st_size for name, path in station.objects().items() if "/p/" in name and name not in before]
    assert sum(sent) <= bad.stat().st_size + 200_000, "more than what was in it was sent again"
    run(station, capsys, "restore", "latest", "--target", station.room / "out", "--key-file", station.key)
    assert describe(station.room / "out") == describe(station.source)
    assert unproven(station) == (0, [])
    assert run(station, capsys, "status")["problems"] == []


@pytest.mark.parametrize("at", [0, MANIFEST_CAPSULE // 2, MANIFEST_CAPSULE - 1])
def test_the_newest_manifest(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    fired = sealing_wrong(monkeypatch, MANIFEST, 1, at)
    run(station, capsys, "backup")
    assert fired == [at]
    run(station, capsys, "snapshots", "--key-file", station.key, code=Exit.INTEGRITY)
    before = station.objects()
    run(station, capsys, "backup")
    sent = [path.stat().st_size for name, path in station.objects().items() if "/p/" in name and name not in before]
    assert sum(sent) < 200_000
    run(station, capsys, "restore", "latest", "--target", station.room / "out", "--key-file", station.key)
    assert describe(station.room / "out") == describe(station.source)


def test_an_older_manifest_needs_no_healing(
    station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fired = sealing_wrong(monkeypatch, MANIFEST, 1, 7)
    run(station, capsys, "backup")
    (station.source / "b").write_text("b")
    run(station, capsys, "backup")
    assert fired == [7]
    run(station, capsys, "ls", "latest", "--key-file", station.key, code=Exit.INTEGRITY)
    (station.source / "b").write_text("c")
    assert run(station, capsys, "backup")["sources"][0]["snapshot"]["seq"] == 3
    count, failed = unproven(station)
    assert (count > 0, failed) == (True, [])  # forgotten: what is newest stands without it


def test_while_a_backup_has_the_records_it_waits(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    run(station, capsys, "backup")
    credential = device.load_credential(frame_config(station))
    with State.open(station.state, credential.vault_id, credential.device_id):
        run(station, capsys, "ls", "latest", "--key-file", station.key)
    assert unproven(station)[0] == 4
    run(station, capsys, "ls", "latest", "--key-file", station.key)
    assert unproven(station)[0] == 0


def test_a_vault_in_a_folder_read_from_elsewhere(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    run(station, capsys, "backup")
    words = ["--config", str(station.room / "none"), "ls", "latest", "--from", str(station.storage())]
    assert main([*words, "--key-file", str(station.key)]) == Exit.DONE
    assert unproven(station)[0] == 4


def new_key(station: Station) -> list[str]:
    return ["--recovery-key-file", str(station.room / "second.txt"), "--key-file", str(station.key)]


def frame_config(station: Station) -> Any:
    from chatkeep.config.loader import load

    return load(station.config)
