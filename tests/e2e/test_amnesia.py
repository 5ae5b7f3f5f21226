"""Records that are lost, damaged, older than the vault, or in use twice: nothing forks, nothing is sent twice, and what
was acknowledged can always be had."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import parse
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.providers.folder import FolderProvider
from tests.support.station import Station, fill
from tests.support.trees import describe

MEGABYTE = 1 << 20
SMALL = 400_000  # more than a manifest and a pack with nothing but a layer in it


@pytest.fixture
def full(station: Station) -> Station:
    """A database of several base runs that is not touched any more, and media; all of it backed up."""
    fill_database(station.source / "messages.db")
    for number in range(3):
        (station.source / f"{number}.jpg").write_bytes(os.urandom(700_000))
    (station.source / "again.jpg").write_bytes((station.source / "0.jpg").read_bytes())
    assert station.backup()["stored_bytes"] > 5 * MEGABYTE
    return station


def fill_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, body BLOB)")
        db.executemany("INSERT INTO messages(body) VALUES(?)", [(os.urandom(3000),) for _ in range(1200)])
        db.commit()


def lose(station: Station) -> None:
    """All but the credential is gone."""
    for path in station.state.iterdir():
        if path.name != "chatkeep-writer":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def damage(station: Station) -> None:
    path = station.state / "state.db"
    body = bytearray(path.read_bytes())
    body[:4096] = os.urandom(4096)
    path.write_bytes(body)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def streams(station: Station) -> dict[str, list[str]]:
    """Names of the manifests by stream, and none of them a fork."""
    key = parse(station.key.read_text())
    provider = FolderProvider("disk", station.storage())
    found: dict[str, list[str]] = {}
    with unlock(provider, RecoveryMethod(key)) as vault:
        reader = VaultReader([provider], vault)
        for stream in reader.streams():
            chain = reader.chain(stream)
            found[stream.stream_id.hex()] = [str(one.name) for one in reader.snapshots(chain)]
            assert list(chain.findings) == []
        assert list(reader.findings) == []
    return found


def stored(station: Station, before: dict[str, Path]) -> int:
    """Bytes of packs that storage did not have before."""
    return sum(path.stat().st_size for name, path in station.objects().items() if "/p/" in name and name not in before)


@pytest.mark.parametrize("lost", [lose, damage], ids=["lost", "damaged"])
def test_lost_and_rebuilt_sends_nothing_twice(full: Station, lost: Callable[[Station], None]) -> None:
    before = full.objects()
    lost(full)
    told = full.run("backup")
    assert (told.code, told.error) == (3, "state-lost")
    assert "chatkeep rebuild" in told.json["error"]["remedy"]
    assert "1 day" in told.json["error"]["remedy"]
    assert bool(list(full.state.glob("state.db.damaged-1"))) == (lost is damage)
    said = full.ok("status")
    assert [problem["about"] for problem in said["problems"]] == ["records"]
    assert "chatkeep rebuild" in full.run("status", json=False).out
    assert full.run("backup").error == "state-lost", "once told is not enough"
    assert full.objects() == before
    rebuilt = full.ok("rebuild", "--key-file", full.key)
    assert (rebuilt["needed"], rebuilt["chains"], rebuilt["lacking_blobs"], rebuilt["findings"]) == (True, 1, 0, [])
    assert rebuilt["known_bytes"] > 5 * MEGABYTE
    assert full.ok("status")["problems"][-1]["text"].startswith("No backup of it")
    done = full.backup()
    assert (done["error"], done["snapshot"]["seq"], done["snapshot"]["complete"]) == (None, 1, True)
    assert stored(full, before) < SMALL
    assert done["stored_bytes"] < SMALL
    assert full.ok("status")["problems"] == []
    assert describe(full.restore("latest", "out")) == describe(full.source)
    assert full.ok("verify", "--deep", "--key-file", full.key)["deep"]["findings"] == []
    assert full.ok("rebuild", "--key-file", full.key)["needed"] is False
    assert len(streams(full)) == 2
    # What was known is forgotten: a copy that somebody sends is sealed and uploaded like anything new.
    (full.source / "sent.jpg").write_bytes((full.source / "1.jpg").read_bytes())
    assert full.backup()["stored_bytes"] > 700_000


def test_a_copy_that_comes_meanwhile_is_uploaded_like_anything_new(full: Station) -> None:
    lose(full)
    full.ok("rebuild", "--key-file", full.key)
    before = full.objects()
    (full.source / "sent.jpg").write_bytes((full.source / "1.jpg").read_bytes())
    full.backup()
    assert 700_000 < stored(full, before) < 700_000 + SMALL


def test_lost_and_sent_again(full: Station) -> None:
    before = full.objects()
    lose(full)
    done = full.ok("backup", "--anew")
    assert [one["code"] for one in done["notices"]] == ["state-lost"]
    assert stored(full, before) > 5 * MEGABYTE
    assert full.ok("backup")["notices"] == []
    assert describe(full.restore("latest", "out")) == describe(full.source)


def test_after_its_patience_it_sends_everything_by_itself(full: Station) -> None:
    lose(full)
    full.config.write_text(full.config.read_text() + "rebuild_patience: 0 minutes\n")
    done = full.ok("backup")
    assert [one["code"] for one in done["notices"]] == ["state-lost"]
    assert done["sources"][0]["stored_bytes"] > 5 * MEGABYTE


def test_a_new_device_is_not_lost(station: Station) -> None:
    fill(station.source / "messages.db")
    assert station.ok("backup")["notices"] == []


def test_a_machine_restored_from_an_image(full: Station) -> None:
    """A new chain at once, from what the older records know: all that every provider acknowledged."""
    shutil.copytree(full.state, full.room / "image")
    (full.source / "later.jpg").write_bytes(os.urandom(500_000))
    full.backup()
    shutil.rmtree(full.state)
    (full.room / "image").rename(full.state)
    before = full.objects()
    done = full.ok("backup")
    assert [(one["code"], one["params"]["reason"]) for one in done["notices"]] == [("state-copied", "ahead")]
    assert done["sources"][0]["snapshot"]["seq"] == 1
    assert 500_000 < stored(full, before) < 500_000 + SMALL
    assert "chatkeep join" in full.run("status", json=False).out
    assert full.ok("backup")["notices"] == []
    assert [len(names) for names in sorted(streams(full).values(), key=len)] == [1, 2]
    assert describe(full.restore("latest", "out")) == describe(full.source)


def test_rolled_back_beyond_what_was_pruned(full: Station) -> None:
    shutil.copytree(full.state, full.room / "image")
    policy = (
        "retention: {everything_for: 0 minutes, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, minimum: 1}\n"
    )
    full.config.write_text(full.config.read_text() + policy)
    (full.source / "0.jpg").write_bytes(os.urandom(100_000))
    full.backup()
    pruned = full.run("prune", "--yes", "--key-file", full.key)
    assert pruned.code == 0, pruned
    shutil.rmtree(full.state)
    (full.room / "image").rename(full.state)
    told = full.run("backup")
    assert (told.code, told.error) == (3, "state-rolled-back")
    before = full.objects()
    assert full.ok("rebuild", "--key-file", full.key)["needed"] is True
    full.backup()
    assert stored(full, before) < SMALL
    assert full.ok("backup")["notices"] == []
    assert describe(full.restore("latest", "out")) == describe(full.source)
    assert full.ok("verify", "--deep", "--key-file", full.key)["deep"]["findings"] == []


def test_rolled_back_with_two_providers_and_begun_anew(twofold: Station) -> None:
    """What these records believe in was deleted by a checkpoint unknown to them: neither waits to be brought it."""
    station = twofold
    (station.source / "kept").write_bytes(os.urandom(5000))
    station.backup()
    (station.source / "video").write_bytes(os.urandom(500_000))
    station.backup()
    shutil.copytree(station.state, station.room / "image")
    policy = "{everything_for: 0 days, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, minimum: 1, grace: 0s}"
    station.config.write_text(station.config.read_text() + f"retention: {policy}\n")
    (station.source / "video").unlink()
    station.backup()
    before = set(station.objects())
    station.ok("prune", "--yes", "--key-file", station.key)
    assert any("/p/" in name for name in before - set(station.objects())), "a pack was deleted"
    shutil.rmtree(station.state)
    (station.room / "image").rename(station.state)
    assert station.run("backup").error == "state-rolled-back"
    station.ok("backup", "--anew")
    for number in range(2):
        (station.source / f"new {number}").write_bytes(os.urandom(1000))
        assert station.ok("backup")["waiting_objects"] == 0
    assert [one["left_behind"] for one in station.ok("status")["providers"]] == [None, None]
    for name in station.names:
        station.names = (name,)
        assert describe(station.restore("latest", f"from {name}")) == describe(station.source)


def test_two_that_use_copies_of_the_same_records_never_fork(full: Station) -> None:
    """They run in turns and change things in between; each keeps its chain, and every snapshot restores."""
    twin = shutil.copytree(full.state, full.room / "twin")
    original, turns = full.state, []
    rounds = 4
    for number in range(rounds):
        full.state = (original, twin)[number % 2]
        full.configure(full.source)
        (full.source / "note.txt").write_text(f"round {number}")
        done = full.ok("backup")
        source = done["sources"][0]
        assert source["error"] is None
        turns.append((number, source["snapshot"]["id"], [one["params"]["reason"] for one in done["notices"]]))
    kinds = [kinds for _, _, kinds in turns]
    assert kinds[:3] == [[], ["ahead"], ["stranger"]], "noticed by each at its first turn"
    assert kinds[3:] == [[]] * (rounds - 3), "and told once"
    assert [len(names) for names in sorted(streams(full).values(), key=len)] == [2, 3]
    for number, snapshot, _ in turns:
        target = full.restore(snapshot[:12], f"out-{number}")
        assert (target / "note.txt").read_text() == f"round {number}"


def test_one_provider_away_is_asked_before_anything_is_sent_to_it(twofold: Station) -> None:
    station = twofold
    fill(station.source / "messages.db")
    station.backup()
    shutil.copytree(station.state, station.room / "image")
    fill(station.source / "messages.db", 10)
    station.backup()
    shutil.rmtree(station.state)
    (station.room / "image").rename(station.state)
    for name in ("disk", "usb"):
        station.storage(name).rename(station.room / f"away-{name}")
    fill(station.source / "messages.db", 10, "other")
    alone = station.run("backup")
    assert alone.code == 4
    assert alone.json["sources"][0]["snapshot"]["seq"] == 2, "the records cannot know better yet"
    (station.room / "away-disk").rename(station.storage("disk"))
    done = station.run("backup").json
    assert [one["params"]["reason"] for one in done["notices"]] == ["ahead"]
    (station.room / "away-usb").rename(station.storage("usb"))
    assert station.ok("backup")["notices"] == []
    assert streams(station)
    assert describe(station.restore("latest", "out")) == describe(station.source)


def test_rebuild_asks_every_provider(twofold: Station) -> None:
    station = twofold
    (station.source / "0.jpg").write_bytes(os.urandom(900_000))
    station.backup()
    lose(station)
    station.storage("usb").rename(station.room / "away")
    done = station.run("rebuild", "--key-file", station.key)
    assert (done.code, done.error) == (4, "storage-missing")
    (station.room / "away").rename(station.storage("usb"))
    # What only one of them has is sent to both again, or a restore from the other alone would lack it.
    pack = max(station.packs("usb"), key=lambda path: path.stat().st_size)
    pack.unlink()
    rebuilt: Any = station.ok("rebuild", "--key-file", station.key)
    assert (rebuilt["known_blobs"], rebuilt["lacking_blobs"]) == (0, 1)
    assert station.backup()["stored_bytes"] > 900_000
    station.names = ("usb",)
    assert describe(station.restore("latest", "out")) == describe(station.source)


def test_sources_that_come_and_go(full: Station) -> None:
    other = full.room / "other"
    other.mkdir()
    (other / "file").write_bytes(os.urandom(600_000))
    full.configure(full.source, other)
    full.ok("backup")
    lose(full)
    full.configure(other)  # the first one is not kept any more
    assert full.ok("rebuild", "--key-file", full.key)["chains"] == 2
    before = full.objects()
    assert [one["name"] for one in full.ok("backup")["sources"]] == ["other"]
    assert stored(full, before) < SMALL
    assert describe(full.restore("latest", "out", "--source", "other")) == describe(other)
