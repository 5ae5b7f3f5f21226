"""Bad things that happen to storage: what is queued stays, what is damaged is found, what is elsewhere is used."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.station import Station, drop_powers, fill, limit_files, rows


def codes(done: object) -> list[str]:
    assert isinstance(done, dict)
    return [error["code"] for provider in done["providers"] for error in provider["errors"]]


def test_storage_that_is_missing_gets_everything_later(station: Station) -> None:
    fill(station.source / "messages.db")
    gone = station.storage().rename(station.room / "gone")
    done = station.run("backup")
    assert (done.code, codes(done.json)) == (4, ["storage-missing"])
    assert done.json["sources"][0]["snapshots"] == 1  # made all the same, and waiting
    assert done.json["waiting_bytes"] > 0
    assert not station.storage().exists()  # nothing was put where a disk ought to be mounted
    said = station.run("backup", json=False)
    assert "The place where the vault is stored is not there." in said.out
    assert "still to be sent" in said.out
    status = station.ok("status")
    assert status["providers"][0]["snapshots_behind"] == 1
    assert [problem["about"] for problem in status["problems"]] == ["disk"]

    gone.rename(station.storage())
    station.backup()
    assert station.ok("status")["outbox_objects"] == 0
    assert len(rows(station.restore("latest", "out") / "messages.db")) == 200


def test_an_empty_mount_point_is_no_storage(station: Station) -> None:
    """The disk is not mounted; its mount point is there, and empty."""
    fill(station.source / "messages.db")
    station.storage().rename(station.room / "gone")
    station.storage().mkdir()
    done = station.run("backup")
    assert (done.code, codes(done.json)) == (4, ["storage-missing"])
    assert list(station.storage().iterdir()) == []


def test_storage_that_is_read_only(station: Station) -> None:
    fill(station.source / "messages.db")
    folders = [station.storage(), *(path for path in station.storage().rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o500)
    done = station.run("backup", preexec_fn=drop_powers)
    for path in folders:
        path.chmod(0o700)
    assert (done.code, codes(done.json)) == (4, ["permission-refused"])
    assert station.objects().keys() == {name for name in station.objects() if not name.startswith("d/")}
    station.backup()
    assert station.ok("verify")["providers"][0]["findings"] == []


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system, where a sealed file cannot just be linked to."""
    places = [place for place in ("/dev/shm", "/var/tmp", "/run") if os.access(place, os.W_OK)]  # noqa: S108
    other = next(place for place in places if os.stat(place).st_dev != os.stat(tmp_path).st_dev)
    with tempfile.TemporaryDirectory(dir=other) as folder:
        yield Path(folder)


def test_storage_that_is_full(station: Station, elsewhere: Path) -> None:
    shutil.move(station.storage(), elsewhere / "disk")
    station.storage().symlink_to(elsewhere / "disk")
    (station.source / "video").write_bytes(os.urandom(3 << 20))
    station.ok("backup", "--no-upload")
    done = station.run("backup", preexec_fn=limit_files(1 << 20))
    assert (done.code, codes(done.json)) == (4, ["quota-exceeded"])
    assert done.json["providers"][0]["waiting_bytes"] > 3 << 20
    assert not [path for path in (elsewhere / "disk").rglob("*") if path.is_file() and path.stat().st_size == 1 << 20]
    station.backup()
    assert (station.restore("latest", "out") / "video").read_bytes() == (station.source / "video").read_bytes()


def test_one_of_two_is_down(twofold: Station) -> None:
    fill(twofold.source / "messages.db")
    gone = twofold.storage("usb").rename(twofold.room / "gone")
    done = twofold.run("backup")
    assert done.code == 4
    disk, usb = done.json["providers"]
    assert (disk["waiting_objects"], disk["errors"]) == (0, [])
    assert usb["waiting_objects"] > 0
    assert len(rows(twofold.restore("latest", "out") / "messages.db")) == 200

    gone.rename(twofold.storage("usb"))
    fill(twofold.source / "messages.db", 10)
    twofold.backup()
    assert [path.name for path in twofold.packs("usb")] == [path.name for path in twofold.packs("disk")]
    assert twofold.ok("status")["outbox_objects"] == 0


