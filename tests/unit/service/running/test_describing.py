"""Comparing as a job: what is said of every source, in one row."""

from __future__ import annotations

import dataclasses
from typing import Any

from chatkeep.daemon.capture.errors import SourceMissing
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.running import describing
from chatkeep.daemon.service.standing import Fault, JobStanding, SourceStanding

AT = Moment(1_000_000, 5.0)
A = SourceStanding("a", "events", next_ns=2_000_000, looked_ns=300)
B = SourceStanding("b", "polling", next_ns=3_000_000, looked_ns=200)


def row(*sources: SourceStanding) -> JobStanding:
    return describing.comparing(sources, 60.0, AT)


def changed(one: SourceStanding, **parts: Any) -> SourceStanding:
    return dataclasses.replace(one, **parts)


def test_the_oldest_last_and_the_earliest_next() -> None:
    assert row(A, B) == row(B, A) == JobStanding("compare", 60.0, 2_000_000, 200)


def test_one_that_was_never_compared() -> None:
    assert row(A, changed(B, looked_ns=None)).last_ns is None


def test_what_runs_has_no_next_and_what_waits_is_due() -> None:
    assert row(changed(A, next_ns=None), B).next_ns == 3_000_000
    running = row(changed(A, next_ns=None), changed(B, next_ns=None))
    assert (running.next_ns, running.due) == (None, False)
    late = row(changed(A, next_ns=AT.wall_ns), B)
    assert (late.next_ns, late.due) == (AT.wall_ns, True)


def test_one_that_could_not_be_compared_says_so_with_its_name() -> None:
    failed = row(A, changed(B, fault=Fault("source-busy", {"path": "/b"}, 7)))
    assert failed.fault == Fault("source-busy", {"path": "/b", "source": "b"}, 7)
    assert failed.last_ns == 200


def test_a_path_of_bytes_is_remembered_as_a_path() -> None:
    fault = Fault.of(SourceMissing(path=b"/b/\xff"))
    assert fault.params == {"path": "/b/\udcff"}
    assert printable(str(fault.params["path"])) == "/b/\\xff"
