"""The table of one run, for a terminal and for a Markdown file. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Figure
from bench.floor import allowed
from bench.numbers import MIB, median, ratio, seconds, size
from bench.outcome import Outcome, Sample, appended
from bench.tools import CHATKEEP

_WORKS = ("work", "tool", "runs", "CPU s", "per GB", "x chatkeep", "wall s", "peak MiB", "stored", "others")
_FLOORS = ("work", "runs", "changed pages", "floor", "allowed", "chatkeep stored", "of allowed, worst")
_WAITS = ("commits", "snapshots", "p50 ms", "p99 ms", "max ms", "BUSY", "ratio of p99", "each alternation")
_FIGURES = ("figure", "required", "measured", "verdict")


_NUMBER = re.compile(r"([\d.,]+( (x|[kMGT]?B|MiB))?)?")


@dataclass(frozen=True)
class Table:
    """A titled table of text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal: columns aligned, numbers to the right."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.head))]
        right = [all(_NUMBER.fullmatch(line[at]) for line in self.rows) for at in range(len(self.head))]
        shown = [
            "  ".join(
                cell.rjust(width) if flush else cell.ljust(width)
                for cell, width, flush in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, shown[0], "  ".join("-" * width for width in widths), *shown[1:]])

    def markdown(self) -> str:
        """The same as a Markdown table."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join([f"### {self.title}", "", *("| " + " | ".join(line) + " |" for line in lines)])


def tables(outcome: Outcome, large: Outcome | None, found: Sequence[Figure]) -> list[Table]:
    """Everything that was measured, the verdict last."""
    made = [_works(outcome, _title(outcome))]
    if large is not None:
        made.append(_works(large, f"large profile: {_title(large)}"))
    if outcome.floors:
        made.append(_floors(outcome))
    if outcome.latencies:
        made.append(_latencies(outcome))
    made.append(Table("required figures", _FIGURES, [(f.name, f.required, f.measured, f.verdict) for f in found]))
    return made


def _title(outcome: Outcome) -> str:
    what = f"{size(outcome.source)} in {outcome.files:,} files, the database {size(outcome.database)}; medians"
    if not outcome.paces:
        return what
    pace = f"a fixed work took {min(outcome.paces):.2f} to {max(outcome.paces):.2f} CPU s per GB meanwhile"
    fresh = f"memory taken before each command {min(outcome.fresh):.2f} to {max(outcome.fresh):.2f}"
    return f"{what}; {pace}, {fresh}"


def _works(outcome: Outcome, title: str) -> Table:
    rows = []
    for work in outcome.works():
        ours = outcome.cpu(work, CHATKEEP)
        rows += [_row(work, tool, outcome.of(work, tool), ours) for tool in outcome.tools(work)]
    return Table(title, _WORKS, rows)


def _row(work: str, tool: str, samples: Sequence[Sample], ours: float | None) -> list[str]:
    cpu = median([one.cpu for one in samples])
    stored = [one.stored for one in samples if one.stored is not None]
    return [
        work,
        tool,
        str(len(samples)),
        seconds(cpu),
        seconds(median([one.cpu / one.source * 1e9 for one in samples])),
        ratio(cpu / ours) if ours and tool != CHATKEEP else "",
        seconds(median([one.wall for one in samples])),
        f"{max(one.rss for one in samples) / MIB:.0f}",
        size(median(stored)) if stored else "",
        f"{median([one.others for one in samples]):.1f}",
    ]


def _floors(outcome: Outcome) -> Table:
    rows = []
    for messages, floors in outcome.floors.items():
        stored = [one.stored or 0 for one in outcome.of(appended(messages), CHATKEEP)]
        shares = [got / allowed(floor.size) for got, floor in zip(stored, floors, strict=False)]
        least = median([floor.size for floor in floors])
        rows.append(
            [
                appended(messages),
                str(len(floors)),
                f"{median([floor.pages for floor in floors]):,.0f}",
                size(least),
                size(allowed(least)),
                size(median(stored)) if stored else "",
                ratio(max(shares)) if shares else "",
            ]
        )
    return Table("the floor: changed 4 KiB pages, zstd -3; allowed: 1.35 x floor + 48 KiB", _FLOORS, rows)


def _latencies(outcome: Outcome) -> Table:
    rows = []
    for name, found in outcome.latencies.items():
        pairs = " ".join(f"{pair:.2f}" for pair in found.pairs)
        for label, waits, last in (
            ("without", found.quiet, ["", ""]),
            (name, found.during, [f"{found.ratio:.2f}", pairs]),
        ):
            cells = (waits.p50, waits.p99, waits.longest)
            count = str(found.backups) if waits is found.during else "0"
            rows.append([f"{waits.commits:,} {label}", count, *(f"{ms:.2f}" for ms in cells), str(waits.busy), *last])
    return Table("commits of an application at work", _WAITS, rows)
