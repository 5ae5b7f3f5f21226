"""Bad things that happen to a source: each is told, and nothing that was backed up is lost."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support.station import Station, drop_powers, fill, rows, sql


def test_a_source_that_is_missing(station: Station) -> None:
    other = station.room / "other"
    other.mkdir()
    (other / "note").write_text("kept")
    station.configure(station.source, other)
    fill(station.source / "messages.db")
    station.backup()
    moved = station.source.rename(station.room / "moved")

    done = station.run("backup")
    assert done.code == 1
    missing, whole = done.json["sources"]
    assert missing["error"]["code"] == "source-missing"
    assert str(station.source) in missing["error"]["text"]
    assert whole["error"] is None
    assert "There is nothing at" in station.run("backup", json=False).out
    assert "There is nothing at" in station.run("status", json=False).out

    assert len(rows(station.restore("chat:1", "out") / "messages.db")) == 200
    moved.rename(station.source)
    assert station.backup()["snapshots"] == 0
    assert station.ok("status")["problems"] == []


def test_a_source_that_may_not_be_read(station: Station) -> None:
    fill(station.source / "messages.db")
    station.backup()
    station.source.chmod(0)
    done = station.run("backup", preexec_fn=drop_powers)
    station.source.chmod(0o700)
    assert done.code == 1
    assert done.json["sources"][0]["error"]["code"] == "source-unreadable"
    assert len(rows(station.restore("latest", "out") / "messages.db")) == 200


def test_one_file_that_may_not_be_read(station: Station) -> None:
    secret, plain = station.source / "secret", station.source / "plain"
    secret.write_text("before")
    plain.write_text("before")
    station.backup()
    for file in (secret, plain):
        file.write_text("afterwards")
    secret.chmod(0)

    done = station.run("backup", preexec_fn=drop_powers)
    assert done.code == 1  # something is not in the backup as it is now: no script should take that for done
    assert [(one["path"], one["reason"]) for one in done.json["sources"][0]["problems"]] == [("secret", "unreadable")]
    out = station.restore("latest", "out")
    assert (out / "plain").read_text() == "afterwards"
    assert (out / "secret").read_text() == "before"
    words = station.run("backup", json=False, preexec_fn=drop_powers).out
    assert "secret cannot be read: Permission denied" in words


def test_a_database_that_is_replaced(station: Station) -> None:
    database = station.source / "messages.db"
    fill(database, text="old")
    old = rows(database)
    station.backup()
    fill(station.room / "new.db", 50, text="new")
    os.replace(station.room / "new.db", database)
    new = rows(database)

    assert station.backup()["changed"]["databases"] == 1
    assert rows(station.restore(1, "old") / "messages.db") == old
    assert rows(station.restore(2, "new") / "messages.db") == new


def test_a_database_that_is_vacuumed(station: Station) -> None:
    database = station.source / "messages.db"
    fill(database, 2000)
    station.backup()
    sql(database, "DELETE FROM messages WHERE id % 3 = 0", "VACUUM")
    kept = rows(database)
    station.backup()
    out = station.restore("latest", "out") / "messages.db"
    assert rows(out) == kept
    assert out.read_bytes() == database.read_bytes()


def test_a_database_that_shrinks_and_grows_again(station: Station) -> None:
    database = station.source / "messages.db"
    fill(database, 2000)
    sizes = [database.stat().st_size]
    station.backup()
    sql(database, "DELETE FROM messages WHERE id > 100", "VACUUM")
    small = rows(database)
    sizes.append(database.stat().st_size)
    station.backup()
    fill(database, 1500, text="grown")
    grown = rows(database)
    sizes.append(database.stat().st_size)
    station.backup()
    assert sizes[1] < sizes[2] < sizes[0]  # it shrank, and grew over pages that an older layer has
    assert rows(station.restore(2, "small") / "messages.db") == small
    assert rows(station.restore(3, "grown") / "messages.db") == grown


def test_a_database_that_is_deleted(station: Station) -> None:
    database = station.source / "messages.db"
    fill(database)
    (station.source / "note").write_text("stays")
    station.backup()
    database.unlink()
    assert station.backup()["changed"]["removed"] == 1
    out = station.restore("latest", "out")
    assert sorted(path.name for path in out.iterdir()) == ["note"]
    assert len(rows(station.restore(1, "before") / "messages.db")) == 200


@pytest.mark.parametrize("where", ["header", "middle", "zeros"])
def test_a_database_whose_pages_are_damaged(station: Station, where: str) -> None:
    """Nobody can tell damage from what the application meant: what is there is kept as it is, and what was before."""
    database = station.source / "messages.db"
    fill(database, 2000)
    good = rows(database)
    station.backup()
    body = bytearray(database.read_bytes())
    damage = {"header": slice(0, 100), "middle": slice(40_000, 60_000), "zeros": slice(0, len(body))}[where]
    body[damage] = (b"\0" if where == "zeros" else b"\xa5") * (damage.stop - damage.start)
    database.write_bytes(body)

    assert station.backup()["problems"] == []
    assert (station.restore("latest", "out") / "messages.db").read_bytes() == body
    assert rows(station.restore(1, "before") / "messages.db") == good


def test_a_database_that_is_cut_short(station: Station) -> None:
    """No database of any moment: that is told, and the last whole one stands."""
    database = station.source / "messages.db"
    fill(database, 2000)
    good = rows(database)
    station.backup()
    os.truncate(database, database.stat().st_size // 2 + 100)

    done = station.run("backup")
    assert done.code == 1
    assert [(one["path"], one["reason"]) for one in done.json["sources"][0]["problems"]] == [
        ("messages.db", "database-damaged")
    ]
    assert "ends in the middle of a page" in station.run("backup", json=False).out
    assert rows(station.restore("latest", "out") / "messages.db") == good


def test_a_file_that_is_called_a_database_and_is_none(station: Station) -> None:
    (station.source / "notes.db").write_bytes(b"shopping list\n" * 1000)
    (station.source / "empty.db").touch()
    (station.source / "magic.db").write_bytes(b"SQLite format 3\x00 is how those begin")
    fill(station.source / "really")  # and one that is, under another name
    done = station.backup()
    assert (done["changed"]["databases"], done["changed"]["files"]) == (1, 3)
    assert done["problems"] == []
    out = station.restore("latest", "out")
    for name in ("notes.db", "empty.db", "magic.db"):
        assert (out / name).read_bytes() == (station.source / name).read_bytes()
    assert len(rows(out / "really")) == 200


def test_special_files_are_told_and_not_followed(station: Station) -> None:
    os.mkfifo(station.source / "pipe")
    (station.source / "note").write_text("kept")
    done = station.backup()
    assert [(one["path"], one["reason"]) for one in done["problems"]] == [("pipe", "special")]
    assert sorted(path.name for path in station.restore("latest", "out").iterdir()) == ["note"]


def test_a_source_that_is_emptied_is_an_empty_snapshot(station: Station) -> None:
    fill(station.source / "messages.db")
    station.backup()
    shutil.rmtree(station.source)
    station.source.mkdir()
    assert station.backup()["files"] == 0
    assert list(station.restore("latest", "out").iterdir()) == []
    assert len(rows(station.restore(1, "before") / "messages.db")) == 200
