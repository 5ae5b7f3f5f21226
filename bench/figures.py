"""The figures that Chatkeep has to reach, and whether it did. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.floor import allowed
from bench.numbers import MIB, median, ratio, seconds, size
from bench.outcome import FULL, RESTORE, SCAN, UNCHANGED, Outcome, appended
from bench.tools import CHATKEEP

FULL_PER_GB, RESTORE_PER_GB, SCAN_PER_GB = 4.0, 2.0, 0.8  # CPU seconds
RESTORE_SHARE = 0.5  # of restic's CPU
UNCHANGED_CPU = 0.5  # seconds
PEAK = 200 * MIB
LATENCY_RATIO = 1.25
STEADY = 100  # messages


@dataclass(frozen=True)
class Figure:
    """One line of the verdict. `met` is None where it was not measured."""

    name: str
    required: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """In words."""
        return {None: "not measured", True: "met", False: "NOT met"}[self.met]


def figures(outcome: Outcome, large: Outcome | None = None) -> list[Figure]:
    """Every required figure, measured or not."""
    return [
        _limit("full backup, CPU s per GB", outcome.per_gb(FULL, CHATKEEP), FULL_PER_GB),
        _against(outcome, FULL, "borg", 1.0),
        _limit("full restore, CPU s per GB", outcome.per_gb(RESTORE, CHATKEEP), RESTORE_PER_GB),
        _against(outcome, RESTORE, "restic", RESTORE_SHARE),
        _stored(outcome),
        _limit("no change at all, CPU s", outcome.cpu(UNCHANGED, CHATKEEP), UNCHANGED_CPU),
        _limit("digest scan, CPU s per GB", outcome.per_gb(SCAN, CHATKEEP), SCAN_PER_GB),
        _peak("peak memory of any of these", outcome),
        _peak("the same with the large profile", large),
        *_latencies(outcome),
    ]


def _limit(name: str, value: float | None, most: float) -> Figure:
    measured = "" if value is None else seconds(value)
    return Figure(name, f"<= {most}", measured, None if value is None else value <= most)


def _against(outcome: Outcome, work: str, other: str, share: float) -> Figure:
    ours, theirs = outcome.cpu(work, CHATKEEP), outcome.cpu(work, other)
    name, required = f"{work}, CPU against {other}'s", f"< {share:g} x"
    if ours is None or theirs is None:
        return Figure(name, required, "", None)
    return Figure(name, required, ratio(ours / theirs), ours < share * theirs)


def _stored(outcome: Outcome) -> Figure:
    floors = outcome.floors.get(STEADY, [])
    samples = outcome.of(appended(STEADY), CHATKEEP)
    name, required = f"{appended(STEADY)}, stored (median)", "<= 1.35 x floor + 48 KiB"
    if not samples:
        return Figure(name, required, "", None)
    pairs = [(one.stored or 0, floor.size) for one, floor in zip(samples, floors, strict=True)]
    # Each run has a floor of its own, so runs are compared one by one and the median run decides.
    share = median([stored / allowed(least) for stored, least in pairs])
    stored, least = median([pair[0] for pair in pairs]), median([pair[1] for pair in pairs])
    measured = f"{size(stored)}; floor {size(least)}, allowed {size(allowed(least))}"
    return Figure(name, required, f"{measured}: {ratio(share)} of it", share <= 1)


def _peak(name: str, outcome: Outcome | None) -> Figure:
    value = None if outcome is None else outcome.peak(CHATKEEP)
    measured = "" if value is None else f"{value / MIB:.0f} MiB"
    return Figure(name, f"<= {PEAK // MIB} MiB", measured, None if value is None else value <= PEAK)


def _latencies(outcome: Outcome) -> Iterator[Figure]:
    required = f"<= {LATENCY_RATIO} x"
    if not outcome.latencies:
        yield Figure("writer's p99 during snapshots", required, "", None)
    for name, found in outcome.latencies.items():
        measured = f"{ratio(found.ratio)} ({found.quiet.p99:.2f} to {found.during.p99:.2f} ms)"
        yield Figure(f"writer's p99 during {name}", required, measured, found.ratio <= LATENCY_RATIO)
