"""The benchmark: the same work done by Chatkeep, restic and borg in one run, on one profile, into one table."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import figures
from bench.generate import Generator, chosen
from bench.measure import CommandFailed
from bench.numbers import parse_size, size
from bench.outcome import Outcome
from bench.report import tables
from bench.tools import CHATKEEP, INSTALL, Tool, available
from bench.works import Works, room

OUT = Path(__file__).parent / "out"
TOOLS = (CHATKEEP, "restic", "borg")
LARGE = 4 * 10**9
_LARGE_MEDIA = 3000


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0 when everything was measured and every restore was equal, met figures or not."""
    options = _parser().parse_args(arguments)
    generator = chosen(options.generator)
    started = dt.datetime.now().astimezone()
    _say(f"seed {options.seed}")
    with _workplace(options) as work:
        outcome, tools = _measure(options, generator, work)
        large = _measure_large(options, generator, work) if options.large or options.large_profile else None
    return _tell(options, outcome, large, tools, started)


def _measure(options: argparse.Namespace, generator: Generator, work: Path) -> tuple[Outcome, list[Tool]]:
    profile = work / "profile"
    _prepare(options, generator, profile)
    tools, missing = available(work, profile, options.tools.split(","))
    if missing:
        _say(f"not installed, not measured: {', '.join(missing)}. To install them: {INSTALL}")
    works = Works(profile, work, tools, generator, options.seed, _say)
    with _told(works.outcome):
        works.full(options.repeat_full)
        works.restore(options.repeat_full)
        works.unchanged(options.repeat)
        works.append(100, options.appends)
        works.append(10_000, 1)
        works.scan(options.repeat)
        if options.latency:
            works.latency(options.latency, options.window, options.rate)
    return works.outcome, tools


def _measure_large(options: argparse.Namespace, generator: Generator, work: Path) -> Outcome:
    """Chatkeep alone: what matters is that its memory does not grow."""
    place = work / "large"
    place.mkdir()
    profile = place / "profile"
    if options.large_profile is not None:
        _copy(options.large_profile, profile, 1)
    else:
        _say(f"making a profile with a database of {size(options.large_size)}")
        generator.make(profile, options.large_size, options.seed, _LARGE_MEDIA)
    tools, _ = available(place, profile, [CHATKEEP])
    works = Works(profile, place, tools, generator, options.seed, _say)
    with _told(works.outcome):
        works.full(1)
        works.restore(1)
        works.unchanged(1)
        works.append(100, 3)
    return works.outcome


@contextlib.contextmanager
def _told(outcome: Outcome) -> Iterator[None]:
    """A command that fails ends the work, and is told with what was measured before it."""
    try:
        yield
    except (CommandFailed, subprocess.CalledProcessError) as error:
        outcome.wrong.append(str(error))


def _prepare(options: argparse.Namespace, generator: Generator, profile: Path) -> None:
    if options.profile is not None:
        _copy(options.profile, profile, 1 + len(TOOLS) * options.repeat_full)
    else:
        _say(f"making a profile with a database of {size(options.size)}")
        generator.make(profile, options.size, options.seed)


def _copy(given: Path, profile: Path, trees: int) -> None:
    if not room(profile.parent, given, trees):
        raise SystemExit(f"{profile.parent} has too little space for {given}: use --work")
    subprocess.run(["cp", "--archive", "--reflink=auto", str(given), str(profile)], check=True)


def _tell(
    options: argparse.Namespace, outcome: Outcome, large: Outcome | None, tools: list[Tool], started: dt.datetime
) -> int:
    found = figures(outcome, large)
    about = _about(options, tools, started)
    made = tables(outcome, large, found)
    OUT.mkdir(exist_ok=True)
    out = OUT / f"{started:%Y-%m-%dT%H-%M-%S}"
    record = {
        "about": about,
        "outcome": dataclasses.asdict(outcome),
        "large": None if large is None else dataclasses.asdict(large),
        "figures": [dataclasses.asdict(figure) for figure in found],
    }
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    parts = [f"# {about['tools']}", "; ".join(f"{key}: {value}" for key, value in about.items())]
    out.with_suffix(".md").write_text("\n\n".join([*parts, *(table.markdown() for table in made)]) + "\n")
    print("\n\n".join(["\n".join(f"{key}: {value}" for key, value in about.items()), *(t.text() for t in made)]))
    wrong = [*outcome.wrong, *(large.wrong if large else [])]
    for problem in wrong:
        print(f"WRONG: {problem}")
    print(f"\nwritten: {out}.md, {out}.json")
    return 1 if wrong else 0


def _about(options: argparse.Namespace, tools: list[Tool], started: dt.datetime) -> dict[str, str]:
    return {
        "tools": ", ".join(tool.version() for tool in tools),
        "time": f"{started:%Y-%m-%d %H:%M %Z}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "profile": "as given" if options.profile else "made by a script" if options.generator else "built in",
        "seed": str(options.seed),
        "columns": "CPU s: user + system of the command and its children; per GB: of 1e9 bytes in the source's files; "
        "peak: the largest resident set; others: cores busy with something else meanwhile",
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


@contextlib.contextmanager
def _workplace(options: argparse.Namespace) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="chatkeep-bench-", dir=options.work)).resolve()
    try:
        yield place
    finally:
        if options.keep:
            _say(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    add = parser.add_argument
    script = os.environ.get("CHATKEEP_BENCH_GENERATOR")
    add("--size", type=parse_size, default=10**8, help="of the database; media weigh as much again  [100MB]")
    add("--profile", type=Path, help="an existing directory with a message database; it is copied, never changed")
    add("--generator", type=Path, default=Path(script) if script else None, help="script that makes profiles")
    add("--tools", default=",".join(TOOLS), help=f"which, separated by commas  [{','.join(TOOLS)}]")
    add("--repeat", type=int, default=3, help="runs of what is cheap  [3]")
    add("--repeat-full", type=int, default=1, help="full backups and restores with each tool  [1]")
    add("--appends", type=int, default=5, help="times that 100 messages are added  [5]")
    add("--latency", type=int, default=6, help="alternations with and without snapshots; 0: none  [6]")
    add("--window", type=float, default=10.0, help="seconds of each half of an alternation  [10]")
    add("--rate", type=float, default=200.0, help="commits a second of the writer  [200]")
    add("--large", action="store_true", help="also a database four times as large as 1 GB, with Chatkeep alone")
    add("--large-size", type=parse_size, default=LARGE, help="of that database  [4GB]")
    add("--large-profile", type=Path, help="an existing directory with a large database; it is copied, never changed")
    add("--seed", type=int, default=time.time_ns() // 10**6 % 10**9, help="of generated messages  [new each time]")
    add("--work", type=Path, help="where copies and vaults lie while it runs  [the system's temporary directory]")
    add("--keep", action="store_true", help="leave them there")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
