"""`chatkeep drill`, the real command: what it proves, what it tells apart, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.support.station import Station, copied, drop_powers, fill, limit_files, met, sql, template


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    return template(tmp_path_factory.mktemp("drill") / "made")


@pytest.fixture
def station(made: Station, tmp_path: Path) -> Station:
    found = copied(made, tmp_path)
    fill(found.source / "messages.db")
    (found.source / "note").write_text("PLAINTEXT of a note")
    return found


def drilled(station: Station, *words: object) -> tuple[int, Any]:
    done = station.run("drill", "--key-file", station.key, *words)
    return done.code, done.json


def left(station: Station) -> list[str]:
    """What is where drills are made, but for the note of the last."""
    return [path.name for path in (station.state / "drill").rglob("*") if path.name != "last.json"]


def test_what_comes_back_is_proven_and_removed_and_remembered(station: Station) -> None:
    assert station.ok("status")["drill"] == []
    station.backup()
    code, said = drilled(station)
    (one,) = said["sources"]
    assert (code, one["source"], one["snapshot"]["seq"], one["damaged"], one["error"]) == (0, "chat", 1, [], None)
    assert (one["files"], one["bytes"] > 8192, one["seconds"] > 0) == (2, True, True)
    assert [(row["path"], row["outcome"]) for row in one["databases"]] == [("messages.db", "sound")]
    assert left(station) == []
    (noted,) = station.ok("status")["drill"]
    assert (noted["source"], noted["seq"], noted["good"], noted["databases"]) == ("chat", 1, True, 1)
    shown = station.run("drill", "--key-file", station.key, json=False)
    assert "1 of 1 sound" in shown.out
    assert "The backup can be restored" in shown.out
    assert "came back whole" in station.run("status", json=False).out


def test_each_source_or_one_or_an_older_snapshot(station: Station) -> None:
    other = station.room / "media"
    other.mkdir()
    (other / "photo").write_bytes(os.urandom(5000))
    station.configure(station.source, other)
    station.ok("backup")
    (station.source / "more").write_text("more")
    station.ok("backup")
    code, said = drilled(station)
    assert (code, [(one["source"], one["snapshot"]["seq"]) for one in said["sources"]]) == (
        0,
        [("chat", 2), ("media", 1)],
    )
    code, said = drilled(station, "--source", "chat", "--snapshot", "1")
    assert (code, [one["snapshot"]["seq"] for one in said["sources"]]) == (0, [1])
    assert {one["source"]: one["seq"] for one in station.ok("status")["drill"]} == {"chat": 1, "media": 1}
    assert station.run("drill", "--key-file", station.key, "--source", "none").code == 2


def test_a_sample_of_the_files_and_every_database(station: Station) -> None:
    for number in range(200):
        (station.source / f"file-{number}").write_text(f"{number}")
    station.backup()
    code, said = drilled(station, "--sample", "10")
    (one,) = said["sources"]
    assert (code, one["left_out"] + one["files"], len(one["databases"])) == (0, 202, 1)
    assert 120 < one["left_out"] < 201
    code, said = drilled(station, "--sample", "0")
    assert (code, said["sources"][0]["files"], said["sources"][0]["left_out"]) == (0, 1, 201)


def test_encrypted_databases_are_told_by_name(station: Station) -> None:
    """Pages of noise with a log beside them: how an encrypted database looks from outside."""
    fill(station.source / "vault.db")
    with contextlib.closing(sqlite3.connect(station.source / "vault.db")) as db:
        db.execute("INSERT INTO messages(body) VALUES ('kept in the log')")
        db.commit()
        raw = bytearray((station.source / "vault.db").read_bytes())
        raw[:100] = os.urandom(100)  # as who opens it does not read it again: its pages are in memory
        (station.source / "vault.db").write_bytes(raw)
        station.backup()
    code, said = drilled(station)
    rows = {row["path"]: row["outcome"] for row in said["sources"][0]["databases"]}
    assert (code, rows) == (0, {"messages.db": "sound", "vault.db": "encrypted"})
    assert "vault.db: not SQLite readable" in station.run("drill", "--key-file", station.key, json=False).out


def test_a_database_that_was_damaged_before_is_told_apart_from_damage_in_the_vault(station: Station) -> None:
    path = station.source / "messages.db"
    sql(path, "PRAGMA wal_checkpoint(TRUNCATE)", "CREATE INDEX i ON messages(body)", "PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"a message 7 ")
    raw[at : at + 12] = b"A MESSAGE 7 "
    path.write_bytes(raw)
    station.backup()
    code, said = drilled(station)
    (one,) = said["sources"]
    assert (code, one["damaged"], [row["outcome"] for row in one["databases"]]) == (1, [], ["damaged"])
    assert [problem["code"] for problem in one["problems"]] == ["captured-damaged"]
    assert "was so when it was captured" in one["problems"][0]["text"]
    assert station.restore("latest", "out").joinpath("messages.db").read_bytes() == bytes(raw)
    (noted,) = station.ok("status")["drill"]
    assert (noted["good"], noted["codes"]) == (False, ["captured-damaged"])
    assert any("captured-damaged" in problem["text"] for problem in station.ok("status")["problems"])


def test_damage_in_the_vault(station: Station) -> None:
    (station.source / "photo").write_bytes(random.Random(1).randbytes(200_000))
    station.backup()
    (pack,) = (path for path in station.packs() if path.stat().st_size > 150_000)
    pack.chmod(0o600)
    raw = bytearray(pack.read_bytes())
    raw[50_000] ^= 1
    pack.write_bytes(raw)
    code, said = drilled(station)
    (one,) = said["sources"]
    assert (code, [row["path"] for row in one["damaged"]]) == (5, ["photo"])
    assert [row["outcome"] for row in one["databases"]] == ["sound"]
    assert left(station) == []
    assert [noted["good"] for noted in station.ok("status")["drill"]] == [False]


def test_no_secret_no_storage_no_place(station: Station) -> None:
    station.backup()
    assert station.run("drill").code == 3
    assert station.run("drill", "--from", station.storage(), "--key-file", station.key).code == 2
    code, said = drilled(station, "--scratch", station.storage())
    assert (code, said["error"]["code"]) == (2, "target-inside-vault")
    room = station.room / "room"
    room.mkdir()
    code, said = drilled(station, "--from", station.storage(), "--scratch", room)
    assert (code, list(room.iterdir())) == (0, [])
    station.storage().rename(station.room / "away")
    assert drilled(station)[0] == 4


def test_an_empty_vault(station: Station) -> None:
    code, said = drilled(station)
    assert (code, said["sources"]) == (0, [])


def test_killed_it_leaves_no_plaintext_once_the_next_one_ran(station: Station) -> None:
    (station.source / "photo").write_bytes(os.urandom(8 << 20))
    station.backup()
    place = station.state / "drill"
    process = met(
        lambda: station.start("drill", "--key-file", station.key),
        lambda: any(path.is_file() and path.stat().st_size for path in place.glob(".chatkeep-drill-*/**/*")),
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert left(station) != []
    assert drilled(station)[0] == 0
    assert left(station) == []


def test_what_was_killed_at_home_goes_also_when_the_next_is_made_elsewhere(station: Station) -> None:
    station.backup()
    forgotten = station.state / "drill" / ".chatkeep-drill-0123456789abcdef"
    forgotten.mkdir(parents=True)
    (forgotten / "note").write_text("PLAINTEXT")
    room = station.room / "room"
    room.mkdir()
    assert drilled(station, "--scratch", room)[0] == 0
    assert (left(station), list(room.iterdir())) == ([], [])


def test_interrupted_it_tidies_up(station: Station) -> None:
    (station.source / "photo").write_bytes(os.urandom(8 << 20))
    station.backup()
    process = met(
        lambda: station.start("drill", "--key-file", station.key),
        lambda: list((station.state / "drill").glob(".chatkeep-drill-*/*")),
    )
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.communicate()
    assert process.returncode == 6
    assert left(station) == []


def test_no_room(station: Station) -> None:
    """As a full quota looks: no file longer than 100 kB."""
    (station.source / "photo").write_bytes(os.urandom(300_000))
    station.backup()
    done = station.run("drill", "--key-file", station.key, preexec_fn=limit_files(100_000))
    assert done.code == 1, done
    assert done.json["sources"][0]["error"]["code"] in {"no-space", "target-unwritable"}
    assert left(station) == []


def test_a_place_that_may_not_be_written(station: Station) -> None:
    station.backup()
    room = station.room / "room"
    room.mkdir(mode=0o500)
    done = station.run("drill", "--key-file", station.key, "--scratch", room, preexec_fn=drop_powers)
    assert (done.code, done.error) == (1, "target-unwritable")


def test_a_hostile_database_costs_little_and_is_told(station: Station) -> None:
    """An indexed column that takes more memory than there is, in a schema that nobody ran."""
    path = station.source / "messages.db"
    sql(path, "CREATE TABLE c(x INTEGER, y AS (x))", "CREATE INDEX ci ON c(y)", "INSERT INTO c VALUES (1)")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema=ON")
        work = "CREATE TABLE c(x INTEGER, y AS (hex(zeroblob(450000000 + x))))"
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name='c'", [work])
    station.backup()
    code, said = drilled(station)
    (one,) = said["sources"]
    assert (code, [(row["outcome"], row["why"]) for row in one["databases"]]) == (1, [("unfinished", "memory")])
    assert [problem["code"] for problem in one["problems"]] == ["check-unfinished"]
    assert one["damaged"] == []
