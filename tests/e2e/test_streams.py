"""Standard streams as shells, cron jobs and full disks leave them, and words where nobody can hear."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.station import Station, fill, paused, until


@pytest.fixture
def kept(station: Station) -> Station:
    fill(station.source / "messages.db")
    (station.source / "note").write_text("a note\n")
    station.backup()
    return station


def closing(*numbers: int) -> Callable[[], None]:
    """Closes descriptors in the child, as `>&-` does. For preexec_fn."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize("words", [["status"], ["backup"], ["cat", "latest", "note"], ["nonsense"], ["--help"]])
def test_no_standard_stream_is_open(kept: Station, words: list[str], tmp_path: Path) -> None:
    (kept.source / "note").write_text("another note\n")
    unlock = ["--key-file", str(kept.key)] if words[0] == "cat" else []
    done = kept.run(*words, *unlock, json=False, preexec_fn=closing(0, 1, 2))
    assert done.code == (2 if words == ["nonsense"] else 1)  # what is lost is never as if it had been shown
    assert kept.ok("verify")["providers"][0]["findings"] == []


def test_closed_output_is_told_where_it_can_be(kept: Station) -> None:
    done = kept.run("status", json=False, preexec_fn=closing(1))
    assert (done.code, done.err) == (1, "chatkeep: standard output: Bad file descriptor.\n")


def test_closed_input_is_no_terminal(kept: Station) -> None:
    done = kept.run("snapshots", preexec_fn=closing(0))
    assert (done.code, done.error) == (3, "vault-locked")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_full_disk_behind_the_output(kept: Station, as_json: bool) -> None:
    with Path("/dev/full").open("w") as full:
        done = kept.run("status", json=as_json, stdout=full)
    assert (done.code, done.err) == (1, "chatkeep: standard output: No space left on device.\n")


def test_a_job_that_ignores_hangups_goes_on(kept: Station) -> None:
    """As under nohup: the signal that the closing terminal sends is for others."""
    process = kept.start("snapshots", "--key-file", "-", stdin=subprocess.PIPE, preexec_fn=ignoring_hangups)
    assert process.stdin is not None
    process.send_signal(signal.SIGHUP)
    process.stdin.write(kept.key.read_text())
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)


def ignoring_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_pipe_that_takes_less_than_it_was_given(kept: Station) -> None:
    """Ctrl-Z and `fg` while the output waits, with a Python that was told not to buffer."""
    whole = os.urandom(3 << 20)
    (kept.source / "photo").write_bytes(whole)
    kept.backup()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    argv = kept.argv("cat", "latest", "photo", "--key-file", kept.key)
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        shown = process.stdout.read(1)  # it has begun, and there is more than a pipe holds
        with paused(process):
            until(lambda: ") T " in Path(f"/proc/{process.pid}/stat").read_text())
        while piece := process.stdout.read(1 << 20):
            shown += piece
    assert process.returncode == 0
    assert shown == whole
