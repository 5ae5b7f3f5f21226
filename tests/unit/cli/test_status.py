"""`chatkeep status`: what each state of things looks like, with nothing heavy imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.loader import memory
from chatkeep.daemon.cli import status_command
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.state import Commit, ObjectRow, SnapshotRow, SnapshotStatistics, State
from chatkeep.providers.memo import FileMemo
from chatkeep.providers.used import Used
from tests.unit.cli.test_main import HEAVY

VAULT, DEVICE = b"v" * 16, b"d" * 16
DAY = 86400 * 10**9


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A configuration with one source and two providers, the second not required."""
    for name in ("chat", "disk", "usb"):
        (tmp_path / name).mkdir()
    (tmp_path / "c.yaml").write_text(
        f"sources: [{tmp_path}/chat]\n"
        f"providers:\n  - {{name: disk, type: folder, path: {tmp_path}/disk}}\n"
        f"  - {{name: usb, type: folder, path: {tmp_path}/usb, required: false}}\n"
        f"state_dir: {tmp_path}/state\n"
    )
    return tmp_path


@pytest.fixture
def set_up(room: Path) -> Path:
    (room / "state").mkdir()
    (room / "state" / "chatkeep-writer").touch()
    return room


def status(room: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["--config", str(room / "c.yaml"), "status", *words]) == Exit.DONE
    return capsys.readouterr().out


