"""The daemon, from a change to an acknowledged snapshot: real processes, a real directory, a live writer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import configured, running, writer
from tests.support.station import Station, copied, fill, rows, sql, template


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    station = template(tmp_path_factory.mktemp("daemon") / "template")
    fill(station.source / "messages.db")
    return station


@pytest.fixture
def station(made: Station, tmp_path: Path) -> Station:
    station = copied(made, tmp_path)
    configured(station)
    return station


@contextlib.contextmanager
def writing(station: Station) -> Iterator[None]:
    stop = threading.Event()
    thread = writer(station.source / "messages.db", stop)
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def state_taken(station: Station) -> Iterator[None]:
    """The state directory is another command's for the block: its lock is had at once."""
    lock = os.open(station.state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def manifests(station: Station) -> int:
    return sum("/s/" in name for name in station.objects())


def test_what_changes_is_kept_held_until_an_unlock_and_then_sent_without_being_asked(station: Station) -> None:
    with running(station) as daemon:
        daemon.logged("snapshot-made")
        daemon.logged("held")
        before = station.objects()
        with writing(station):
            daemon.logged("snapshot-made", 3)
        assert station.objects() == before, "sent before the vault was unlocked"
        assert daemon.standing()["session"] == {**daemon.standing()["session"], "unlocked": False, "uploads": False}
        daemon.unlock()
        daemon.logged("upload-done")
        daemon.until(lambda: manifests(station) >= 3)

        sent = manifests(station)
        sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('after')")
        daemon.until(lambda: manifests(station) > sent)
        assert daemon.end() == 0
    target = station.restore("latest", "back")
    assert rows(target / "messages.db") == rows(station.source / "messages.db")


def test_a_lock_ends_the_session_and_uploads_go_on(station: Station) -> None:
    with running(station) as daemon:
        daemon.unlock()
        daemon.logged("unlocked")
        daemon.until(lambda: manifests(station) >= 1)
        assert station.ok("lock")
        assert daemon.logged("locked")["reason"] is not None
        before = manifests(station)
        sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('locked')")
        daemon.until(lambda: manifests(station) > before)
        standing = daemon.standing()["session"]
        assert (standing["unlocked"], standing["uploads"]) == (False, True)


def test_started_again_in_the_same_login_it_goes_on_without_an_unlock(station: Station) -> None:
    with running(station) as daemon:
        daemon.unlock()
        daemon.until(lambda: manifests(station) >= 1)
        assert station.ok("lock")
        daemon.logged("locked")
        assert daemon.end() == 0
    with running(station) as daemon:
        before = manifests(station)
        sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('again')")
        daemon.until(lambda: manifests(station) > before)


def test_without_require_unlock_it_needs_nobody(station: Station) -> None:
    configured(station, "session: {require_unlock: false}")
    with running(station) as daemon:
        daemon.until(lambda: manifests(station) >= 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_cleanly_in_the_midst_of_work(station: Station, number: signal.Signals) -> None:
    configured(station, "session: {require_unlock: false}")
    with running(station) as daemon, writing(station):
        daemon.logged("upload-done")
        begun = time.monotonic()
        assert daemon.end(number) == 0
        assert time.monotonic() - begun < 5
    assert [line["reason"] for line in daemon.kinds("stopping")] == ["signal"]
    assert station.run("backup").code == 0


def test_killed_under_a_live_writer_it_goes_on_and_sends_nothing_twice(station: Station) -> None:
    configured(station, "session: {require_unlock: false}")
    with writing(station):
        for _ in range(3):
            with running(station) as daemon:
                daemon.logged("upload-done", 2)
                before = {name: path.stat().st_mtime_ns for name, path in station.objects().items()}
                daemon.process.send_signal(signal.SIGKILL)
                daemon.wait()
    with running(station) as daemon:
        daemon.logged("snapshot-made")
        daemon.until(lambda: not daemon.standing()["providers"][0]["waiting"])
        after = {name: path.stat().st_mtime_ns for name, path in station.objects().items()}
        assert {name: after.get(name) for name in before} == before, "put again, or gone"
        assert daemon.end() == 0
    assert station.run("verify").code == 0
    target = station.restore("latest", "back")
    assert rows(target / "messages.db") == rows(station.source / "messages.db")


def test_a_provider_that_vanishes_and_comes_back(station: Station) -> None:
    configured(station, "session: {require_unlock: false}")
    disk, away = station.storage(), station.room / "unplugged"
    with running(station) as daemon:
        daemon.until(lambda: manifests(station) >= 1)
        disk.rename(away)
        sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('meanwhile')")
        assert daemon.logged("upload-failed")["provider"] == "disk"
        assert daemon.standing()["providers"][0]["fault"] is not None
        away.rename(disk)
        before = manifests(station)
        daemon.logged("provider-back")
        daemon.until(lambda: manifests(station) > before)
        assert daemon.standing()["providers"][0]["fault"] is None


def test_a_source_that_is_not_there_is_told_and_taken_when_it_comes(station: Station) -> None:
    away = station.room / "elsewhere"
    station.source.rename(away)
    with running(station) as daemon:
        assert daemon.logged("snapshot-failed")["code"] == "source-missing"
        assert daemon.standing()["sources"][0]["watched"] == "missing"
        away.rename(station.source)
        daemon.logged("snapshot-made")
        daemon.until(lambda: daemon.standing()["sources"][0]["fault"] is None)
        assert daemon.standing()["sources"][0]["watched"] == "events"


def test_another_command_that_has_the_state_directory_is_waited_for(station: Station) -> None:
    with contextlib.ExitStack() as stack:
        taken = contextlib.ExitStack()
        taken.enter_context(state_taken(station))
        stack.callback(taken.close)
        daemon = stack.enter_context(running(station))
        assert daemon.logged("problem")["code"] == "state-busy"
        assert daemon.standing()["mode"] == "starting"
        assert not daemon.kinds("snapshot-begun")
        taken.close()
        daemon.logged("snapshot-made")
        assert daemon.logged("problem-over")["problem"] == "state-busy"
        daemon.until(lambda: daemon.standing()["mode"] == "running")


def test_two_daemons_for_one_state_directory_are_one_too_many(station: Station) -> None:
    with running(station):
        done = station.run("run")
        assert done.code == 1
        assert "daemon-running" in done.out + done.err


def test_a_device_that_is_not_set_up_is_told_what_to_do(tmp_path: Path) -> None:
    station = Station(tmp_path)
    done = station.run("run")
    assert (done.code, done.error) == (2, "credential-refused")


def test_it_is_asked_for_a_backup_and_answers_with_its_report(station: Station) -> None:
    with running(station) as daemon:
        daemon.logged("snapshot-made")
        sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('asked')")
        with daemon.client.backup([]) as lines:
            *_, last = lines
        report = last["report"]
        assert [one["name"] for one in report["sources"]] == ["chat"]
        assert [problem["code"] for one in report["providers"] for problem in one["problems"]] == ["uploads-held"]
        assert not report["cancelled"]
        daemon.unlock()
        with daemon.client.backup(["chat"]) as lines:
            *_, last = lines
        report = last["report"]
        assert not any(one["problems"] for one in report["providers"])
        assert report["waiting"] == [0, 0]
        assert manifests(station) >= 2


def test_lent_nothing_runs_and_it_comes_back(station: Station) -> None:
    with running(station) as daemon:
        daemon.logged("snapshot-made")
        with daemon.client.borrowed("prune") as lines:
            while next(lines)["line"] != "lent":
                pass
            assert (daemon.standing()["mode"], daemon.standing()["lent"]) == ("lent", "prune")
            begun = len(daemon.kinds("snapshot-made"))
            sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('lent')")
            with state_taken(station):  # what the daemon gave up another process can have
                pass
            assert len(daemon.kinds("snapshot-made")) == begun
        daemon.until(lambda: daemon.standing()["mode"] == "running")
        sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('back')")
        daemon.logged("snapshot-made", begun + 1)


def test_a_new_configuration_is_followed_and_a_bad_one_refused(station: Station) -> None:
    other = station.room / "other"
    other.mkdir()
    fill(other / "more.db")
    with running(station) as daemon:
        daemon.logged("snapshot-made")
        good = station.config.read_text()
        station.config.write_text(good + "nonsense: 1\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.logged("reload-refused")["code"] == "config-invalid"
        assert daemon.standing()["config_fault"]["code"] == "config-invalid"
        sql(station.source / "messages.db", "INSERT INTO messages(body) VALUES('on')")
        daemon.logged("snapshot-made", 2)

        station.config.write_text(good.replace(f"  - {station.source}\n", f"  - {station.source}\n  - {other}\n"))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.logged("reloaded")
        daemon.until(lambda: any(line["source"] == "other" for line in daemon.kinds("snapshot-made")))
        standing = daemon.standing()
        assert standing["config_fault"] is None
        assert [one["name"] for one in standing["sources"]] == ["chat", "other"]


def test_a_session_that_nobody_told_of_is_found_at_the_start(station: Station) -> None:
    station.ok("unlock", "--key-file", station.key)
    with running(station) as daemon:
        daemon.logged("unlocked")
        daemon.until(lambda: manifests(station) >= 1)


def test_its_jobs_are_the_real_commands_and_prune_borrows_the_records(station: Station) -> None:
    with running(station) as daemon:
        daemon.client.run_job("drill")
        daemon.until(lambda: any(job["due"] for job in daemon.standing()["jobs"] if job["name"] == "drill"))
        daemon.unlock()
        daemon.logged("upload-done")
        daemon.logged("job-done")  # the drill has waited for the unlock
        daemon.client.run_job("verify")
        daemon.logged("job-done", 2)
        daemon.client.run_job("prune")
        daemon.logged("job-done", 3)
        daemon.until(lambda: daemon.standing()["mode"] == "running")
        assert [line["job"] for line in daemon.kinds("job-done")] == ["drill", "verify", "prune"]
        assert not daemon.kinds("job-failed")
        ran = {job["name"] for job in daemon.standing()["jobs"] if job["last_ns"]}
        assert ran == {"compare", "drill", "verify", "prune"}
