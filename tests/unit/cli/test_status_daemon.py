"""What `status` makes of a daemon: from what it says of itself to a screen that a person understands."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from chatkeep.config.loader import load
from chatkeep.daemon.cli import by_daemon, status_daemon, verify_work
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.verify_note import VerifyNote, recall, remember
from chatkeep.daemon.cli.verify_work import ProviderVerdict, Verdict
from chatkeep.daemon.cli.words_of_events import EVENTS, said
from chatkeep.daemon.control.errors import DaemonSilent
from chatkeep.daemon.service.errors import NotReady
from chatkeep.daemon.service.events import CARRIES, Kind
from chatkeep.daemon.service.standing import (
    Doing,
    Fault,
    JobStanding,
    Mode,
    OutboxStanding,
    ProblemStanding,
    ProviderStanding,
    SessionStanding,
    SourceStanding,
    Standing,
)
from chatkeep.daemon.state import State
from chatkeep.daemon.vault.errors import MissingObject, NoVault
from chatkeep.providers.base import StorageMissing
from tests.support.served import Serving
from tests.unit.cli.test_main import HEAVY

SECOND = 10**9
HOUR = 3600 * SECOND
VAULT, DEVICE = b"v" * 16, b"d" * 16


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device that is set up, with one source and two providers, and a runtime directory of its own."""
    for name in ("chat", "disk", "usb", "runtime", "state"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "c.yaml").write_text(
        f"sources: [{tmp_path}/chat]\n"
        f"providers:\n  - {{name: disk, type: folder, path: {tmp_path}/disk}}\n"
        f"  - {{name: usb, type: folder, path: {tmp_path}/usb, required: false}}\n"
        f"state_dir: {tmp_path}/state\n"
    )
    (tmp_path / "state" / "chatkeep-writer").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path


@pytest.fixture
def serving(room: Path) -> Iterator[Serving]:
    with Serving(room / "state", room / "runtime" / "chatkeep") as found:
        yield found


def well(**parts: Any) -> Standing:
    """A daemon with which all is well, but for these parts."""
    now = time.time_ns()
    return dataclasses.replace(
        Standing(
            version("chatkeep"),
            os.getpid(),
            now - 2 * HOUR,
            Mode.RUNNING,
            VAULT.hex(),
            SessionStanding(unlocked=True, uploads=True),
            OutboxStanding(0, 20 * 10**9, full=False),
            sources=(SourceStanding("chat", "events"),),
            providers=(ProviderStanding("disk", required=True), ProviderStanding("usb", required=False)),
        ),
        **parts,
    )


def says(serving: Serving, standing: Standing) -> None:
    async def stand() -> Standing:
        return standing

    serving.served.standing = stand  # type: ignore[method-assign]


def status(room: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["--config", str(room / "c.yaml"), "status", *words]) == Exit.DONE
    return capsys.readouterr().out


Show = Callable[..., str]


@pytest.fixture
def show(room: Path, serving: Serving, capsys: pytest.CaptureFixture[str]) -> Show:
    """The screen for a daemon that is well but for these parts."""

    def shown(**parts: Any) -> str:
        says(serving, well(**parts))
        return status(room, capsys)

    return shown


def test_one_that_runs_and_has_nothing_to_do(show: Show) -> None:
    said = show()
    assert "daemon  running since " in said
    for word in ("capturing", "uploads wait", "lags", "jobs"):
        assert word not in said


def test_what_it_does_now(show: Show) -> None:
    now = time.time_ns()
    said = show(
        doing=(
            Doing("snapshot", "chat", now - 5 * SECOND, 5_000_000, 20_000_000),
            Doing("upload", "disk", now - 65 * SECOND, 7, None),
        )
    )
    assert "capturing chat: 5.00 MB of 20.0 MB, for 5" in said
    assert "uploading to disk, for 1 min 5 s" in said