def status_json(room: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(status(room, capsys, "--json"))


def commit(state: State, seq: int, clock: int, **figures: int) -> None:
    zeros = dict.fromkeys(SnapshotStatistics._fields, 0)
    statistics = SnapshotStatistics(**{**zeros, "files": 3, "source_bytes": 5000, **figures})
    stream = state.stream("chat").stream
    row = SnapshotRow(seq, f"m{seq}", clock, clock, complete=True, statistics=statistics.encode())
    objects = [ObjectRow(f"{kind}{seq}", os.urandom(32), 10, kind == "m") for kind in ("p", "m")]
    state.commit(Commit(stream, "chat", 1, row, b"h" * 32, objects, ()))


def test_not_set_up(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not set up" in status(room, capsys)
    assert "chatkeep setup" in status(room, capsys)
    assert status_json(room, capsys) == {"set_up": False}


def test_set_up_and_nothing_backed_up(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = status(set_up, capsys)
    assert "no snapshot yet" in said
    assert "No backup of it is on record here." in said
    assert status_json(set_up, capsys)["sources"][0]["seq"] is None


def test_lost_records_know_nothing_and_are_told_of_once(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with State.open(set_up / "state", VAULT, DEVICE) as state:
        state.lineage.note_lost(time.time_ns(), "state-lost")
        state.note_backup("chat", time.time_ns(), 0, "state-lost")
    said = status(set_up, capsys)
    assert "its snapshots are not known here" in said
    assert "what it has is not known here" in said
    assert "no snapshot yet" not in said
    assert "nothing was sent yet" not in said
    assert said.count("chatkeep rebuild") == 1
    assert "?" not in said
    assert status_json(set_up, capsys)["sources"][0]["last_error"] == "state-lost"


def test_all_well(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time_ns()
    with State.open(set_up / "state", VAULT, DEVICE) as state:
        commit(state, 1, now - 2 * 3600 * 10**9, pending=1, busy=2)
        state.note_backup("chat", now, 4, None)
        for provider in ("disk", "usb"):
            for name in ("p1", "m1"):
                state.outbox.record_receipt(name, provider, now)
            state.outbox.note_upload(provider, now, None)
        state.outbox.release(["disk", "usb"])
        assert status_json(set_up, capsys)["running"] is True
        assert "A backup is running now." in status(set_up, capsys)
    said = status(set_up, capsys)
    for words in (
        "snapshot 1, 2 hours ago",
        "3 files, 5.00 kB",
        "1 file not in the vault yet; the next backup continues",
        "2 files with the version before",
        "looked at just now, nothing new since",
        "4 remarks",
        "has everything, last upload just now",
    ):
        assert words in said
    assert "Needs you" not in said
    found = status_json(set_up, capsys)
    assert (found["vault"], found["running"], found["problems"]) == (VAULT.hex(), False, [])


def test_a_source_and_storage_that_need_somebody(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time_ns()
    with State.open(set_up / "state", VAULT, DEVICE) as state:
        commit(state, 1, now - DAY)
        commit(state, 2, now)
        state.note_backup("chat", now, 0, "source-unreadable")
        for provider in ("disk", "usb"):
            state.outbox.note_upload(provider, now, "storage-missing")
    said = status(set_up, capsys)
    assert f"{set_up}/chat cannot be read." in said  # what the system said is not on record, and the sentence is whole
    assert "2 snapshots behind, 40 B to send" in said
    assert "the last upload failed just now" in said
    assert "It is not required." in said
    found = status_json(set_up, capsys)
    assert [problem["about"] for problem in found["problems"]] == ["chat", "disk"]
    assert [one["snapshots_behind"] for one in found["providers"]] == [2, 2]
    assert found["outbox_bytes"] == 40


def test_storage_that_lets_nobody_in_says_what_to_run(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time_ns()
    with State.open(set_up / "state", VAULT, DEVICE) as state:
        commit(state, 1, now)
        state.note_backup("chat", now, 0, None)
        state.outbox.note_upload("disk", now, "login-needed")
        state.outbox.note_upload("usb", now, "storage-credential-refused")
    said = status(set_up, capsys)
    assert "chatkeep providers login disk" in said[said.index("Needs you") :]
    assert (
        "chatkeep providers test usb" in said[: said.index("Needs you")]
    )  # it is not required, and still nobody else can
    assert "?" not in said
    found = status_json(set_up, capsys)
    assert [one["state"] for one in found["providers"]] == ["login-needed", "key-refused"]


def test_what_a_sync_client_has_is_handed_over_and_no_more(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = set_up / "c.yaml"
    file.write_text(file.read_text().replace("/disk}", "/disk, synced: true}"))
    now = time.time_ns()
    with State.open(set_up / "state", VAULT, DEVICE) as state:
        commit(state, 1, now)
        for name in ("p1", "m1"):
            state.outbox.record_receipt(name, "disk", now)
        state.outbox.note_upload("disk", now, None)
    said = status(set_up, capsys)
    assert "everything was handed over, last upload just now" in said
    assert "whether it arrived is not seen here" in said
    assert "has everything" not in said
    assert status_json(set_up, capsys)["providers"][0]["state"] == "handed-over"


def used(room: Path, provider: str, day: str, figures: Used) -> None:
    memo = FileMemo(memory(room / "state", provider))
    memo.set(f"day:{day}", figures.encode())
    memo.close()


def test_what_was_asked_of_storage_today_and_how_fast_it_may_go(
    set_up: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = 1_772_798_400  # 2026-03-06 12:00 UTC, a Friday
    monkeypatch.setattr(time, "time_ns", lambda: noon * 10**9)
    at = time.localtime(noon)
    hour, later = f"{at.tm_hour:02}:{at.tm_min:02}", f"{(at.tm_hour + 1) % 24:02}:{at.tm_min:02}"
    file = set_up / "c.yaml"
    file.write_text(
        file.read_text()
        .replace("/disk}", f"/disk, limit: {{hours: [{{from: '{hour}', to: '{later}', upload: 500 KB/s}}]}}}}")
        .replace(
            "required: false}",
            f"required: false, limit: {{hours: [{{from: '{later}', to: '{hour}', upload: 10 KB/s}}]}}}}",
        )
    )
    used(set_up, "disk", "2026-03-06", Used({"put": 2, "get": 10}, 5_000_000, 4096))
    used(set_up, "disk", "2026-03-05", Used({"put": 99}, 1, 1))
    said = status(set_up, capsys)
    assert "today 12 requests, 5.00 MB sent, 4.10 kB received" in said
    assert "sends 500 KB/s at most now" in said
    assert "no limit at this hour" in said
    disk, usb = status_json(set_up, capsys)["providers"]
    assert disk["today"] == {
        "day": "2026-03-06",
        "requests": 12,
        "kinds": [{"kind": "get", "requests": 10}, {"kind": "put", "requests": 2}],
        "sent_bytes": 5_000_000,
        "received_bytes": 4096,
    }
    assert disk["limit"] == {"upload": 500_000, "download": None, "connections": 4}
    assert (usb["today"]["requests"], usb["limit"]["upload"]) == (0, None)
    memory(set_up / "state", "disk").write_bytes(b"this is no database" * 300)
    disk, _ = status_json(set_up, capsys)["providers"]
    assert disk["today"] is None
    assert "today" not in status(set_up, capsys)


def test_of_a_folder_without_a_limit_nothing_is_said(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used(set_up, "disk", time.strftime("%Y-%m-%d", time.gmtime()), Used({"put": 2}, 5, 0))
    assert "today" not in status(set_up, capsys)
    assert status_json(set_up, capsys)["providers"][0]["today"]["requests"] == 2


def test_a_backup_that_is_long_ago(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    then = time.time_ns() - status_command.STALE_NS - DAY
    with State.open(set_up / "state", VAULT, DEVICE) as state:
        commit(state, 1, then)
        state.note_backup("chat", then, 0, None)
    assert [problem["text"] for problem in status_json(set_up, capsys)["problems"]] == [
        "It was last backed up 8 days ago."
    ]


def test_a_source_that_is_not_configured_any_more(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with State.open(set_up / "state", VAULT, DEVICE) as state:
        state.stream("gone")
    assert "not in the configuration any more" in status(set_up, capsys)


def test_records_that_cannot_be_read(set_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (set_up / "state" / "state.db").write_bytes(b"nothing" * 1000)
    assert main(["--config", str(set_up / "c.yaml"), "status"]) == Exit.FAILED
    assert "are damaged" in capsys.readouterr().err


def test_it_imports_nothing_heavy(set_up: Path) -> None:
    State.open(set_up / "state", VAULT, DEVICE).close()
    # email: it comes with importlib.metadata, which takes as long as all the rest of a configuration.
    heavy = (HEAVY | {"email", "subprocess"}) - {"sqlite3"}
    script = f"""
import sys
from chatkeep.daemon.cli.main import main
code = main({["--config", str(set_up / "c.yaml"), "status"]!r})
print(code, *sorted({heavy!r} & {{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
