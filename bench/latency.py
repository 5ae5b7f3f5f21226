"""What snapshots cost the application: commit latency in windows with and without `chatkeep backup` running."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.commits import Commit, read_commits
from bench.numbers import median, quantile

_TOP = Path(__file__).resolve().parent.parent
PAUSE = 1.0  # seconds between windows: what one left to be written must not weigh on the next


@dataclass(frozen=True)
class Window:
    """A stretch of CLOCK_MONOTONIC, in ns, in which one backup ran after the other, or none."""

    start: int
    end: int
    backups: int


@dataclass(frozen=True)
class Waits:
    """Latencies of commits in ms, and how many of them there were and were refused."""

    p50: float
    p99: float
    longest: float
    commits: int
    busy: int


@dataclass(frozen=True)
class Latency:
    """`ratio`: of the p99 with snapshots to that without, in the windows of one alternation, the median of all.

    `pairs` are those ratios, in the order of time. `backups`: how many there were.
    """

    quiet: Waits
    during: Waits
    ratio: float
    pairs: tuple[float, ...]
    backups: int


def waits(commits: Sequence[Commit]) -> Waits:
    """Sum up commits. ValueError for none that was let through."""
    took = [(one.end - one.start) / 1e6 for one in commits if not one.busy]
    refused = sum(one.busy for one in commits)
    return Waits(median(took), quantile(took, 0.99), max(took), len(took), refused)


def compare(commits: Sequence[Commit], windows: Sequence[Window]) -> Latency:
    """Windows come in pairs, one of each kind. ValueError when a window has no commit."""
    quiet: list[Commit] = []
    during: list[Commit] = []
    pairs = []
    for one, other in zip(windows[::2], windows[1::2], strict=True):
        without, with_backups = (one, other) if not one.backups else (other, one)
        there, here = _within(commits, without), _within(commits, with_backups)
        pairs.append(waits(here).p99 / waits(there).p99)
        quiet += there
        during += here
    return Latency(waits(quiet), waits(during), median(pairs), tuple(pairs), sum(one.backups for one in windows))


def _within(commits: Sequence[Commit], window: Window) -> list[Commit]:
    """Those that overlap the window."""
    return [one for one in commits if one.end >= window.start and one.start <= window.end]


def observe(
    database: Path, work: Path, backup: Callable[[], object], *, rate: float, seconds: float, rounds: int, seed: int
) -> Latency:
    """Measure `rounds` alternations while a writer commits `rate` times a second.

    The window with backups lasts until the backup that is running after `seconds` has ended, and the one without as
    long, so a long backup gets an equal share of silence.
    """
    records = work / "commits"
    with writing(database, records, rate, seed):
        time.sleep(PAUSE)
        windows: list[Window] = []
        for number in range(rounds):
            length = windows[-1].end - windows[-1].start if windows else int(seconds * 1e9)
            # The order changes, or whatever drifts would always fall on the same side.
            order = (_busy, _idle) if number % 2 == 0 else (_idle, _busy)
            for kind in order:
                windows.append(kind(backup, length if kind is _idle else int(seconds * 1e9)))
                length = windows[-1].end - windows[-1].start
                time.sleep(PAUSE)
    return compare(read_commits(records), windows)


def _busy(backup: Callable[[], object], length: int) -> Window:
    start, count = time.monotonic_ns(), 0
    while time.monotonic_ns() < start + length:
        backup()
        count += 1
    return Window(start, time.monotonic_ns(), count)


def _idle(_backup: Callable[[], object], length: int) -> Window:
    start = time.monotonic_ns()
    time.sleep(length / 1e9)
    return Window(start, time.monotonic_ns(), 0)


@contextmanager
def writing(database: Path, records: Path, rate: float, seed: int) -> Iterator[None]:
    """An application that writes while the block runs. RuntimeError when it did not start, or ended."""
    words = ["-m", "bench.commits", str(database), str(records), "--rate", str(rate), "--seed", str(seed)]
    writer = subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_TOP)
    assert writer.stdin is not None
    assert writer.stdout is not None
    try:
        if writer.stdout.readline() != b"ready\n":
            raise RuntimeError("the writer did not start")
        yield
        if writer.poll() is not None:
            raise RuntimeError("the writer ended early")
    finally:
        writer.stdin.close()
        writer.wait()
        writer.stdout.close()