def test_held_lent_and_ending(show: Show) -> None:
    held = show(session=SessionStanding(unlocked=False, uploads=False, locked="suspend"))
    assert "uploads wait until somebody unlocks: chatkeep unlock" in held
    assert "waits for chatkeep prune, running since" in show(mode=Mode.LENT, lent="prune")
    assert "stopping since" in show(mode=Mode.STOPPING)


def test_how_far_each_provider_lags_and_when_it_is_tried_again(show: Show) -> None:
    now = time.time_ns()
    said = show(
        providers=(
            ProviderStanding("disk", True, 5, behind_ns=now - 2 * HOUR, next_ns=now + 95 * SECOND, fault=Fault("x")),
            ProviderStanding("usb", False, 5, behind_ns=now - 5 * SECOND),
        )
    )
    disk, usb = said.split("\nusb")
    assert "lags 2 h behind" in disk
    assert "tried again in 1 min 3" in disk
    assert "lags" not in usb.split("\n\n")[0], "a moment is no lag"


def test_sources_that_changed_or_cannot_be_watched(show: Show) -> None:
    now = time.time_ns()
    said = show(sources=(SourceStanding("chat", "polling", changed=True, next_ns=now + 30 * SECOND),))
    assert "changes cannot be watched: it is looked at from time to time" in said
    assert "something changed; next snapshot in " in said
    assert " at the earliest" in said, "an application that goes on writing puts it off"
    said = show(sources=(SourceStanding("chat", "events", changed=True, next_ns=now),))
    assert "next snapshot now\n" in said


def test_jobs_with_their_next_time_and_last_result(show: Show) -> None:
    now = time.time_ns()
    said = show(
        jobs=(
            JobStanding("verify", 86400, now + 5 * HOUR, now - HOUR),
            JobStanding("drill", 7 * 86400, due=True, last_ns=now - 24 * HOUR, fault=Fault("restore-no-room")),
            JobStanding("prune", None),
        ),
        session=SessionStanding(unlocked=False, uploads=True),
    )
    assert "verify: in " in said
    assert "; last 1 hour ago, all well" in said
    assert "drill: waits for an unlock; last 1 day ago, " in said
    assert "prune: only when asked for" in said
    open_now = SessionStanding(unlocked=True, uploads=True)
    waits = JobStanding("drill", 86400, now - HOUR, due=True)
    assert "drill: due now" in show(session=open_now, jobs=(waits,)), "unlocked, it waits for something else"


def test_comparing_as_a_job(room: Path, show: Show) -> None:
    now = time.time_ns()
    good = JobStanding("compare", 6 * 3600, now + 5 * HOUR, now - HOUR)
    assert re.search(r"compare: in .*h.*; last 1 hour ago, all well\n", show(jobs=(good,)))
    assert "compare: now; last 1 hour ago, all well\n" in show(jobs=(dataclasses.replace(good, next_ns=None),))
    for params in ({"source": "chat", "path": f"{room}/chat"}, {"source": "chat"}):  # the second is what is on record
        failed = Fault("source-missing", params)
        said = show(jobs=(dataclasses.replace(good, fault=failed),))
        assert f"; last complete 1 hour ago; chat: There is nothing at {room}/chat.\n" in said
        said = show(jobs=(JobStanding("compare", 6 * 3600, now, due=True, fault=failed),))
        assert f"compare: due now; not complete yet; chat: There is nothing at {room}/chat.\n" in said


def test_what_needs_a_person(show: Show) -> None:
    now = time.time_ns()
    problem = ProblemStanding("held-too-long", "", now - HOUR, {})
    said = show(config_fault=Fault("config-invalid"), problems=(problem,), version="9.9.9", since_ns=1)
    needs = said.partition("Needs you")[2]
    assert "the daemon goes on with the one before" in needs
    assert "chatkeep config check" in needs
    assert "It is of version 9.9.9" in needs
    assert "of version" not in show(version="9.9.9", since_ns=now + HOUR), "it was installed before that was started"
    assert "daemon: Backups wait to be uploaded. Since " in needs
    assert "Run: chatkeep unlock" in needs


