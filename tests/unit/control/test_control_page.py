"""docs/control.md says what the control socket does, and the socket does nothing else."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from chatkeep.daemon.control import connections, talk, wire
from chatkeep.daemon.control.api import STREAMS, WORK_SECONDS, Api
from chatkeep.daemon.control.asked import Backup, Lend
from chatkeep.daemon.control.wire import BACKUP, LEND, REASONS, ROUTES, Line
from chatkeep.daemon.service.engine import report
from chatkeep.daemon.service.events import CARRIES, Stream
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
from tests.support.served import TestServed
from tests.support.served import report as whole_report
from tests.support.served import standing as whole_standing

PAGE = (Path(__file__).parents[3] / "docs" / "control.md").read_text(encoding="utf-8")
WORD = re.compile(r"`([^`]+)`")


def table(chapter: str, page: str = PAGE) -> list[list[str]]:
    """The rows of the table of a chapter, without its head."""
    text = page.split(f"\n## {chapter}\n")[1].split("\n## ")[0]
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def words(cell: str) -> tuple[str, ...]:
    return tuple(WORD.findall(cell))


def shapes(chapter: str) -> dict[str, tuple[str, ...]]:
    return {row[0]: words(row[1]) for row in table(chapter)}


def fields(kind: type) -> tuple[str, ...]:
    return tuple(one.name for one in dataclasses.fields(kind))


def test_paths_methods_and_keys() -> None:
    told = [(row[0], *words(row[1]), words(row[2])) for row in table("How")]
    assert told == [(route.method, route.path, route.keys) for route in ROUTES]
    streams = [words(row[1])[0] for row in table("How") if row[3].startswith("a stream")]
    assert streams == [route.path for route in ROUTES if route.streams]
    assert Backup.__struct_fields__ == BACKUP.keys
    assert Lend.__struct_fields__ == LEND.keys


async def _ways(tmp_path: Path) -> list[wire.Route]:
    return [way.route for way in Api(TestServed(), tmp_path)._ways]


def test_every_path_is_served_and_none_besides(tmp_path: Path) -> None:
    import asyncio

    assert sorted(asyncio.run(_ways(tmp_path))) == sorted(ROUTES)


def test_lines() -> None:
    assert [words(row[0])[0] for row in table("Streams")] == [str(line) for line in Line]


def test_reasons() -> None:
    assert {words(row[0])[0]: int(row[1]) for row in table("Errors")} == dict(REASONS)


def test_every_reason_is_given_somewhere() -> None:
    code = "".join(
        (Path(__file__).parents[3] / "daemon" / "control" / name).read_text() for name in ("api.py", "asked.py")
    )
    assert {reason for reason in REASONS if f'reason="{reason}"' not in code} == set()


def test_the_shapes_of_status() -> None:
    assert shapes("Status") == {
        "status": fields(Standing),
        "session": fields(SessionStanding),
        "outbox": fields(OutboxStanding),
        "doing": fields(Doing),
        "sources": fields(SourceStanding),
        "providers": fields(ProviderStanding),
        "jobs": fields(JobStanding),
        "problems": fields(ProblemStanding),
        "fault": fields(Fault),
    }
    found = wire.plain(whole_standing())
    for part in ("doing", "sources", "providers", "jobs", "problems"):
        assert tuple(found[part][0]) == shapes("Status")[part]
    for mode in Mode:
        assert f"`{mode}`" in PAGE


def test_the_shapes_of_a_report() -> None:
    assert shapes("Report") == {
        "report": fields(report.Report),
        "source": fields(report.SourceReport),
        "captured": fields(report.Captured),
        "newest": fields(report.Made),
        "remark": fields(report.Remark),
        "provider": fields(report.ProviderReport),
    }
    found = wire.plain(whole_report())
    assert tuple(found["sources"][0]["captured"]["remarks"][1]["error"]) == ("code", "params")


def test_events() -> None:
    assert [(words(row[0])[0], words(row[1])) for row in table("Events")] == [
        (str(kind), names) for kind, names in CARRIES.items()
    ]


def test_numbers() -> None:
    import inspect

    kept = inspect.signature(Stream).parameters["limit"].default
    for number, unit in (
        (wire.BODY_LIMIT // 1024, " KiB"),
        (int(wire.ALIVE_SECONDS), " seconds one comes"),
        (kept, " events are kept"),
        (int(talk.STALLED_SECONDS), " seconds is let go"),
        (STREAMS, " streams go on"),
        (int(WORK_SECONDS), " seconds |"),
        (int(connections.REQUEST_SECONDS), " seconds. Of more than"),
        (connections.CONNECTIONS, " connections"),
    ):
        assert f"{number}{unit}" in PAGE, (number, unit)
    assert f"`{wire.HEADER}: {wire.VERSION}`" in PAGE
    assert f"`Host` is `{wire.HOST}`" in PAGE


def test_a_page_that_lacks_something_is_noticed() -> None:
    shorter = PAGE.replace("| `overflow` | |\n", "")
    assert shorter != PAGE
    assert len(table("Events", shorter)) == len(table("Events")) - 1
    with pytest.raises(IndexError):
        table("Nothing")