def test_one_that_is_not_required_may_lag_behind(twofold: Station) -> None:
    twofold.optional = ("usb",)
    twofold.configure(twofold.source)
    fill(twofold.source / "messages.db")
    twofold.storage("usb").rename(twofold.room / "gone")
    done = twofold.run("backup")
    assert (done.code, codes(done.json)) == (0, ["storage-missing"])
    status = twofold.ok("status")
    assert status["problems"] == []
    assert status["providers"][1]["snapshots_behind"] == 1


def test_the_disk_of_another_vault(station: Station, made_twofold: Station) -> None:
    """It would be filled, and called up to date."""
    fill(station.source / "messages.db")
    station.storage().rename(station.room / "right")
    shutil.copytree(made_twofold.storage("usb"), station.storage())
    before = station.objects().keys()
    done = station.run("backup")
    assert (done.code, codes(done.json)) == (5, ["wrong-vault"])
    assert station.objects().keys() == before
    assert station.run("verify").code == 5
    assert station.run("doctor").code == 1


def damage(station: Station, name: str) -> str:
    """Changes one byte in the middle of the largest pack; returns its name."""
    pack = max(station.packs(name), key=lambda path: path.stat().st_size)
    body = bytearray(pack.read_bytes())
    body[len(body) // 2] ^= 1
    pack.unlink()  # not in place: on one file system the same file may lie in two storages
    pack.write_bytes(body)
    return pack.name


def test_damage_is_found_without_a_key(station: Station) -> None:
    (station.source / "picture").write_bytes(os.urandom(200_000))
    station.backup()
    assert station.ok("verify")["providers"][0]["findings"] == []
    name = damage(station, "disk")
    done = station.run("verify")
    assert done.code == 5
    (finding,) = done.json["providers"][0]["findings"]
    assert finding["code"] == "object-mismatch"
    assert finding["params"]["name"].endswith(name)
    assert name in station.run("verify", json=False).out


def test_what_is_damaged_at_one_is_taken_from_the_other(twofold: Station) -> None:
    (twofold.source / "picture").write_bytes(os.urandom(200_000))
    twofold.backup()
    damage(twofold, "disk")
    alone = ["restore", "latest", "--target", twofold.room / "alone", "--from", twofold.storage("disk")]
    done = twofold.run(*alone, "--key-file", twofold.key)
    assert (done.code, done.error) == (5, "unreadable")
    assert not (twofold.room / "alone").exists()

    both = twofold.ok("restore", "latest", "--target", twofold.room / "out", "--key-file", twofold.key)
    assert (twofold.room / "out" / "picture").read_bytes() == (twofold.source / "picture").read_bytes()
    assert [finding["code"] for finding in both["findings"]] != []  # told, though it did no harm


def test_what_is_whole_can_be_salvaged(station: Station) -> None:
    (station.source / "picture").write_bytes(os.urandom(200_000))
    fill(station.source / "messages.db")
    station.backup()
    damage(station, "disk")
    words = ["restore", "latest", "--target", station.room / "out", "--key-file", station.key]
    assert station.run(*words).code == 5
    done = station.run(*words, "--salvage")
    assert done.code == 5
    assert [one["path"] for one in done.json["restored"]["damaged"]] == ["picture"]
    assert len(rows(station.room / "out" / "messages.db")) == 200


@pytest.mark.parametrize("kind", ["/p/", "/s/"])
def test_an_object_that_vanished_is_missed(station: Station, kind: str) -> None:
    """Nobody without the key can tell from storage alone that its newest objects are gone. This device can."""
    fill(station.source / "messages.db")
    station.backup()
    gone = next(path for name, path in reversed(station.objects().items()) if kind in name)
    gone.unlink()
    done = station.run("verify")
    assert done.code == 5
    assert [finding["code"] for finding in done.json["providers"][0]["findings"]] == ["missing-object"]


def test_deep_verification(station: Station) -> None:
    fill(station.source / "messages.db")
    (station.source / "picture").write_bytes(os.urandom(200_000))
    station.backup()
    fill(station.source / "messages.db", 10)
    station.backup()
    seen = station.ok("verify", "--deep", "--key-file", station.key)["deep"]
    assert (seen["snapshots"], seen["databases"], seen["findings"]) == (2, 1, [])
    damage(station, "disk")
    done = station.run("verify", "--deep", "--key-file", station.key)
    assert done.code == 5
    assert done.json["deep"]["findings"] != []


def test_what_waits_and_is_damaged_here_never_reaches_storage(station: Station) -> None:
    (station.source / "picture").write_bytes(os.urandom(200_000))
    station.ok("backup", "--no-upload")
    waiting = max(
        (path for path in (station.state / "outbox").iterdir() if path.is_file()), key=lambda p: p.stat().st_size
    )
    body = bytearray(waiting.read_bytes())
    body[1000] ^= 1
    waiting.write_bytes(body)

    done = station.run("backup")
    assert (done.code, codes(done.json)) == (5, ["outbox-damaged"])
    assert done.json["begun_anew"] == ["chat"]
    assert waiting.name not in "".join(station.objects())
    assert station.backup()["snapshots"] == 1  # all of it again, in a chain of its own
    assert (station.restore("latest", "out") / "picture").read_bytes() == (station.source / "picture").read_bytes()
    assert station.ok("verify")["providers"][0]["findings"] == []


def test_what_waits_and_is_lost_here_is_sent_again(station: Station) -> None:
    (station.source / "picture").write_bytes(os.urandom(200_000))
    station.ok("backup", "--no-upload")
    for path in (station.state / "outbox").iterdir():
        if path.is_file():
            path.unlink()
    assert station.run("doctor").code == 1
    done = station.ok("backup")
    assert done["begun_anew"] == ["chat"]
    assert (station.restore("latest", "out") / "picture").read_bytes() == (station.source / "picture").read_bytes()


def spoil(path: Path) -> None:
    """One bit of a file is flipped."""
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 1
    path.chmod(0o600)
    path.write_bytes(body)


def newest_manifest(station: Station) -> Path:
    return max((path for text, path in station.objects().items() if "/s/" in text), key=lambda path: path.name)


def test_latest_is_no_quiet_older_one(station: Station) -> None:
    """The newest manifest is damaged: what stands for it is restored, and the exit code says that it is not it."""
    for _ in range(2):
        fill(station.source / "messages.db")
        station.backup()
    spoil(newest_manifest(station))
    unlock = ["--key-file", station.key]
    done = station.run("restore", "latest", "--target", station.room / "out", *unlock)
    assert (done.code, done.json["snapshot"]["seq"]) == (5, 1)
    assert done.json["findings"]
    assert station.ok("restore", "1", "--target", station.room / "first", *unlock)["snapshot"]["seq"] == 1
    assert station.ok("ls", "latest", *unlock)["findings"]
    for words in (["ls", "latest"], ["cat", "latest", "messages.db"]):
        process = station.start(*words, *unlock, json=False, stdout=-3)
        assert "In storage there was also:" in process.communicate()[1], words


def test_no_snapshot_that_can_be_read_is_not_none_yet(station: Station) -> None:
    fill(station.source / "messages.db")
    station.backup()
    spoil(next(path for text, path in station.objects().items() if text.startswith("devices/")))
    done = station.run("restore", "latest", "--target", station.room / "out", "--key-file", station.key)
    assert done.code == 5, done


def test_a_damaged_slot_is_not_blamed_on_the_secret(station: Station) -> None:
    slot = next(path for text, path in station.objects().items() if text.startswith("slots/"))
    whole = slot.read_bytes()
    spoil(slot)
    done = station.run("snapshots", "--key-file", station.key)
    assert (done.code, done.json["error"]["params"]["reason"]) == (3, "damaged")
    assert "The secret may be right." in done.json["error"]["text"]
    slot.write_bytes(whole)
    done = station.run("snapshots", "--passphrase-file", station.key)
    assert (done.code, done.json["error"]["params"]["reason"]) == (3, "absent")
    assert "no key slot for a secret of this kind" in done.json["error"]["text"]


def test_trouble_that_passed_is_forgotten_also_when_nothing_waited(station: Station) -> None:
    fill(station.source / "messages.db")
    station.backup()
    marker = next((station.storage() / "vault").iterdir())
    body = marker.read_bytes()
    marker.unlink()
    assert codes(station.run("backup").json) == ["no-vault"]
    remedy = station.ok("status")["problems"][0]["remedy"]
    assert "chatkeep init" not in remedy  # it would be another vault
    marker.write_bytes(body)
    station.backup()
    assert station.ok("status")["problems"] == []
