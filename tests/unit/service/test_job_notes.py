"""Notes of jobs: kept whole or not at all, and believed only as they were written."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.service import job_notes
from chatkeep.daemon.service.job_notes import JobNote, JobNotes, Outcome

FULL = JobNote(
    counts_ns=5,
    last_ns=7,
    seconds=1.5,
    good_ns=3,
    outcome=Outcome.BAD,
    code="object-damaged",
    params={"provider": "disk", "count": 2},
    figures={"objects": 9},
    checked_ns={"disk": 7},
    failures=0,
)


def file(state_dir: Path) -> Path:
    return state_dir / "jobs" / "notes.json"


def test_they_come_back(tmp_path: Path) -> None:
    notes = {"verify": FULL, "drill": JobNote(counts_ns=-(10**18), outcome=None)}
    assert JobNotes(tmp_path).read() == {}
    assert JobNotes(tmp_path).write(notes)
    assert JobNotes(tmp_path).read() == notes
    assert stat.S_IMODE(file(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE(file(tmp_path).parent.stat().st_mode) == 0o700
    assert JobNotes(tmp_path).write({"verify": FULL})
    assert set(JobNotes(tmp_path).read()) == {"verify"}


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b'{"jobs": {}}', b'{"version": 2, "jobs": {"a": {}}}'),
        *(b'{"version": 1, "jobs": []}', b'{"version": 1}', b"[" * 100_000, b" " * (1 << 20) + b"{}"),
    ],
)
def test_what_is_no_notes_is_as_none(tmp_path: Path, raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    JobNotes(tmp_path).write({"verify": FULL})
    file(tmp_path).write_bytes(raw)
    assert JobNotes(tmp_path).read() == {}
    assert "job-notes-unreadable" in caplog.text
    assert JobNotes(tmp_path).write({"verify": FULL}), "and is written anew"
    assert JobNotes(tmp_path).read() == {"verify": FULL}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("counts_ns", None), ("counts_ns", "5"), ("counts_ns", 1.5), ("counts_ns", True), ("counts_ns", 1 << 70)),
        *(("last_ns", "x"), ("good_ns", []), ("seconds", "1"), ("seconds", None), ("outcome", "fine"), ("code", 5)),
        *(("params", []), ("figures", {"a": "b"}), ("checked_ns", {"a": None}), ("failures", "two"), ("failures", {})),
    ],
)
def test_a_damaged_note_costs_no_other(tmp_path: Path, key: str, value: Any) -> None:
    JobNotes(tmp_path).write({"verify": FULL, "drill": FULL})
    plain = json.loads(file(tmp_path).read_bytes())
    plain["jobs"]["verify"][key] = value
    file(tmp_path).write_text(json.dumps(plain))
    assert JobNotes(tmp_path).read() == {"drill": FULL}


@given(data=st.data())
def test_no_bytes_make_it_fail(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    state_dir = tmp_path_factory.mktemp("state")
    JobNotes(state_dir).write({"verify": FULL})
    raw = bytearray(file(state_dir).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    file(state_dir).write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for note in JobNotes(state_dir).read().values():
        assert isinstance(note.counts_ns, int)


def test_a_note_of_another_version_that_had_less(tmp_path: Path) -> None:
    file(tmp_path).parent.mkdir()
    file(tmp_path).write_text('{"version": 1, "jobs": {"verify": {"counts_ns": 5, "more": true}}}')
    assert JobNotes(tmp_path).read() == {"verify": JobNote(5)}


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_file_is_as_none(tmp_path: Path, kind: str) -> None:
    file(tmp_path).parent.mkdir()
    if kind == "link":
        file(tmp_path).symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").write_text('{"version": 1, "jobs": {"a": {"counts_ns": 5}}}')
    elif kind == "pipe":
        os.mkfifo(file(tmp_path))
    else:
        file(tmp_path).mkdir()
    were_open = set(os.listdir("/proc/self/fd"))
    assert JobNotes(tmp_path).read() == {}
    assert set(os.listdir("/proc/self/fd")) <= were_open


def test_a_full_disk_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    JobNotes(tmp_path).write({"verify": FULL})
    refused = []

    def full(*_args: object) -> None:
        refused.append(True)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(job_notes, "write_durably", full)
    assert not JobNotes(tmp_path).write({})
    assert refused
    assert "No space left" in caplog.text
    assert JobNotes(tmp_path).read() == {"verify": FULL}
