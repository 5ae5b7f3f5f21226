"""Commands beside the daemon, through the real one: what goes through it, what borrows from it, what needs it not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import Running, running
from tests.support.station import Station, copied, fill, finish, paused, rows, sql, template, until

QUIET = "watch: {quiet: 1 hour, max_delay: 1 hour, min_interval: 0 seconds}"
"""Nothing is captured by itself but at the start: what is there afterwards was asked for."""


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory) -> Station:
    station = template(tmp_path_factory.mktemp("control") / "template")
    fill(station.source / "messages.db")
    return station


@pytest.fixture
def station(stamped: Station, tmp_path: Path) -> Station:
    station = copied(stamped, tmp_path)
    station.configure(station.source)
    with open(station.config, "a") as file:
        file.write(f"{QUIET}\n")
    return station


@pytest.fixture
def daemon(station: Station) -> Iterator[Running]:
    """A daemon that has made its first snapshot, and is unlocked."""
    with running(station) as found:
        found.logged("snapshot-made")
        found.unlock()
        found.until(lambda: not found.standing()["doing"] and not found.standing()["providers"][0]["waiting"])
        yield found


def change(station: Station, text: str) -> None:
    sql(station.source / "messages.db", f"INSERT INTO messages(body) VALUES('{text}')")


def restored(station: Station, name: str) -> None:
    """What is in storage is what is in the source now."""
    assert rows(station.restore("latest", name) / "messages.db") == rows(station.source / "messages.db")


def test_a_backup_goes_through_the_daemon_and_says_what_one_without_it_says(station: Station, daemon: Running) -> None:
    change(station, "through the daemon")
    done = station.run("backup", json=False)
    assert (done.code, done.err) == (0, ""), done
    assert "snapshot 2 of" in done.out
    assert "disk: has everything" in done.out
    restored(station, "one")
    change(station, "again")
    through = station.ok("backup", "chat")
    nothing = station.ok("backup")
    assert nothing["sources"][0]["snapshots"] == 0
    assert daemon.end() == 0
    change(station, "alone")
    alone = station.ok("backup")
    assert through.keys() == alone.keys()
    assert through["sources"][0].keys() == alone["sources"][0].keys()
    assert through["providers"][0].keys() == alone["providers"][0].keys()
    assert (through["sources"][0]["snapshot"]["seq"], alone["sources"][0]["snapshot"]["seq"]) == (3, 4)
    restored(station, "two")


def test_before_an_unlock_a_backup_is_held_and_says_what_to_do(station: Station) -> None:
    with running(station) as daemon:
        daemon.logged("snapshot-made")
        change(station, "held")
        done = station.run("backup", json=False)
        assert done.code == 3, done
        assert "chatkeep unlock" in done.out
        value = station.run("backup").json
        assert [one["code"] for one in value["providers"][0]["errors"]] == ["uploads-held"]
        assert value["providers"][0]["waiting_objects"] > 0
        said = station.run("status", json=False).out
        assert "uploads wait until somebody unlocks: chatkeep unlock" in said
        daemon.unlock()
        assert station.run("backup").code == 0
        restored(station, "back")


def test_a_source_that_the_daemon_does_not_know_and_options_that_it_does_not_keep(
    station: Station, daemon: Running
) -> None:
    (station.room / "other").mkdir()
    station.configure(station.source, station.room / "other")
    done = station.run("backup", "other")
    assert (done.code, done.error) == (2, "no-such-source")
    done = station.run("backup", "--no-upload")
    assert (done.code, done.error) == (2, "not-by-daemon")
    assert station.run("backup", "nothing").code == 2
    daemon.client.reload()
    assert station.ok("backup", "other")["sources"][0]["name"] == "other"


def test_everything_again_is_done_by_the_command_with_borrowed_records(station: Station, daemon: Running) -> None:
    change(station, "anew")
    assert station.backup("--anew")["snapshots"] == 1
    change(station, "and on")
    assert station.backup()["snapshots"] == 1
    assert daemon.standing()["mode"] == "running"


def test_lock_and_unlock_reach_the_daemon_at_once(station: Station, daemon: Running) -> None:
    assert daemon.standing()["session"]["unlocked"] is True
    assert len(station.ok("lock")["locked"]) == 1
    assert station.ok("lock")["locked"] == []
    daemon.until(lambda: daemon.standing()["session"]["unlocked"] is False)
    assert "locked: chatkeep unlock" in station.run("status", json=False).out
    station.ok("unlock", "--key-file", station.key)
    assert daemon.standing()["session"]["unlocked"] is True, "told before the command ended"


def test_what_reads_works_beside_it(station: Station, daemon: Running) -> None:
    assert [one["seq"] for one in station.ok("snapshots")["snapshots"]] == [1]
    assert station.ok("ls", "latest")
    assert station.ok("verify", "--deep")["deep"]["findings"] == []
    assert station.ok("drill")
    assert daemon.standing()["mode"] == "running"
    change(station, "after")
    assert station.backup()["snapshots"] == 1
    assert station.ok("status")["drill"][0]["good"] is True


def test_prune_and_new_keys_borrow_its_records_and_give_them_back(station: Station, daemon: Running) -> None:
    for number in range(3):
        change(station, f"{number}")
        station.backup()
    assert station.ok("prune", "--yes")
    change(station, "after the prune")
    assert station.backup()["snapshots"] == 1
    assert station.ok("key", "rotate", "--yes", "--key-file", station.key)["epoch"] == 2
    change(station, "with new keys")
    assert station.backup()["snapshots"] == 1
    assert station.ok("rebuild", "--key-file", station.key) == {"needed": False}
    assert daemon.standing()["mode"] == "running"
    restored(station, "back")


def test_what_was_sealed_is_proven_at_an_unlock_beside_the_daemon(station: Station) -> None:
    from chatkeep.daemon.state.glance import Glance

    def unproven() -> int:
        with Glance(station.state) as seen:
            return seen.capsules()[0]

    with running(station) as daemon:
        daemon.logged("snapshot-made")
        assert unproven() > 0
        daemon.unlock()
        assert unproven() == 0


def test_status_shows_the_daemon_and_that_there_is_none(station: Station, daemon: Running) -> None:
    said = station.run("status", json=False)
    assert said.code == 0
    assert "running since" in said.out
    assert "A backup is running now." not in said.out
    assert "Needs you" not in said.out, said.out
    found = station.ok("status")
    assert found["running"] is False
    assert found["daemon"]["pid"] == daemon.process.pid
    assert daemon.end() == 0
    said = station.run("status", json=False)
    assert "not running. Start it: systemctl --user start chatkeep" in said.out
    assert station.ok("status")["daemon"] is None


def test_watching_it_shows_events_as_they_come_and_ends_when_told(station: Station, daemon: Running) -> None:
    watching = station.start("status", "--watch")
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert first["line"] == "status"
    assert first["status"]["pid"] == daemon.process.pid
    daemon.until(lambda: daemon.standing()["pid"])
    change(station, "watched")
    lines = [first]
    asked = station.start("backup")
    while lines[-1].get("event", {}).get("kind") != "upload-done":
        lines.append(json.loads(watching.stdout.readline()))
    assert finish(asked).code == 0
    kinds = [line["event"]["kind"] for line in lines if line["line"] == "event"]
    assert kinds[:2] == ["snapshot-begun", "snapshot-made"]
    watching.send_signal(signal.SIGINT)
    assert finish(watching).code == 0

    inwords = station.start("status", "--watch", json=False)
    assert inwords.stdout is not None
    assert inwords.stdout.readline() == "Following the daemon.\n"
    change(station, "in words")
    asked = station.start("backup")
    line = ""
    while "snapshot 3" not in line:
        line = inwords.stdout.readline()
        assert line, "it ended"
    assert finish(asked).code == 0
    assert daemon.end() == 0
    done = finish(inwords)
    assert (done.code, done.out.splitlines()[-1]) == (0, "The daemon ended.")
    assert station.run("status", "--watch").error == "no-daemon"


def test_a_daemon_that_is_killed_while_it_backs_up_is_an_error_and_nothing_is_lost(
    station: Station, daemon: Running
) -> None:
    for number in range(40):
        (station.source / f"{number}.bin").write_bytes(bytes([number]) * 500_000)
    with paused(daemon.process):
        asked = station.start("backup")
        until(lambda: _is_connected(asked), asked)
        daemon.process.kill()
    done = finish(asked)
    assert (done.code, done.error) == (1, "daemon-lost")
    daemon.wait()
    assert station.backup()["files"] == 41
    restored(station, "back")


def test_a_daemon_that_hangs_keeps_nobody_from_locking_or_from_hearing_of_it(station: Station, daemon: Running) -> None:
    with paused(daemon.process):
        begun = time.monotonic()
        assert len(station.ok("lock")["locked"]) == 1
        done = station.run("status", json=False)
        assert time.monotonic() - begun < 30
        assert done.code == 0
        assert "does not answer" in done.out
    daemon.until(lambda: daemon.standing()["session"]["unlocked"] is False)


def test_ctrl_c_leaves_the_daemon_at_work(station: Station, daemon: Running) -> None:
    for number in range(40):
        (station.source / f"{number}.bin").write_bytes(os.urandom(500_000))
    asked = station.start("backup")
    daemon.until(lambda: daemon.standing()["doing"])
    with paused(daemon.process):
        asked.send_signal(signal.SIGINT)
        done = finish(asked)
    assert (done.code, done.error) == (6, "cancelled")
    assert "the daemon goes on with it" in done.json["error"]["text"]
    daemon.until(lambda: station.ok("status")["sources"][0]["files"] == 41)


def test_a_second_daemon_is_refused_and_the_first_goes_on(station: Station, daemon: Running) -> None:
    second = station.run("run")
    assert second.code == 1, second
    assert json.loads(second.out)["error"]["code"] == "daemon-running"
    assert daemon.standing()["mode"] == "running"


def test_one_who_dies_with_borrowed_records_gives_them_back(station: Station, daemon: Running) -> None:
    with daemon.client.borrowed("prune") as lines:
        assert next(line for line in lines if line["line"] != "alive")["line"] == "lent"
        assert daemon.standing()["mode"] == "lent"
        said = station.run("status", json=False).out
        assert "waits for chatkeep prune" in said
    change(station, "after")
    assert station.backup()["snapshots"] == 1


def _is_connected(process: subprocess.Popen[str]) -> bool:
    """Whether a command is connected to something: it opens no other socket than the daemon's."""
    with contextlib.suppress(OSError):
        names = os.listdir(f"/proc/{process.pid}/fd")
        return any(os.readlink(f"/proc/{process.pid}/fd/{name}").startswith("socket:") for name in names)
    return False
