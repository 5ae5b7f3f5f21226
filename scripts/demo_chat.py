"""A small chat application for the demonstration and the tests: it makes a profile and keeps writing to it.

    python -m scripts.demo_chat make PROFILE [--seed N] [--messages N] [--media N]
    python -m scripts.demo_chat write PROFILE --ledgers DIR [--rate N] [--commits N] [--stop FILE] [--seed N]
    python -m scripts.demo_chat compare PROFILE --ledgers DIR

`write` says `ready` when it has opened the databases and prints a line of JSON when it ends. `compare` looks at a
copy of the profile, prints a line of JSON, and exits with 0 when both databases are states that were really
committed, SQLite finds nothing wrong with them, and every media file that a row refers to is there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scripts.demo_profile import make
from scripts.demo_state import Match, State, Verdict, compare, damage, describe, media_problems, read_state
from scripts.demo_writer import LEDGERS, Writer, write

__all__ = [
    "LEDGERS",
    "Match",
    "State",
    "Verdict",
    "Writer",
    "compare",
    "compare_profile",
    "damage",
    "describe",
    "main",
    "make",
    "media_problems",
    "read_state",
    "write",
]


def compare_profile(copy: Path, ledgers: Path) -> tuple[dict[str, Verdict], list[str]]:
    """The verdict on each database of a copied profile, and every problem in words: none means that the copy is
    good."""
    verdicts: dict[str, Verdict] = {}
    problems: list[str] = []
    for name in LEDGERS:
        database = copy / f"{name}.db"
        broken = damage(database)
        problems += [f"{database.name}: {one}" for one in broken]
        if not broken:
            verdicts[name] = compare(database, ledgers / f"{name}.ledger")
            if not verdicts[name].equal:
                problems.append(f"{database.name}: not a state that was ever committed")
    if "messages" in verdicts:
        problems += media_problems(copy)
    return verdicts, problems


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "make":
        make(options.profile, seed=options.seed, messages=options.messages, media=options.media)
        return 0
    if options.command == "write":
        options.ledgers.mkdir(parents=True, exist_ok=True)
        done = write(
            options.profile,
            options.ledgers,
            rate=options.rate,
            commits=options.commits,
            stop=options.stop,
            seed=options.seed,
            ready=lambda: print("ready", flush=True),
        )
        print(json.dumps(done), flush=True)
        return 0
    verdicts, problems = compare_profile(options.profile, options.ledgers)
    shown = {
        name: {
            "match": one.match.value,
            "commit": one.commit,
            "commits": one.commits,
            "rows": sum(one.state.counts.values()),
        }
        for name, one in verdicts.items()
    }
    print(json.dumps({"databases": shown, "problems": problems}))
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo_chat", description="A small chat application to back up.")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make a profile")
    writing = commands.add_parser("write", help="keep writing to a profile")
    comparing = commands.add_parser("compare", help="compare a copy of a profile with what was committed")
    for command in (making, writing, comparing):
        command.add_argument("profile", type=Path)
    for command in (making, writing):
        command.add_argument("--seed", type=int, default=1)
    for command in (writing, comparing):
        command.add_argument("--ledgers", type=Path, required=True, help="directory outside the profile")
    making.add_argument("--messages", type=int, default=3000)
    making.add_argument("--media", type=int, default=40)
    writing.add_argument("--rate", type=float, default=10.0, help="steps a second; 0: as fast as it goes")
    writing.add_argument("--commits", type=int, help="end after so many steps")
    writing.add_argument("--stop", type=Path, help="end when this file exists")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
