"""What a job came to, by its exit code and what it said."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from chatkeep.daemon.service.conducting import inputs
from chatkeep.daemon.service.events import Bus
from chatkeep.daemon.service.job_notes import JobResult, Outcome
from chatkeep.daemon.service.running.errands import Errands, judged

GOOD: dict[str, object] = {"name": "disk", "error": None, "findings": []}
AWAY: dict[str, object] = {"name": "usb", "error": {"code": "unavailable", "text": "It is away."}, "findings": []}
DAMAGED: dict[str, object] = {"name": "disk", "error": None, "findings": [{"code": "object-damaged"}]}

SOUND: dict[str, object] = {"source": "a", "problems": [], "error": None}
UNSOUND: dict[str, object] = {"source": "b", "problems": [{"code": "captured-damaged"}], "error": None}
BROKEN: dict[str, object] = {"source": "c", "problems": [], "error": {"code": "not-enough-room"}}


@pytest.mark.parametrize(
    ("status", "said", "result"),
    [
        (0, {"providers": [GOOD]}, JobResult(Outcome.GOOD, checked=("disk",))),
        (0, {}, JobResult(Outcome.GOOD)),
        (5, {"providers": [DAMAGED]}, JobResult(Outcome.BAD, "object-damaged", checked=("disk",))),
        (4, {"providers": [GOOD, AWAY]}, JobResult(Outcome.BAD, "unavailable", checked=("disk",))),
        (4, {"providers": [AWAY]}, JobResult(Outcome.FAILED, "unavailable")),
        (3, {"error": {"code": "vault-locked"}}, JobResult(Outcome.PUT_OFF, "vault-locked")),
        (6, {"cancelled": True}, JobResult(Outcome.PUT_OFF, "exit-6")),
        (1, {"error": {"code": "not-enough-room"}}, JobResult(Outcome.FAILED, "not-enough-room")),
        (1, {"sources": [SOUND, UNSOUND]}, JobResult(Outcome.BAD, "captured-damaged")),
        (1, {"sources": [UNSOUND, BROKEN]}, JobResult(Outcome.FAILED, "captured-damaged")),
        (1, {"sources": []}, JobResult(Outcome.FAILED, "exit-1")),
        (4, {"sources": [SOUND]}, JobResult(Outcome.FAILED, "exit-4")),
        (-9, None, JobResult(Outcome.FAILED, "exit--9")),
        (1, ["code"], JobResult(Outcome.FAILED, "exit-1")),
        (1, {"providers": 7}, JobResult(Outcome.FAILED, "exit-1")),
    ],
)
def test_the_worst_that_was_said_counts(status: int, said: object, result: JobResult) -> None:
    assert judged(status, json.dumps(said).encode() if said is not None else b"killed bef") == result


def test_one_that_hangs_is_ended_and_tried_again(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    hangs = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"
    results: list[tuple[str, JobResult]] = []
    told: list[inputs.Input] = []

    async def run() -> None:
        errands = Errands(
            lambda _name: [sys.executable, "-c", hangs],
            Bus(),
            told.append,
            lambda name, result, _took: results.append((name, result)),
            longest=3.0,
        )
        await errands.run("verify")
        assert errands.doing == ()

    asyncio.run(run())
    assert results == [("verify", JobResult(Outcome.FAILED, "job-endless", {"hours": 0}))]
    assert told == [inputs.JobEnded("verify", True)]
    with pytest.raises(ProcessLookupError):  # it was there, and is gone
        os.kill(int(mark.read_text()), 0)
