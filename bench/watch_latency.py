"""How long after a commit who hears of it: the watcher's hint; with the daemon, the sealed snapshot and the provider.

    python -m bench.watch_latency [--rate N] [--seconds N] [--within SECONDS]
    python -m bench.watch_latency --daemon [--watch 'quiet: 2s, ...'] [--within SECONDS]

An application commits one message at a time at a steady rate to a database in WAL mode (`bench.commits`). Of a commit
counts when it ended. A snapshot has a commit when it was begun after it: those that came while it was taken may be in
it as well, and are counted with the next one, so that the figures are never too good. It is acknowledged when an
upload ended after which the provider has that snapshot. All times are those of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import argparse
import bisect
import json
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.commits import read_commits
from bench.idle import daemon
from bench.latency import writing
from bench.numbers import median, quantile
from chatkeep.config.model import Source
from chatkeep.daemon.service.watching.watcher import Watcher

AFTERWARDS = 60.0
"""Seconds to wait for what the last commits are answered by."""


class Mark(NamedTuple):
    """Something that answers every commit up to `through`, and when it was. Seconds of CLOCK_BOOTTIME."""

    through: float
    at: float


def boot() -> float:
    """Now."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def delays(commits: Sequence[float], marks: Sequence[Mark]) -> list[float]:
    """Of each commit, how long until the first mark that answers it. LookupError when there is none for one."""
    ordered = sorted(marks)
    earliest = [0.0] * len(ordered)
    soonest = float("inf")
    for at in range(len(ordered) - 1, -1, -1):  # a later snapshot answers an earlier commit too
        soonest = min(soonest, ordered[at].at)
        earliest[at] = soonest
    found = []
    for commit in commits:
        at = bisect.bisect_left(ordered, Mark(commit, 0.0))
        if at == len(ordered):
            raise LookupError(commit)
        found.append(earliest[at] - commit)
    return found


def application(top: Path) -> Path:
    """A database with some messages."""
    top.mkdir()
    with sqlite3.connect(top / "chat.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("CREATE TABLE message(id INTEGER PRIMARY KEY, chat, text)")
        rows = [(number % 50, f"message {number} " * 10) for number in range(20_000)]
        connection.executemany("INSERT INTO message(chat, text) VALUES(?, ?)", rows)
    connection.close()
    return top / "chat.db"


@contextmanager
def hints(top: Path) -> Iterator[list[Mark]]:
    """When hints came. A hint answers what was committed before it."""
    marks: list[Mark] = []

    def note(_source: str, _whole: bool) -> None:
        now = boot()
        marks.append(Mark(now, now))

    watcher = Watcher([Source(top, "chat")], note, lambda _: None)
    watcher.start()
    watcher.settled(60)
    yield marks
    watcher.stop()


@contextmanager
def events(state: Path) -> Iterator[list[dict[str, Any]]]:
    """What the daemon that has this state directory tells, from now on."""
    from chatkeep.daemon.control.client import Daemon

    told: list[dict[str, Any]] = []
    deadline = time.monotonic() + 60
    while (there := Daemon.find(state, state.parent / "run" / "chatkeep")) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the daemon does not listen")
        time.sleep(0.1)

    def follow(ready: threading.Event) -> None:
        with there.events() as lines:
            for line in lines:
                ready.set()
                if line["line"] == "event":
                    told.append(line["event"])

    ready = threading.Event()
    threading.Thread(target=follow, args=(ready,), daemon=True).start()
    ready.wait(60)
    yield told


def of_kind(told: list[dict[str, Any]], kind: str, when: str) -> list[Mark]:
    """Events of a kind as marks; `when` names the value that says when what they are about was begun."""
    marks = []
    for event in [event for event in told if event["kind"] == kind and event["values"].get(when)]:
        behind = (event["wall_ns"] - event["values"][when]) / 1e9
        marks.append(Mark(event["boot"] - behind, event["boot"]))
    return marks


def measure(work: Path, database: Path, rate: float, seconds: float, answered: Callable[[], list[Mark]]) -> list[float]:
    """When commits ended, of an application that wrote for so long; and everything has been answered since."""
    with writing(database, work / "commits", rate, 1):
        time.sleep(seconds)
    offset = boot() - time.monotonic()
    commits = [one.end / 1e9 + offset for one in read_commits(work / "commits") if not one.busy]
    deadline = time.monotonic() + AFTERWARDS
    while not answered() or max(answered()).through < commits[-1]:
        if time.monotonic() > deadline:
            raise TimeoutError("what was committed last is not answered")
        # its closing writes the log back, and is a change of its own: nothing is missing to wait for
        time.sleep(0.05)
    return commits


def show(found: dict[str, list[float]], within: float, **more: object) -> int:
    """Prints a line of JSON for each, seconds; 1 when a p99 is above `within`."""
    missed = False
    for what, waited in found.items():
        p50, p99 = median(waited), quantile(waited, 0.99)
        print(json.dumps({"what": what, "commits": len(waited), "p50": round(p50, 4), "p99": round(p99, 4)} | more))
        missed = missed or p99 > within
    return int(missed)


def main() -> int:
    """Measures, prints, and says by its exit code whether every p99 is within what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--daemon", action="store_true")
    parser.add_argument("--within", type=float, default=float("inf"))
    parser.add_argument("--watch", default="quiet: 2s, max_delay: 2s, min_interval: 1s")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        database = application(work / "source")
        if not asked.daemon:
            with hints(work / "source") as marks:
                commits = measure(work, database, asked.rate, asked.seconds, lambda: marks)
            return show({"hint": delays(commits, marks)}, asked.within)
        with daemon(work / "source", f"watch: {{{asked.watch}}}\n"), events(work / "state") as seen:
            commits = measure(
                work, database, asked.rate, asked.seconds, lambda: of_kind(seen, "upload-done", "acknowledged_ns")
            )
            sealed = delays(commits, of_kind(seen, "snapshot-made", "taken_ns"))
            acknowledged = delays(commits, of_kind(seen, "upload-done", "acknowledged_ns"))
    return show({"sealed": sealed, "acknowledged": acknowledged}, asked.within, watch=asked.watch)


if __name__ == "__main__":
    sys.exit(main())
