"""What a session costs: opening through the process that holds the keys against opening here, and a whole restore.

`python -m bench.session` prints a table. Both ways are taken in turns in one run: of their figures the ratios count.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.numbers import median, quantile
from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.seeds import ReadingSeeds
from chatkeep.daemon.service import session
from chatkeep.daemon.service.asking import Session
from chatkeep.daemon.service.wire import Facts
from chatkeep.daemon.vault.labels import PACK

ROUNDS = 30
CALLS = 50  # in each round
RESTORES = 7
MEDIA = 96  # files of 1 MiB: about six packs
COMMAND = (sys.executable, "-m", "chatkeep.daemon.cli.main")


def openings() -> list[tuple[str, float, float]]:
    """(way, median, worst of a hundred) of one opening, in ms."""
    keys = EpochKeys(RootSecret.generate())
    vault_id = os.urandom(16)
    public = keys.open.public
    bound = PACK + vault_id + (1).to_bytes(4, "big") + public.key_id + bytes(16)
    sealed = public.seal(bytes(48), bound)
    seed = keys.root.subkey("open")
    until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9
    facts = Facts(vault_id, bytes(32), bytes(16), "recovery-64", "", until, time.time_ns())
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "run"
        began = time.perf_counter()
        session.start(session.SessionKeys(facts, ReadingSeeds.of([keys])), directory)
        start = (time.perf_counter() - began) * 1e3
        try:
            with found(vault_id, directory) as there:
                ways: dict[str, Callable[[], object]] = {
                    "in this process, key kept": lambda: keys.open.open(sealed, bound),
                    "in this process, key made from its seed": lambda: HybridPrivate.from_seed(seed).open(
                        sealed, bound
                    ),
                    "by the session": lambda: there.open(1, public.key_id, sealed, bound),
                    "the session asked for nothing": there.ask,
                }
                took = taken(ways)
        finally:
            session.lock(vault_id, directory)
    return [("a session's beginning", start, start), *((way, median(all_), quantile(all_, 0.99)) for way, all_ in took)]


def taken(ways: dict[str, Callable[[], object]]) -> list[tuple[str, list[float]]]:
    """The ways in turns: what the machine does meanwhile weighs on all of them."""
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, act in ways.items():
            for _ in range(CALLS):
                began = time.perf_counter()
                act()
                took[way].append((time.perf_counter() - began) * 1e3)
    return list(took.items())


def found(vault_id: bytes, directory: Path) -> Session:
    """The session that was begun."""
    there = session.find(vault_id, directory)
    if there is None:
        raise RuntimeError("the session is gone")
    return there


def restores(room: Path) -> tuple[list[float], list[float]]:
    """Seconds of restores with a recovery key, and by a session, in turns, of one vault."""
    source, disk, key, config = room / "chat", room / "disk", room / "key.txt", room / "chatkeep.yaml"
    source.mkdir()
    for number in range(MEDIA):
        (source / f"{number}.bin").write_bytes(os.urandom(1 << 20))
    provider = f"{{name: disk, type: folder, path: {disk}}}"
    config.write_text(f"sources: [{source}]\nproviders: [{provider}]\nstate_dir: {room / 'state'}\n")
    (room / "run").mkdir(mode=0o700)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(room / "run")}

    def run(*words: object) -> float:
        began = time.perf_counter()
        argv = [*COMMAND, "--config", str(config), *map(str, words)]
        subprocess.run(argv, env=environment, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        return time.perf_counter() - began

    run("init", "--recovery-key-file", key)
    run("backup")
    run("unlock", "--key-file", key)
    by_key: list[float] = []
    by_session: list[float] = []
    try:
        run("restore", "latest", "--target", room / "warm")
        for number in range(RESTORES):
            turns = [(by_key, ["--key-file", key]), (by_session, [])]
            for took, secret in turns if number % 2 else reversed(turns):
                took.append(run("restore", "latest", "--target", room / f"out-{number}-{len(secret)}", *secret))
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run("lock")
    return by_key, by_session


def main() -> None:
    """Prints the table."""
    print("| one opening | median, ms | p99, ms |\n|---|---|---|")
    for way, usual, worst in openings():
        print(f"| {way} | {usual:.2f} | {worst:.2f} |")
    with tempfile.TemporaryDirectory() as place:
        by_key, by_session = restores(Path(place))
    print(f"\n| restore of {MEDIA} MiB, {RESTORES} times each | median, s |\n|---|---|")
    print(f"| with a recovery key | {median(by_key):.2f} |\n| by a session | {median(by_session):.2f} |")
    pairs = [second / first for first, second in zip(by_key, by_session, strict=True)]
    print(f"\nsession / recovery key, median of the pairs: {median(pairs):.2f}")


if __name__ == "__main__":
    main()
