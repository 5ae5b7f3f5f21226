"""Verdicts and tables from what was measured."""

from __future__ import annotations

import pytest

from bench.figures import Figure, figures
from bench.floor import Floor
from bench.latency import Latency, Waits
from bench.numbers import MIB
from bench.outcome import FULL, RESTORE, SCAN, UNCHANGED, Outcome, Sample, appended
from bench.report import Table, tables

GB = 10**9


def sample(
    work: str, tool: str, cpu: float, *, stored: int | None = None, rss: int = 90 * MIB, source: int = 2 * GB
) -> Sample:
    return Sample(work, tool, cpu, cpu / 1.5, rss, 0.25, source, stored)


def outcome(**cpu: float) -> Outcome:
    """A good run, but for the CPU seconds given: full, borg, restore, restic, unchanged, scan."""
    spent = {"full": 6.0, "borg": 12.0, "restore": 3.0, "restic": 10.0, "unchanged": 0.3, "scan": 0.5} | cpu
    run = Outcome(GB, 2 * GB, 3000)
    run.samples = [
        sample(FULL, "chatkeep", spent["full"], rss=190 * MIB),
        sample(FULL, "borg", spent["borg"]),
        sample(RESTORE, "chatkeep", spent["restore"]),
        sample(RESTORE, "restic", spent["restic"]),
        sample(UNCHANGED, "chatkeep", spent["unchanged"]),
        sample(SCAN, "chatkeep", spent["scan"], source=GB),
        *(sample(appended(100), "chatkeep", 0.4, stored=size) for size in (500_000, 600_000, 990_000)),
    ]
    run.floors = {100: [Floor(264, 500_000)] * 3}
    return run


def latency(ratio: float) -> Latency:
    return Latency(Waits(0.1, 0.5, 9, 1000, 0), Waits(0.1, 0.5 * ratio, 12, 999, 1), ratio, (ratio,), 7)


def named(found: list[Figure], beginning: str) -> Figure:
    (figure,) = [one for one in found if one.name.startswith(beginning)]
    return figure


def test_everything_met() -> None:
    run = outcome()
    run.latencies = {"snapshots": latency(1.25)}
    assert [one.verdict for one in figures(run, outcome())] == ["met"] * 10


@pytest.mark.parametrize(
    ("given", "missed"),
    [
        ({"full": 8.02}, "full backup, CPU s per GB"),
        ({"full": 5.0, "borg": 5.0}, "full backup, CPU against borg's"),
        ({"restore": 4.1}, "full restore, CPU s per GB"),
        ({"restore": 3.0, "restic": 6.0}, "full restore, CPU against restic's"),
        ({"unchanged": 0.51}, "no change at all"),
        ({"scan": 0.81}, "digest scan"),
    ],
)
def test_a_miss_is_told(given: dict[str, float], missed: str) -> None:
    found = figures(outcome(**given), outcome())
    assert named(found, missed).verdict == "NOT met"
    assert [one.name for one in found if one.met is False] == [named(found, missed).name]


def test_stored_is_judged_by_the_median_run() -> None:
    run = outcome()
    # Allowed: 1.35 * 500,000 + 49,152 = 724,152.
    assert named(figures(run), "+100").met is True
    run.samples.append(sample(appended(100), "chatkeep", 0.4, stored=990_000))
    run.floors[100].append(Floor(264, 500_000))
    assert named(figures(run), "+100").met is False


def test_each_run_has_a_floor_of_its_own() -> None:
    run = outcome()
    run.floors = {100: [Floor(200, 330_000), Floor(264, 400_000), Floor(500, 900_000)]}
    assert named(figures(run), "+100").met is False


def test_memory_counts_in_every_work_and_every_profile() -> None:
    run, large = outcome(), outcome()
    large.samples.append(sample(UNCHANGED, "chatkeep", 0.3, rss=201 * MIB))
    large.samples.append(sample(FULL, "borg", 3, rss=900 * MIB))
    found = figures(run, large)
    assert named(found, "peak memory").met is True
    assert named(found, "the same with").met is False


def test_the_median_run_counts() -> None:
    run = outcome(full=7.0)
    run.samples += [sample(FULL, "chatkeep", 20.0), sample(FULL, "chatkeep", 7.5)]
    assert run.cpu(FULL, "chatkeep") == 7.5
    assert named(figures(run), "full backup, CPU s").met is True


def test_latency() -> None:
    run = outcome()
    run.latencies = {"snapshots": latency(1.2), "full backups": latency(1.26)}
    found = figures(run)
    assert named(found, "writer's p99 during snapshots").met is True
    assert named(found, "writer's p99 during full").verdict == "NOT met"


def test_what_was_not_measured_is_not_met() -> None:
    found = figures(Outcome(GB, 2 * GB, 3000))
    assert {one.verdict for one in found} == {"not measured"}
    assert len(found) == 10


def test_every_work_and_tool_has_a_line() -> None:
    run = outcome()
    run.latencies = {"snapshots": latency(1.2)}
    found = figures(run, run)
    text = "\n".join(table.text() for table in tables(run, run, found))
    assert "NOT" not in text
    for part in ("full backup    borg", "large profile", "264", "724 kB", "999 snapshots", "2.00 x", "0.2"):
        assert part in text


def test_a_table_is_aligned() -> None:
    table = Table("title", ("name", "value"), [("a", "1"), ("long name", "10,000")])
    assert table.text().split("\n") == [
        "title",
        "name        value",
        "---------  ------",
        "a               1",
        "long name  10,000",
    ]
    assert table.markdown().split("\n")[2:4] == ["| name | value |", "| --- | --- |"]
