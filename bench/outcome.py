"""What a run of the benchmark found: values only, so verdicts and tables can be made, and tested, without a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.floor import Floor
from bench.latency import Latency
from bench.numbers import median

FULL, RESTORE, UNCHANGED = "full backup", "full restore", "no change"
SCAN = "digest scan"


def appended(messages: int) -> str:
    """The name of the work after so many new messages."""
    return f"+{messages:,} messages"


@dataclass(frozen=True)
class Sample:
    """One measured command. `source`: bytes of the files it was about. `stored`: how much the vault grew."""

    work: str
    tool: str
    cpu: float
    wall: float
    rss: int
    others: float
    source: int
    stored: int | None = None


@dataclass
class Outcome:
    """All of one profile. `floors`: of each append of a size, in order; `wrong`: restores that were not equal;
    `paces`: what a fixed small work took before each command, `fresh`: what taking memory took, both CPU s per GB."""

    database: int
    source: int
    files: int
    samples: list[Sample] = field(default_factory=list)
    floors: dict[int, list[Floor]] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)

    def of(self, work: str, tool: str) -> list[Sample]:
        """The samples of a work by a tool, in order."""
        return [sample for sample in self.samples if (sample.work, sample.tool) == (work, tool)]

    def works(self) -> list[str]:
        """What was measured, in order."""
        return list(dict.fromkeys(sample.work for sample in self.samples))

    def tools(self, work: str) -> list[str]:
        """Who did it, in alphabetical order."""
        return sorted({sample.tool for sample in self.samples if sample.work == work})

    def per_gb(self, work: str, tool: str) -> float | None:
        """CPU seconds per GB (1e9 bytes of source), the median; None if it was not measured."""
        found = self.of(work, tool)
        return median([sample.cpu / sample.source * 1e9 for sample in found]) if found else None

    def cpu(self, work: str, tool: str) -> float | None:
        """CPU seconds, the median; None if it was not measured."""
        found = self.of(work, tool)
        return median([sample.cpu for sample in found]) if found else None

    def peak(self, tool: str, works: Sequence[str] | None = None) -> int | None:
        """The largest resident size in any work; None if none was measured."""
        sizes = [one.rss for one in self.samples if one.tool == tool and (works is None or one.work in works)]
        return max(sizes) if sizes else None
