"""Two at once, Ctrl-C, kill -9: what was acknowledged stands, and the next backup goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.daemon.state import glance
from tests.support.station import Station, copied, fill, finish, met, paused, rows, until
from tests.support.trees import describe

MEDIA = 20  # files of 1 MiB: two packs, and time enough to be met at work


@pytest.fixture
def full(station: Station) -> Station:
    fill(station.source / "messages.db")
    add_media(station)
    return station


def add_media(station: Station) -> None:
    for number in range(MEDIA):
        (station.source / f"{number:02d}").write_bytes(os.urandom(1 << 20))


Moment = Callable[[Station, set[str]], bool]  # of a station, and of the objects that there were before


def is_capturing(station: Station, before: set[str]) -> bool:
    return any(path.stat().st_size > 1 << 20 for path in existing(station.state / "outbox" / "tmp"))


def has_committed(station: Station, before: set[str]) -> bool:
    return any(len(path.name) == 64 for path in existing(station.state / "outbox")) and not arrived(
        station, before, "s"
    )


def is_uploading(station: Station, before: set[str]) -> bool:
    """And not almost done: the manifest comes last."""
    return arrived(station, before, "p") and not arrived(station, before, "s")


def arrived(station: Station, before: set[str], kind: str) -> bool:
    return any(f"/{kind}/" in name for name in station.objects().keys() - before)


def existing(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.exists()] if folder.exists() else []


MOMENTS = {"capturing": is_capturing, "committed": has_committed, "uploading": is_uploading}


def at_work(station: Station, moment: Moment) -> subprocess.Popen[str]:
    """A backup that is held still at this moment."""
    before: set[str] = set()

    def begin() -> subprocess.Popen[str]:
        if before:  # of one that nobody met: there must be as much to do again
            add_media(station)
        before.update(station.objects())
        return station.start("backup")

    return met(begin, lambda: moment(station, before))


def test_two_at_once(full: Station) -> None:
    first = at_work(full, lambda station, before: glance.is_in_use(station.state) and is_capturing(station, before))
    with paused(first):
        second = full.run("backup")
        assert (second.code, second.error) == (1, "state-busy")
        assert "Another Chatkeep is at work" in full.run("backup", json=False).err
        assert full.ok("status")["running"] is True
    assert finish(first).code == 0
    assert full.ok("status")["running"] is False
    assert describe(full.restore("latest", "out")) == describe(full.source)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(full: Station, moment: str, stop: signal.Signals) -> None:
    process = at_work(full, MOMENTS[moment])
    process.send_signal(stop)
    process.send_signal(signal.SIGCONT)
    done = finish(process)
    assert (done.code, done.json["cancelled"]) == (6, True)
    assert full.backup()["error"] is None
    assert describe(full.restore("latest", "out")) == describe(full.source)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(full: Station, moment: str) -> None:
    kill_at(full, MOMENTS[moment])
    full.backup()
    assert describe(full.restore("latest", "out")) == describe(full.source)
    assert full.ok("verify", "--deep", "--key-file", full.key)["deep"]["findings"] == []
    assert full.ok("status")["outbox_objects"] == 0


def test_killed_again_and_again_nothing_acknowledged_is_lost(full: Station) -> None:
    full.backup()
    before = describe(full.source)
    for moment in (is_capturing, has_committed, is_capturing):
        for number in range(3):
            (full.source / f"{number:02d}").write_bytes(os.urandom(4 << 20))
        fill(full.source / "messages.db", 50)
        kill_at(full, moment)
        # What was acknowledged can be had at any time, with nothing but what is in storage at this instant.
        assert describe(full.restore("chat:1", f"out-{len(existing(full.room))}")) == before
    full.backup()
    assert describe(full.restore("latest", "out")) == describe(full.source)
    assert full.ok("verify", "--deep", "--key-file", full.key)["deep"]["findings"] == []


def kill_at(station: Station, moment: Moment) -> None:
    process = at_work(station, moment)
    process.kill()
    assert finish(process).code == -signal.SIGKILL


def test_an_init_that_was_killed(station: Station, tmp_path: Path) -> None:
    """Whatever it left is nothing, or a whole vault; and the next steps are told."""
    room = tmp_path / "fresh"
    room.mkdir()
    fresh = Station(room)
    process = fresh.start("init", "--recovery-key-file", fresh.key)
    until(lambda: fresh.key.exists(), process)
    process.kill()
    finish(process)
    whole = any(name.startswith("vault/") for name in fresh.objects())
    again = fresh.run("init", "--recovery-key-file", fresh.room / "second.txt")
    if (fresh.state / "chatkeep-writer").exists() and whole and again.code:
        assert again.error in {"vault-exists", "already-set-up"}
    else:
        assert again.code == 0, again
    fill(fresh.source / "messages.db")
    if again.code and again.error == "vault-exists":
        fresh.ok("join", "--key-file", fresh.key)
    fresh.backup()


def test_a_state_that_is_lost(full: Station) -> None:
    """Only time is lost: this device joins its vault again, and the older snapshots stay."""
    full.backup()
    before = describe(full.source)
    full.state.rename(full.room / "lost")
    done = full.run("backup")
    assert (done.code, "chatkeep join" in done.json["error"]["remedy"]) == (2, True)
    full.ok("join", "--key-file", full.key)
    fill(full.source / "messages.db", 10)
    full.backup()
    listed = full.ok("snapshots", "--key-file", full.key)["snapshots"]
    assert [one["seq"] for one in listed] == [1, 1]
    older = min(listed, key=lambda one: str(one["time"]))
    assert describe(full.restore(older["id"][:12], "older")) == before
    assert describe(full.restore("latest", "out")) == describe(full.source)


def test_the_records_of_another_vault(station: Station, made_twofold: Station, tmp_path: Path) -> None:
    fill(station.source / "messages.db")
    station.backup()
    other = copied(made_twofold, tmp_path / "other")
    (other.state / "chatkeep-writer").replace(station.state / "chatkeep-writer")
    done = station.run("backup")
    assert (done.code, done.error) == (1, "state-foreign")
    assert len(rows(station.restore("latest", "out") / "messages.db")) == 200
