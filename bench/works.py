"""The work that is measured, on one profile, tool by tool in alternating order, so that whatever drifts hits all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.floor import databases, floor, page_digests
from bench.generate import Generator
from bench.latency import observe
from bench.measure import Usage
from bench.outcome import FULL, RESTORE, SCAN, UNCHANGED, Outcome, Sample, appended
from bench.pace import pace, warm
from bench.proof import differences
from bench.tools import CHATKEEP, Chatkeep, Tool, tree_size

_TOP = Path(__file__).resolve().parent.parent
Say = Callable[[str], None]


class Works:
    """All measurements of one profile, which is written to: give a copy. `seed` must be new to it."""

    def __init__(
        self, profile: Path, work: Path, tools: Sequence[Tool], generator: Generator, seed: int, say: Say
    ) -> None:
        self._profile = profile
        self._work = work
        self._tools = tools
        self._generator = generator
        self._seed = seed
        self._say = say
        self._database = databases(profile)[0]
        files = sum(len(names) for _, _, names in os.walk(profile))
        self.outcome = Outcome(self._database.stat().st_size, occupied(profile), files)

    def full(self, repeat: int) -> None:
        """Each tool into a place that is empty; the last one stays for what follows."""
        for run in range(repeat):
            for tool in self._turn(run):
                tool.create()
                self._backup(FULL, tool, run)

    def restore(self, repeat: int) -> None:
        """Each tool its newest backup, into a new directory, compared with the profile.

        Nothing is deleted before the end of the run: for minutes after thousands of files were, ext4 makes new ones
        several times as slowly (it does not give out their inodes again), and the next tool would pay for it.
        """
        for run in range(repeat):
            for tool in self._turn(run):
                self._prepare()
                usage, top = tool.restore(self._work / f"restored-{tool.name}-{run}")
                self._keep(RESTORE, tool.name, usage, run)
                self._compare(tool, top)

    def unchanged(self, repeat: int) -> None:
        """A backup with nothing to do."""
        for run in range(repeat):
            for tool in self._turn(run):
                self._backup(UNCHANGED, tool, run)

    def append(self, messages: int, repeat: int) -> None:
        """New messages, all in the file of the closed database, no media: a backup by each tool, and the floor."""
        for run in range(repeat):
            before = page_digests(self._database)
            self._seed += 1
            self._generator.append(self._profile, messages, self._seed)
            self.outcome.floors.setdefault(messages, []).append(floor(before, self._database))
            for tool in self._turn(run):
                self._backup(appended(messages), tool, run)

    def scan(self, repeat: int) -> None:
        """The comparison of every page with its digest, as a backup does it that cannot know what changed."""
        for run in range(repeat):
            command = [sys.executable, "-m", "bench.scan", str(self._database), str(self._work)]
            done = subprocess.run(command, capture_output=True, check=True, cwd=_TOP)
            found = json.loads(done.stdout)
            usage = Usage(found["cpu"], found["wall"], int(found["rss"]))
            self._keep(SCAN, CHATKEEP, usage, run, source=int(found["bytes"]))

    def latency(self, rounds: int, seconds: float, rate: float) -> None:
        """Snapshots one after the other beside a writer; then full backups into new vaults beside it."""
        tool = self._chatkeep()
        if tool is None:
            return
        for name, first in (("snapshots", False), ("full backups", True)):
            self._say(f"commit latency during {name}")
            self._seed += 1
            self.outcome.latencies[name] = observe(
                self._database,
                self._work,
                lambda first=first: _beside_a_writer(tool, new=first),  # type: ignore[misc]
                rate=rate,
                seconds=seconds,
                rounds=rounds,
                seed=self._seed,
            )
        # What was captured while somebody wrote must be right as well: one more, now that the writer has closed.
        tool.backup(self._profile)
        self._compare(tool, tool.restore(self._work / "restored-last")[1])

    def _chatkeep(self) -> Chatkeep | None:
        return next((tool for tool in self._tools if isinstance(tool, Chatkeep)), None)

    def _prepare(self) -> None:
        os.sync()
        self.outcome.paces.append(pace())
        self.outcome.fresh.append(warm(self.outcome.source * 3 // 2))

    def _turn(self, run: int) -> list[Tool]:
        at = run % max(1, len(self._tools))
        return [*self._tools[at:], *self._tools[:at]]

    def _backup(self, work: str, tool: Tool, run: int) -> None:
        before = tool.stored()
        self._prepare()
        usage = tool.backup(self._profile)
        self._keep(work, tool.name, usage, run, stored=tool.stored() - before)

    def _keep(
        self, work: str, tool: str, usage: Usage, run: int, *, stored: int | None = None, source: int | None = None
    ) -> None:
        size = self.outcome.source if source is None else source
        self.outcome.samples.append(Sample(work, tool, **dataclasses.asdict(usage), source=size, stored=stored))
        told = f", {stored:,} bytes stored" if stored is not None else ""
        self._say(f"{work} {run + 1}: {tool}: {usage.cpu:.2f} CPU s, {usage.wall:.2f} s, {usage.rss >> 20} MiB{told}")

    def _compare(self, tool: Tool, top: Path) -> None:
        wrong = differences(self._profile, top)
        if wrong:
            self.outcome.wrong.append(f"{tool.name}: {len(wrong)} paths differ, the first: {wrong[0]}")
            self._say(f"WRONG: {self.outcome.wrong[-1]}")


def _beside_a_writer(tool: Chatkeep, *, new: bool) -> None:
    # Without the sync of a measured command: that would be the application's delay, not the backup's.
    if new:
        tool.create()
    with tool.log.open("ab") as log:
        command = tool.command("backup")
        subprocess.run(command, env=tool.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)


def occupied(profile: Path) -> int:
    """Bytes that the files of a directory have: holes do not count, no tool is faster for them."""
    total = 0
    for folder, _, names in os.walk(profile):
        for name in names:
            found = os.lstat(os.path.join(folder, name))
            total += min(found.st_size, found.st_blocks * 512)
    return total


def room(place: Path, profile: Path, trees: int) -> bool:
    """Whether a run has space: the copy, three vaults, what waits for upload, and so many restored trees."""
    return shutil.disk_usage(place).free > (6 + trees) * tree_size(profile)
