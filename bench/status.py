"""How quickly `chatkeep status` answers, while a daemon runs: beside the least that any Python program takes.

    python -m bench.status [--times N] [--databases N]

Commands take turns, so that what else the machine does meets all of them alike. What a busy machine adds is waiting:
the fastest run and the least CPU time say most. The ratio is to Python doing nothing, by that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.idle import daemon, profile, settle

ALLOWED = 150.0
"""Milliseconds: nobody waits for less."""


class Run(NamedTuple):
    """One run: milliseconds by the clock, and of CPU."""

    wall: float
    cpu: float


def run(command: list[str], environment: Mapping[str, str]) -> Run:
    """Runs a command to its end. CalledProcessError when it failed."""
    began = time.monotonic()
    with open(os.devnull, "wb") as nothing:
        files = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 1)]
        child = os.posix_spawnp(command[0], command, environment, file_actions=files)
        _, ended, used = os.wait4(child, 0)
    wall = time.monotonic() - began
    if os.waitstatus_to_exitcode(ended):
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(ended), command)
    return Run(wall * 1000, (used.ru_utime + used.ru_stime) * 1000)


def compare(commands: Mapping[str, list[str]], environment: Mapping[str, str], times: int) -> dict[str, list[Run]]:
    """Each so often, one after the other, after a first time that fills the cache."""
    found: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(times + 1):
        for name, command in commands.items():
            took = run(command, environment)
            if number:
                found[name].append(took)
    return found


def main() -> int:
    """Measures, prints, and says by its exit code whether the fastest is quick enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--databases", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        top = Path(place) / "source"
        profile(top, asked.databases)
        with daemon(top) as (pid, _):
            settle(pid)
            chatkeep = [str(Path(sys.executable).with_name("chatkeep")), "--config", f"{place}/chatkeep.yaml"]
            commands = {
                "python -c pass": [sys.executable, "-c", "pass"],
                "chatkeep --version": [*chatkeep, "--version"],
                "chatkeep status": [*chatkeep, "status"],
                "chatkeep status --json": [*chatkeep, "--json", "status"],
            }
            environment = os.environ | {"XDG_RUNTIME_DIR": f"{place}/run"}
            said = subprocess.run(commands["chatkeep status"], env=environment, check=True, capture_output=True).stdout
            if b"running since" not in said:
                raise RuntimeError("no daemon runs: nothing was asked of one")
            found = compare(commands, environment, asked.times)
    nothing = min(one.cpu for one in found["python -c pass"])
    print("| command | fastest, ms | median, ms | least CPU, ms | ratio |\n|---|---|---|---|---|")
    for name, runs in found.items():
        fastest, usual = min(runs).wall, statistics.median(one.wall for one in runs)
        cpu = min(one.cpu for one in runs)
        print(f"| `{name}` | {fastest:.0f} | {usual:.0f} | {cpu:.0f} | {cpu / nothing:.1f} |")
    return 0 if min(found["chatkeep status"]).wall < ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
