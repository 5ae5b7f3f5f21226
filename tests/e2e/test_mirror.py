"""`chatkeep mirror` as a person runs it: a new provider, one that lacks something, beside the daemon, broken off."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from tests.support.running import configured, running, writer
from tests.support.station import Station, copied, fill, finish, met, rows
from tests.support.trees import describe


@pytest.fixture
def used(station: Station) -> Station:
    """Three snapshots at `disk`."""
    for number in range(3):
        fill(station.source / "messages.db", 50, f"message {number}")
        (station.source / f"photo {number}").write_bytes(os.urandom(200_000))
        station.backup()
    return station


def second(station: Station, name: str = "usb") -> None:
    """One more provider in the configuration."""
    station.names = (*station.names, name)
    station.configure(station.source)


def contents(station: Station, name: str) -> dict[str, bytes]:
    return {text: path.read_bytes() for text, path in station.objects(name).items()}


def test_a_new_provider(used: Station) -> None:
    second(used)
    waits = used.run("backup")
    assert waits.json["providers"][1]["errors"][0]["code"] == "storage-missing"
    assert not used.storage("usb").exists()
    looked = used.ok("mirror", "usb", "--dry-run")
    assert (looked["dry_run"], looked["complete"], looked["copied_objects"]) == (True, False, 0)
    assert not used.storage("usb").exists()
    done = used.ok("mirror", "usb")
    assert (done["copied_objects"], done["complete"]) == (looked["lacking_objects"], True)
    assert done["copied_bytes"] == looked["lacking_bytes"]
    assert contents(used, "usb") == contents(used, "disk")
    assert [one["state"] for one in used.ok("providers", "list")["providers"]] == ["whole", "whole"]
    assert done["receipts"] == len([name for name in used.objects() if name.startswith("d/")])
    used.names = ("usb",)
    assert describe(used.restore("latest", "out")) == describe(used.source)
    used.names = ("disk", "usb")
    (used.source / "photo 3").write_bytes(os.urandom(100_000))
    used.backup()
    assert contents(used, "usb") == contents(used, "disk")
    assert used.ok("status")["outbox_objects"] == 0
    assert used.ok("verify")["providers"][1]["findings"] == []
    said = used.run("mirror", "usb", json=False)
    assert (said.code, said.out) == (0, "Copied to usb: 0 objects, 0 B.\nusb has everything.\n")


def test_what_a_person_may_get_wrong(used: Station, made_twofold: Station) -> None:
    assert used.run("mirror").code == 2
    alone = used.run("mirror", "disk", json=False)
    assert (alone.code, "There is no other one" in alone.err) == (2, True)
    second(used)
    wrong = used.run("mirror", "ubs", json=False)
    assert (wrong.code, "Did you mean 'usb'?" in wrong.err) == (2, True)
    assert used.run("mirror", "--from", "usb", "usb").code == 2
    assert used.run("mirror", "--from", "dsk", "usb").code == 2
    shutil.copytree(made_twofold.storage("usb"), used.storage("usb"))  # another vault's disk
    before = contents(used, "usb")
    done = used.run("mirror", "usb")
    assert (done.code, done.error) == (5, "wrong-vault")
    assert contents(used, "usb") == before


def test_a_disk_that_is_away_is_not_made_anew(twofold: Station) -> None:
    fill(twofold.source / "messages.db")
    twofold.backup()
    twofold.storage("usb").rename(twofold.room / "elsewhere")
    done = twofold.run("mirror", "usb")
    assert (done.code, done.error) == (4, "storage-missing")
    assert not twofold.storage("usb").exists()


def test_what_it_lost_comes_back(twofold: Station) -> None:
    fill(twofold.source / "messages.db")
    (twofold.source / "photo").write_bytes(os.urandom(300_000))
    twofold.backup()
    whole = contents(twofold, "disk")
    for text, path in twofold.objects("usb").items():
        if not text.startswith("vault/"):
            path.unlink()
    assert twofold.run("verify").code == 5
    damaged = twofold.packs()[0]
    damaged.chmod(0o600)
    body = damaged.read_bytes()
    damaged.write_bytes(body[:-1] + b"?")
    done = twofold.run("mirror", "usb")
    assert (done.code, [one["code"] for one in done.json["errors"]]) == (5, ["nowhere-whole"])
    assert done.json["complete"] is False
    assert damaged.name not in {path.name for path in twofold.packs("usb")}
    damaged.write_bytes(body)
    assert twofold.ok("mirror", "usb", "--from", "disk")["copied_objects"] == 1
    assert contents(twofold, "usb") == whole
    assert twofold.ok("verify")["providers"][1]["findings"] == []


def test_broken_off_it_goes_on(used: Station) -> None:
    for number in range(10):
        (used.source / f"video {number}").write_bytes(os.urandom(400_000))
        used.backup()
    second(used)
    process = met(lambda: used.start("mirror", "usb"), lambda: 3 < len(used.objects("usb")) < 20)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    done = finish(process)
    assert (done.code, done.json["cancelled"], done.json["complete"]) == (6, True, False)
    there = len(used.objects("usb"))
    assert there < len(used.objects())
    for command in ("snapshots", "restore"):
        words = [command] + (["latest", "--target", used.room / "out"] if command == "restore" else [])
        refused = used.run(*words, "--from", used.storage("usb"), "--key-file", used.key)
        assert (refused.code, refused.error) == (4, "no-vault"), command
    assert used.ok("mirror", "usb")["copied_objects"] == len(used.objects()) - there
    assert contents(used, "usb") == contents(used, "disk")


def test_without_any_device(used: Station, tmp_path: Path) -> None:
    """A machine that has the storages and a configuration, and never was part of the vault."""
    second(used)
    elsewhere = copied(used, tmp_path / "elsewhere")
    shutil.rmtree(elsewhere.state)
    done = elsewhere.ok("mirror", "usb")
    assert (done["complete"], done["receipts"]) == (True, None)
    assert contents(elsewhere, "usb") == contents(elsewhere, "disk")


def test_beside_the_daemon(used: Station) -> None:
    """The application writes and the daemon backs up, before, during and after."""
    used.names = ("disk", "usb")
    configured(used, "session: {require_unlock: false}")
    stop = threading.Event()
    with running(used) as daemon:
        thread = writer(used.source / "messages.db", stop)
        try:
            daemon.logged("snapshot-made", 2)
            done = used.ok("mirror", "usb")
            assert done["complete"]
            daemon.logged("snapshot-made", len(daemon.kinds("snapshot-made")) + 2)
        finally:
            stop.set()
            thread.join()
        used.ok("backup")
        standing = daemon.standing()
        assert [one["waiting"] for one in standing["providers"]] == [0, 0]
        assert daemon.end() == 0
    assert contents(used, "usb") == contents(used, "disk")
    used.names = ("usb",)
    assert rows(used.restore("latest", "out") / "messages.db") == rows(used.source / "messages.db")


def test_one_that_is_left_behind_while_snapshots_are_pruned(twofold: Station) -> None:
    """A checkpoint that left the outbox comes too, after everything that it speaks of; what it let go does not."""
    twofold.optional = ("usb",)
    twofold.configure(twofold.source)
    policy = "{everything_for: 0 days, hourly: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0, minimum: 2}"
    with twofold.config.open("a") as file:
        file.write(f"outbox: {{limit: 1 MB}}\nretention: {policy}\n")
    twofold.backup()
    gone = twofold.storage("usb").rename(twofold.room / "elsewhere")
    for number in range(4):
        for path in twofold.source.glob("video *"):
            path.unlink()
        (twofold.source / f"video {number}").write_bytes(os.urandom(400_000))
        twofold.backup()
    status = twofold.ok("status")
    assert status["providers"][1]["left_behind"] is not None
    assert status["outbox_bytes"] < 1_000_000
    said = twofold.run("status", json=False).out
    assert "left behind" in said
    pruned = twofold.ok("prune", "--yes", "--key-file", twofold.key)
    gone.rename(twofold.storage("usb"))
    twofold.backup()
    status = twofold.ok("status")["providers"][1]
    assert (status["left_behind"], status["waiting_objects"]) == (None, 0)
    assert twofold.ok("verify")["providers"][1]["findings"] == []
    twofold.names = ("usb",)
    assert describe(twofold.restore("latest", "out")) == describe(twofold.source)
    assert pruned["dry_run"] is False
