"""Removing ways in and devices with the real command: what opens, what follows, what stays readable."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.station import Done, Station, copied, fill, rows, template
from tests.support.terminal import converse

TERMINAL = {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}


@pytest.fixture(scope="session")
def made_with_two_ways(tmp_path_factory: pytest.TempPathFactory) -> Station:
    station = template(tmp_path_factory.mktemp("ways") / "room", "disk", "usb")
    station.ok("key", "add", "recovery", "--recovery-key-file", station.room / "second.txt", "--key-file", station.key)
    return station


@pytest.fixture
def ways(made_with_two_ways: Station, tmp_path: Path) -> Station:
    """A vault at two places with two recovery keys: `key.txt` and `second.txt`."""
    return copied(made_with_two_ways, tmp_path / "room")


def second(station: Station) -> Path:
    return station.room / "second.txt"


def listed(station: Station, key: Path | None = None) -> list[dict[str, Any]]:
    """The ways in that count."""
    found: list[dict[str, Any]] = station.ok("key", "list", "--labels", "--key-file", key or station.key)["ways"]
    return found


def id_of_second(station: Station) -> str:
    newest: str = max(listed(station), key=lambda way: way["since"])["id"]
    return newest


def epoch_of(pack: Path) -> int:
    """What a pack says in its footer (docs/format.md, section 10)."""
    return int.from_bytes(pack.read_bytes()[-1276 + 1184 + 16 :][:4], "big")


def snapshots(station: Station, key: Path, *words: object) -> Done:
    return station.run("snapshots", "--from", station.storage("usb"), "--key-file", key, *words)


def test_removed_key_opens_nothing_and_all_else_goes_on(ways: Station) -> None:
    database = ways.source / "chat.db"
    fill(database, 50)
    ways.backup()
    before = rows(database)
    old_packs = {hashlib.sha256(pack.read_bytes()).digest() for pack in ways.packs()}
    assert ways.ok("status")["epoch"]["number"] == 1

    gone = id_of_second(ways)
    done = ways.ok("key", "remove", gone[:8], "--key-file", ways.key, "--yes")
    assert (done["epoch"], done["changed"], done["finished"]) == (2, True, False)
    assert [way["id"] for way in done["removed_ways"]] == [gone]
    assert len(done["ways"]) == len(done["devices"]) == 1
    assert done["devices"][0]["this_device"]
    assert done["findings"] == []

    refused = snapshots(ways, second(ways))
    assert (refused.code, refused.error) == (3, "slot-removed")
    assert "was removed from it" in refused.json["error"]["text"]
    assert snapshots(ways, ways.key).code == 0
    assert [way["id"] for way in listed(ways)] == [way["id"] for way in done["ways"]]

    fill(database, 50)
    report = ways.ok("backup")
    assert (report["new_epoch"], report["findings"]) == (None, [])  # it went on when the keys were changed here
    status = ways.ok("status")["epoch"]
    assert (status["number"], status["record"]) == (2, done["record"])
    new = [pack for pack in ways.packs() if hashlib.sha256(pack.read_bytes()).digest() not in old_packs]
    assert new
    assert {epoch_of(pack) for pack in new} == {2}
    assert rows(ways.restore(1, "old") / "chat.db") == before
    assert rows(ways.restore(2, "new") / "chat.db") == rows(database)
    assert ways.ok("backup")["new_epoch"] is None
    assert ways.run("verify", "--deep", "--key-file", ways.key).code == 0


def test_at_a_terminal_what_goes_and_stays_is_shown_and_asked(ways: Station) -> None:
    gone = id_of_second(ways)
    argv = ways.argv("key", "remove", gone, "--key-file", ways.key)
    code, shown = converse(argv, [("Change the keys so?", "n")], TERMINAL)
    assert code == 6
    goes, _, stays = shown.partition("stays")
    assert gone[:8] in goes.partition("goes")[2]
    assert gone[:8] not in stays
    assert stays.count("recovery key") == 1
    assert "this device" in stays
    assert not any("00000002" in name for name in ways.objects())
    code, shown = converse(argv, [("Change the keys so?", "y")], TERMINAL)
    assert code == 0
    assert "The keys are changed: epoch 2" in shown


def test_rotation_needs_nobody_else_and_leaves_every_way_open(ways: Station) -> None:
    done = ways.ok("key", "rotate", "--key-file", ways.key, "--yes")
    assert len(done["ways"]) == 2
    for key in (ways.key, second(ways)):
        assert snapshots(ways, key).code == 0
    assert ways.ok("key", "rotate", "--key-file", second(ways), "--yes")["epoch"] == 3
    ways.backup()
    assert ways.ok("status")["epoch"]["number"] == 3


def other_device(station: Station, name: str) -> Station:
    """Another machine at the same storage: a source, a state and a configuration of its own."""
    room = station.room / name
    room.mkdir()
    other = Station(room, station.names)
    for storage in station.names:
        other.storage(storage).symlink_to(station.storage(storage))
    return other


def test_second_device_joins_from_storage_and_a_key_alone(ways: Station) -> None:
    fill(ways.source / "chat.db", 30)
    ways.backup()
    other = other_device(ways, "laptop")
    other.ok("join", "--key-file", second(ways))
    fill(other.source / "chat.db", 40, "of the laptop")
    other.backup()
    devices = ways.ok("device", "list", "--key-file", ways.key)["devices"]
    assert [one["state"] for one in devices] == ["writes", "writes"]
    assert sorted(one["this_device"] for one in devices) == [False, True]
    assert all(one["host"] and one["sources"] for one in devices)
    ways.ok("key", "rotate", "--key-file", ways.key, "--yes")
    for station in (ways, other):
        fill(station.source / "chat.db", 10)
        assert station.ok("backup")["new_epoch"] == (None if station is ways else 2)
    for station, device, before in ((ways, "first", 30), (other, "second", 40)):
        for seq, expected in ((1, before), (2, before + 10)):
            target = ways.restore(snapshot_of(ways, station, seq), f"{device}-{seq}")
            assert len(rows(target / "chat.db")) == expected
    assert rows(ways.room / "second-2" / "chat.db") == rows(other.source / "chat.db")


def seqs_of(station: Station, of: Station) -> dict[int, str]:
    """The snapshots of a device, number to id."""
    found = snapshots(station, station.key, "--all").json["snapshots"]
    return {one["seq"]: one["id"] for one in found if one["path"] == str(of.source)}


def snapshot_of(station: Station, of: Station, seq: int) -> str:
    return seqs_of(station, of)[seq]


def test_removed_device_stops_and_what_it_writes_later_does_not_count(ways: Station) -> None:
    other = other_device(ways, "laptop")
    device = other.ok("join", "--key-file", second(ways))["device"]
    fill(other.source / "chat.db", 40)
    other.backup()
    done = ways.ok("device", "remove", device[:6], "--key-file", ways.key, "--yes")
    assert [one["id"] for one in done["removed_devices"]] == [device]
    record = f"epochs/00000002-{done['record']}"
    stopped = other.run("backup")
    assert (stopped.code, stopped.error) == (1, "device-removed")
    assert "chatkeep join" in stopped.json["error"]["remedy"]
    problems = other.ok("status")["problems"]
    assert any("removed from the vault" in problem["text"] for problem in problems)

    # Whoever has it now writes on, where nobody shows it the new epoch.
    hidden = [(ways.storage(name) / record).rename(ways.room / f"hidden-{name}") for name in ("disk", "usb")]
    fill(other.source / "chat.db", 10)
    other.backup()
    for file, name in zip(hidden, ("disk", "usb"), strict=True):
        file.rename(ways.storage(name) / record)
    assert list(seqs_of(ways, other)) == [1]
    assert len(rows(ways.restore(snapshot_of(ways, other, 1), "before") / "chat.db")) == 40
    assert snapshots(ways, ways.key, "--all").code == 0
    states = {one["id"]: one["state"] for one in ways.ok("device", "list", "--key-file", ways.key)["devices"]}
    assert states[device] == "removed"


def test_removed_device_can_be_enrolled_again(ways: Station) -> None:
    fill(ways.source / "chat.db", 20)
    ways.backup()
    refused = ways.run("join", "--key-file", ways.key)
    assert (refused.code, refused.error) == (1, "already-set-up")
    device = ways.ok("device", "list", "--key-file", ways.key)["devices"][0]["id"]
    ways.ok("device", "remove", device, "--key-file", ways.key, "--yes")
    assert ways.run("backup").error == "device-removed"
    again = ways.ok("join", "--key-file", ways.key)
    assert again["device"] != device
    assert (ways.state / f"removed-{device[:8]}" / "state.db").exists()
    fill(ways.source / "chat.db", 5)
    assert ways.backup()["snapshot"]["seq"] == 1
    found = snapshots(ways, ways.key, "--all")
    assert found.code == 0
    assert [one["seq"] for one in found.json["snapshots"]] == [1, 1]
    assert len(rows(ways.restore(found.json["snapshots"][-1]["id"], "before") / "chat.db")) == 20


def test_systemd_credential_is_followed_from_the_state_directory(ways: Station, tmp_path: Path) -> None:
    passed = tmp_path / "credentials"
    passed.mkdir()
    (ways.state / "chatkeep-writer").rename(passed / "chatkeep-writer")
    with contextlib.ExitStack() as stack:
        stack.callback(passed.chmod, 0o700)
        passed.chmod(0o500)
        environment = pytest.MonkeyPatch()
        stack.callback(environment.undo)
        environment.setenv("CREDENTIALS_DIRECTORY", str(passed))
        fill(ways.source / "chat.db", 20)
        ways.backup()
        assert not (ways.state / "chatkeep-writer").exists()
        ways.ok("key", "rotate", "--key-file", ways.key, "--yes")
        assert (ways.state / "chatkeep-writer").exists()
        assert ways.ok("backup")["new_epoch"] is None
        assert ways.ok("status")["epoch"]["number"] == 2
        fill(ways.source / "chat.db", 20)
        report = ways.ok("backup")
        assert report["new_epoch"] is None
        assert report["sources"][0]["snapshots"] == 1
        assert rows(ways.restore(2, "new") / "chat.db") == rows(ways.source / "chat.db")
