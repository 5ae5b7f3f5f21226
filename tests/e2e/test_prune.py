"""`chatkeep prune` as a person runs it: looked at, done, taken back, deleted; storages that do not delete."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.station import Station, copied, drop_powers, fill
from tests.support.terminal import converse

DAY = 86_400
FEW = "{everything_for: 0 days, hourly: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0, minimum: 2}"
ALL = "{everything_for: 1 day}"


def policy(station: Station, text: str) -> None:
    kept = station.config.read_text().split("retention:")[0]
    station.config.write_text(f"{kept}retention: {text}\n")


@pytest.fixture
def old(twofold: Station) -> Station:
    """Six snapshots, each with a large file that the next one has not."""
    for number in range(6):
        for path in twofold.source.glob("video-*"):
            path.unlink()
        (twofold.source / f"video-{number}").write_bytes(os.urandom(1 << 20))
        fill(twofold.source / "messages.db", 20, f"message {number}")
        twofold.backup()
    policy(twofold, FEW)
    return twofold


def prune(station: Station, *words: object, **how: Any) -> Any:
    done = station.run("prune", "--key-file", station.key, *words, **how)
    assert done.code == 0, done
    return done.json


def age_checkpoints(station: Station, days: float) -> None:
    """As if every storage had got them so long ago, and this device knew."""
    then = time.time() - days * DAY
    for name in station.names:
        for text, path in station.objects(name).items():
            if "/c/" in text:
                os.utime(path, (then, then))
    import sqlite3

    with sqlite3.connect(station.state / "state.db") as db:
        db.execute("UPDATE receipts SET at=? WHERE name LIKE '%/c/%'", (int(then * 1e9),))
        db.execute("DELETE FROM sweeps WHERE number=0")


def numbers(station: Station, name: str = "disk") -> list[int]:
    found = station.ok("snapshots", "--all", "--from", station.storage(name), "--key-file", station.key)
    assert found["findings"] == []
    return [one["seq"] for one in found["snapshots"]]


def test_looked_at_done_and_deleted_by_a_later_backup(old: Station) -> None:
    before = old.objects().keys()
    seen = prune(old, "--dry-run")
    assert (seen["kept"], seen["going"], seen["dry_run"], seen["checkpoint"]) == (2, 4, True, None)
    assert old.objects().keys() == before
    done = prune(old, "--yes")
    assert {**done, **{key: seen[key] for key in ("dry_run", "checkpoint", "deleted_after", "providers")}} == seen
    assert done["checkpoint"] == 1
    assert numbers(old) == numbers(old, "usb") == [6, 5]
    assert len(old.objects()) == len(before) + 1
    # The videos that only the others had; their layers stay with the stack of the newest until a fold.
    assert 4 << 20 < done["freed_bytes"] < 5 << 20
    status = old.ok("status")["providers"][0]
    assert status["to_delete_objects"] == done["freed_objects"]
    assert old.ok("verify")["providers"][0]["findings"] == []

    old.backup()
    assert len(old.objects()) == len(before) + 1
    age_checkpoints(old, 8)
    old.backup()  # without any secret
    assert len(old.objects()) == len(before) + 1 - done["freed_objects"]
    assert old.ok("status")["providers"][1]["to_delete_objects"] == 0
    for name in old.names:
        assert numbers(old, name) == [6, 5]
    assert old.ok("verify", "--deep", "--key-file", old.key)["deep"]["findings"] == []
    assert (old.restore(5, "five") / "video-4").stat().st_size == 1 << 20


def test_another_policy_takes_back(old: Station) -> None:
    prune(old, "--yes")
    assert numbers(old) == [6, 5]
    policy(old, ALL)
    back = prune(old)
    assert (back["kept"], back["going"], back["checkpoint"]) == (6, 0, 2)
    assert numbers(old) == [6, 5, 4, 3, 2, 1]
    assert len(old.restore(1, "one").name)
    age_checkpoints(old, 8)
    old.backup()
    assert numbers(old, "usb") == [6, 5, 4, 3, 2, 1]


def test_too_much_needs_a_yes(old: Station) -> None:
    done = old.run("prune", "--key-file", old.key)
    assert (done.code, done.error) == (1, "prune-too-much")
    assert done.json["error"]["params"]["reasons"] == ["most-snapshots", "most-bytes", "last-day"]
    assert not any("/c/" in name for name in old.objects())
    said = old.run("prune", "--key-file", old.key, json=False)
    assert "Snapshots of the last 24 hours would go." in said.err
    code, shown = converse(old.argv("prune", "--key-file", old.key), [("Let them go?", "n")], {"TERM": "dumb"})
    assert code == 6
    assert "4 snapshots of 6 would go: " in shown.split("Let them go?")[0]
    assert "Cancelled. Every snapshot stays." in shown
    code, shown = converse(old.argv("prune", "--key-file", old.key), [("Let them go?", "\x03")], {"TERM": "dumb"})
    assert (code, "\nchatkeep: Cancelled" in shown) == (6, True)
    code, shown = converse(old.argv("prune", "--key-file", old.key), [("Let them go?", "y")], {"TERM": "dumb"})
    assert code == 0
    assert "4 snapshots of 6 go" in shown
    assert numbers(old) == [6, 5]


def test_what_a_person_sees(old: Station) -> None:
    done = old.run("prune", "--dry-run", "--key-file", old.key, json=False)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == ["6", "5", "4", "3", "2", "1"]
    assert rows[0][4:] == ["kept", "the newest, hourly, one of the newest 2"]
    assert rows[5][4:] == ["goes", "others stand for its time"]
    assert "4 snapshots of 6 would go" in done.err
    assert "Nothing was changed." in done.err
    help_text = old.run("prune", "--help", json=False).out
    assert "--dry-run" in help_text
    assert "retention" in help_text


def said_of(station: Station, *words: str) -> list[str]:
    """What prune says below its table."""
    done = station.run("prune", "--key-file", station.key, *words, json=False)
    assert done.code == 0, done
    return [line for line in done.err.splitlines() if line]


def test_what_a_person_is_told_of_taking_back(old: Station) -> None:
    prune(old, "--yes")
    assert said_of(old, "--dry-run") == ["Nothing more goes."]
    policy(old, ALL)
    assert said_of(old, "--dry-run") == [
        "4 snapshots that had been let go would be kept after all.",
        "Nothing was changed.",
    ]
    assert said_of(old) == ["4 snapshots that had been let go are kept after all."]


def test_what_a_person_is_told_without_a_grace(old: Station) -> None:
    policy(old, FEW.replace("}", ", grace: 0 days}"))
    assert any(line.endswith("deleted as soon as each provider has been told.") for line in said_of(old, "--dry-run"))
    done, *deleted = said_of(old, "--yes")
    assert done.startswith("4 snapshots of 6 go: ")
    assert [line.split(": ")[0] for line in deleted] == list(old.names)
    assert all(line.endswith(" deleted") for line in deleted)


def test_nothing_to_prune(station: Station) -> None:
    assert prune(station)["snapshots"] == []
    (station.source / "note").write_text("a note")
    station.backup()
    said = station.run("prune", "--key-file", station.key, json=False)
    assert (said.code, "Nothing goes." in said.err) == (0, True)


def test_it_needs_the_key_and_a_vault(old: Station, tmp_path: Path) -> None:
    assert old.run("prune", "--dry-run").code == 3
    fresh = Station(tmp_path)
    assert fresh.run("prune").code == 2


def test_a_storage_that_does_not_let_this_device_delete(old: Station) -> None:
    done = prune(old, "--yes")
    age_checkpoints(old, 8)
    folders = [path for path in old.storage().rglob("*") if path.is_dir() and path.parent.name == "p"]
    folders += [path.parent for name, path in old.objects().items() if "/s/" in name]
    for path in folders:
        path.chmod(0o500)
    try:
        assert old.run("backup", preexec_fn=drop_powers).code == 0
        status = old.ok("status")
        disk, usb = status["providers"]
        assert disk["held_objects"] == done["freed_objects"]
        assert usb["to_delete_objects"] == usb["held_objects"] == 0
        assert status["problems"] == []
        assert "it does not let this device delete" in old.run("status", json=False).out
        again = prune(old, preexec_fn=drop_powers)
        assert again["providers"][0]["held_objects"] == done["freed_objects"]
        assert again["providers"][0]["error"] is None
    finally:
        for path in folders:
            path.chmod(0o700)
    assert prune(old)["providers"][0]["deleted_objects"] == done["freed_objects"]
    assert old.ok("status")["providers"][0]["held_objects"] == 0


def test_a_storage_that_is_away_hears_of_it_later(old: Station) -> None:
    gone = old.storage("usb").rename(old.room / "gone")
    policy(old, ALL)
    said = old.run("prune", "--key-file", old.key, json=False)
    assert (said.code, "Nothing goes." in said.err, "checkpoint" in said.err) == (4, True, False)
    policy(old, FEW)
    done = old.run("prune", "--yes", "--key-file", old.key)
    assert (done.code, done.json["checkpoint"]) == (4, 1)
    gone.rename(old.storage("usb"))
    assert numbers(old, "usb") == [6, 5, 4, 3, 2, 1]
    old.backup()
    assert numbers(old, "usb") == [6, 5]


def test_damage_stops_it(old: Station) -> None:
    manifest = next(path for name, path in old.objects().items() if "/s/" in name)
    manifest.write_bytes(manifest.read_bytes()[:-1] + b"?")
    done = old.run("prune", "--yes", "--key-file", old.key)
    assert (done.code, done.error, done.json["error"]["params"]["reason"]) == (5, "prune-refused", "storage")


def test_what_is_lost_is_given_up_by_a_person_alone(old: Station) -> None:
    lost = [path for name in old.names for text, path in old.objects(name).items() if "/000000000003-" in text]
    assert len(lost) == 2
    for path in lost:
        path.unlink()
    said = old.run("prune", "--yes", "--key-file", old.key, json=False)
    assert (said.code, "chatkeep prune --give-up-missing" in said.err) == (5, True)
    words = ("prune", "--give-up-missing", "--key-file", old.key)
    seen = old.run(*words, "--dry-run").json["given_up"]
    assert [(one["source"], one["first"], one["last"]) for one in seen] == [("chat", 3, 3)]
    assert seen[0]["first_time"] == seen[0]["last_time"] is not None
    assert old.run(*words).json["error"]["params"]["reason"] == "confirm"
    gone = old.storage("usb").rename(old.room / "gone")
    assert old.run(*words, "--yes").json["error"]["params"]["reason"] == "away"
    gone.rename(old.storage("usb"))
    code, shown = converse(old.argv(*words), [("Give them up for good?", "n")], {"TERM": "dumb"})
    assert (code, "chat: Snapshot 3 is in no storage any more (" in shown) == (6, True)
    assert not any("/c/" in name for name in old.objects())
    assert prune(old, "--give-up-missing", "--yes")["given_up"] == seen
    assert numbers(old) == numbers(old, "usb") == [6, 5]
    assert prune(old)["given_up"] == []


def test_a_backup_at_work_is_not_disturbed(old: Station) -> None:
    import fcntl

    with open(old.state / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert old.run("prune", "--key-file", old.key).error == "state-busy"


def test_two_devices_prune_each_their_own(made_twofold: Station, tmp_path: Path) -> None:
    one = copied(made_twofold, tmp_path / "one")
    (one.source / "note").write_text("one")
    one.backup()
    other = Station(tmp_path / "one", one.names)
    other.state, other.config = tmp_path / "one" / "state-2", tmp_path / "one" / "other.yaml"
    other.source = tmp_path / "one" / "chat-2"
    other.source.mkdir()
    other.configure(other.source)
    other.ok("join", "--key-file", one.key)
    for number in range(3):
        (other.source / "note").write_text(f"other {number}")
        other.backup()
    policy(other, FEW)
    found = prune(other, "--yes")
    assert [row["source"] for row in found["snapshots"]] == ["chat-2"] * 3
    assert sorted(numbers(one)) == [1, 2, 3]