def test_names_do_not_drive_the_terminal(show: Show) -> None:
    said = show(
        mode=Mode.LENT,
        lent="\x1b[2J",
        doing=(Doing("snapshot", "\x1b[31m", time.time_ns()),),
        problems=(ProblemStanding("\x1b[1m", "\x1b[7m", 0),),
    )
    assert "\x1b" not in said


def test_as_a_value_it_is_what_the_daemon_says(
    room: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    says(serving, well())
    found = json.loads(status(room, capsys, "--json"))
    assert found["daemon"]["vault"] == VAULT.hex()
    assert found["running"] is False
    says(serving, well(doing=(Doing("upload", "disk", 0),)))
    assert json.loads(status(room, capsys, "--json"))["running"] is True


def test_one_that_hangs_and_one_that_is_of_another_version_are_problems(
    room: Path, serving: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_daemon, "PATIENCE", 0.2)
    serving.served.slow = True
    assert "does not answer (waited 0.2 s)" in status(room, capsys)
    serving.open_gate()
    serving.served.slow = False

    async def stand() -> dict[str, object]:
        return {"since": "then"}

    serving.served.standing = stand  # type: ignore[assignment,method-assign]
    assert "of another version" in status(room, capsys)


def test_none(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = status(room, capsys)
    assert "not running. Start it: systemctl --user start chatkeep\n" in said
    assert "By hand: chatkeep run\n" in said
    assert json.loads(status(room, capsys, "--json"))["daemon"] is None
    assert main(["--config", str(room / "c.yaml"), "status", "--watch"]) == Exit.FAILED
    assert "No daemon runs." in capsys.readouterr().err


def test_it_imports_nothing_heavy(room: Path, serving: Serving) -> None:
    says(serving, well())
    storage = "chatkeep.providers.base"
    heavy = (HEAVY | {"aiohttp", "asyncio", "structlog", "apscheduler", "dbus_fast"}) - {"sqlite3"}
    script = f"""
import sys
from chatkeep.daemon.cli.main import main
code = main({["--config", str(room / "c.yaml"), "status"]!r})
print(code, *sorted({heavy!r} & {{name.split(".")[0] for name in sys.modules}}), {storage!r} in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "running since" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 False"  # it asks no storage, and knows none


def test_every_event_has_words_and_they_name_only_what_it_carries() -> None:
    assert set(EVENTS) == set(Kind)
    for kind, names in CARRIES.items():
        values = {**dict.fromkeys(names, 5), "code": "unavailable"}
        text = said(str(kind), values)
        assert text, kind
        assert "?" not in text, (kind, text)
        assert "{" not in text
    assert said("from-later", {}) == "from-later"
    assert "\x1b" not in said("problem", {"problem": "\x1b[2J", "subject": "\x1b"})


def test_who_waits_for_the_records_is_told_for_what(
    room: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(room / "c.yaml")
    with by_daemon.borrowed(config, "prune", Output()):
        assert serving.served.owner == "prune"
    assert capsys.readouterr().err == "", "a moment is no wait"
    monkeypatch.setattr(by_daemon, "NOTE_AFTER", 0.0)
    notes = _Notes(serving)
    serving.served.slow = True
    with by_daemon.borrowed(config, "prune", notes):
        assert serving.served.owner == "prune"
    assert ["The daemon comes to a safe point first" in note for note in notes.told] == [True]


class _Notes(Output):
    """Lets the daemon go on when the note is there."""

    def __init__(self, serving: Serving) -> None:
        super().__init__()
        self.told: list[str] = []
        self._serving = serving

    def note(self, text: str) -> None:
        self.told.append(text)
        self._serving.open_gate()


def test_one_that_only_just_starts_is_waited_for(room: Path, serving: Serving) -> None:
    config = load(room / "c.yaml")
    serving.served.fails = NotReady(reason="starting")
    answers: list[str] = serving.served.asked

    class Patient(Output):
        def note(self, text: str) -> None:
            serving.served.fails = None  # it is ready by the time that somebody would be told

    with by_daemon.borrowed(config, "prune", Patient()):
        assert serving.served.owner == "prune"
    assert answers.count("lend prune") > 1, "asked again"


def test_a_daemon_that_fails_keeps_a_quick_borrower_from_nothing(room: Path, serving: Serving) -> None:
    config = load(room / "c.yaml")
    serving.served.fails = NotReady(reason="stopping")
    with by_daemon.borrowed_quickly(config, "prune") as free:
        assert free is False
    serving.served.fails = None
    with by_daemon.borrowed_quickly(config, "prune") as free:
        assert free is True
        assert serving.served.owner == "prune"


def test_a_daemon_that_hangs_is_no_backup_that_runs(
    room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = Mock(side_effect=DaemonSilent(seconds=2.0))
    monkeypatch.setattr("chatkeep.daemon.control.client.Daemon.find", hung)
    with State.open(room / "state", VAULT, DEVICE):  # as a daemon has it
        assert "A backup is running now." not in status(room, capsys)
        assert '"running": false' in status(room, capsys, "--json")
    assert hung.call_count == 2


def test_a_note_of_a_verification_comes_back_or_is_none(tmp_path: Path) -> None:
    assert recall(tmp_path) is None
    note = VerifyNote(7, deep=True, good=False, objects=3)
    remember(tmp_path, note)
    assert recall(tmp_path) == note
    for damaged in ("", "[]", '{"at": 1}', '{"at": "x", "deep": true, "good": true, "objects": 1}'):
        (tmp_path / "verify" / "last.json").write_text(damaged)
        assert recall(tmp_path) is None
    (tmp_path / "verify" / "last.json").write_text('{"at": 7, "deep": true, "good": false, "objects": 3}')
    assert recall(tmp_path) == note, "of an earlier version"


def test_storage_that_was_away_is_not_called_wrong(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(room / "c.yaml")

    def verified(**about: Any) -> str:
        verify_work.note(config, Verdict([ProviderVerdict("disk", required=True, **about)]))
        assert main(["--config", str(room / "c.yaml"), "status"]) == Exit.DONE
        return capsys.readouterr().out

    away = StorageMissing(path="/nowhere")
    assert "all as it was sealed" in verified()
    said = verified(error=away)
    assert "storage could not be reached" in said
    assert "could not look at all of storage" in said
    assert "not all was as it should be" not in said
    # Wrong is what is there and is not the vault, or was changed; that stands until somebody has looked again.
    for wrong in ({"error": NoVault()}, {"findings": [MissingObject(name="d/x")]}, {"error": away}):
        said = verified(**wrong)
        assert "not all was as it should be" in said
        assert "could not be reached" not in said
    assert "all as it was sealed" in verified()


def test_a_configuration_that_is_wrong_does_not_hide_the_daemon(
    room: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    then = time.time_ns() - 2 * HOUR
    says(serving, well(sources=(SourceStanding("chat", "events", looked_ns=then, fault=Fault("source-busy")),)))
    file = room / "c.yaml"
    for wrong in ("surces: x\n", "nonsense: [\n"):
        file.write_text(f"{wrong}state_dir: {room}/state  # mine\n")
        assert main(["--config", str(file), "status"]) == Exit.USAGE
        said = capsys.readouterr()
        assert "daemon  running since " in said.out
        assert "chat    looked at 2 hours ago" in said.out
        assert "disk    has everything" in said.out
        assert "The configuration is wrong" in said.err
        assert main(["--config", str(file), "--json", "status"]) == Exit.USAGE
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "config-invalid"


def test_a_configuration_that_is_wrong_without_a_daemon(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "c.yaml").write_text("surces: x\n")
    assert main(["--config", str(room / "c.yaml"), "status"]) == Exit.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "The configuration is wrong" in said.err
