"""A day of real use on S3: requests by kind, bytes and money, for so many messages, against MinIO.

    python -m bench.s3_day [--messages N] [--hours N] [--seed N]

Messages arrive at random moments of the waking hours. When a snapshot begins follows from them by the default
configuration (`quiet`, `max_delay`, `min_interval`); each is taken and uploaded by the daemon's engine, by a clock that
jumps from one to the next, so that the layers fold as they would in a real day. Requests are those that left this
process, as the provider counts them. Prices: Amazon's list for S3 Standard in us-east-1
(https://aws.amazon.com/s3/pricing/), without taxes and without any free tier. What `verify` and `drill` read is not in
it: they are counted in bytes of the configuration's own choice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.generate import BuiltIn
from bench.numbers import size
from chatkeep.config.running import WatchConfig
from chatkeep.providers.base import Usage

if TYPE_CHECKING:
    from chatkeep.daemon.service.engine.engine import Engine

MESSAGES = 5000
HOURS = 16
_DATABASE = 40_000_000
_SWEEP = 3600.0

# Dollars for one request, by the provider's kinds, and for what is kept.
PRICES: Final[Mapping[str, float]] = {"put": 0.005 / 1000, "list": 0.005 / 1000, "get": 0.0004 / 1000, "delete": 0.0}
GB_MONTH: Final = 0.023


def arrivals(rng: random.Random, messages: int, hours: float) -> list[float]:
    """When each message comes, in seconds from the morning."""
    return sorted(rng.random() * hours * 3600 for _ in range(messages))


def snapshots(moments: Sequence[float], watch: WatchConfig) -> list[tuple[float, int]]:
    """When each snapshot begins, and how many messages came since the one before."""
    found: list[tuple[float, int]] = []
    at, began = 0, float("-inf")
    while at < len(moments):
        latest = moments[at] + int(watch.max_delay)
        last = at
        while (
            last + 1 < len(moments)
            and moments[last + 1] - moments[last] < int(watch.quiet)
            and moments[last + 1] < latest
        ):
            last += 1
        begin = max(min(moments[last] + int(watch.quiet), latest), began + int(watch.min_interval))
        through = last
        while through + 1 < len(moments) and moments[through + 1] <= begin:
            through += 1
        found.append((begin, through + 1 - at))
        at, began = through + 1, begin
    return found


def cost(requests: Mapping[str, int]) -> float:
    """Dollars for these requests."""
    return sum(PRICES[kind] * count for kind, count in requests.items())


class _Clock:
    """Wall time in place of `time.time_ns`, and the seconds that the engine counts by."""

    def __init__(self) -> None:
        self.morning = time.time_ns()
        self.at = 0.0

    def time_ns(self) -> int:
        return self.morning + int(self.at * 1e9)

    def seconds(self) -> float:
        return 1e6 + self.at


def _vault(room: Path) -> Path:
    """A profile, a bucket and a vault in it: the configuration."""
    from tests.support import s3_servers

    server = s3_servers.minio()
    profile, config = room / "chat", room / "chatkeep.yaml"
    BuiltIn().make(profile, _DATABASE, 1, 200)
    provider = {
        "name": "cloud",
        "type": "s3",
        "bucket": server.bucket(),
        "endpoint": server.url,
        "credentials_file": str(server.keys_file(s3_servers.Keys())),
    }
    config.write_text(
        json.dumps({"sources": [str(profile)], "providers": [provider], "state_dir": str(room / "state")})
    )
    command = [sys.executable, "-m", "chatkeep.daemon.cli.main", "--config", str(config)]
    (room / "run").mkdir(mode=0o700)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(room / "run")}
    for words in (["init", "--recovery-key-file", str(room / "key")], ["backup"]):
        subprocess.run([*command, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    return config


@contextlib.contextmanager
def _engine(config: Path, clock: _Clock) -> Iterator[tuple[Engine, Usage]]:
    """The daemon's engine as it opens it itself, and its provider."""
    time.time_ns = clock.time_ns  # before anything takes hold of it
    from chatkeep.config.loader import load
    from chatkeep.daemon.service import device, storage
    from chatkeep.daemon.service.engine.engine import Engine, Terms

    loaded = load(config)
    credential = device.load_credential(loaded)
    state = device.open_state(loaded, credential, anew=True)
    with storage.opened(loaded.providers, patient=False) as providers:
        assert isinstance(providers[0], Usage)
        with Engine(loaded, credential, state, providers, Terms(now=clock.seconds)) as engine:
            yield engine, providers[0]


def day(config: Path, messages: int, hours: float, seed: int) -> tuple[int, int, dict[str, int]]:
    """Snapshots, bytes sent and requests of one day."""
    clock = _Clock()
    sent = made = 0
    swept = 0.0
    plan = snapshots(arrivals(random.Random(seed), messages, hours), WatchConfig())
    with _engine(config, clock) as (engine, provider):
        for number, (begin, count) in enumerate(plan):
            BuiltIn().append(config.parent / "chat", count, seed + 1 + number)
            clock.at = begin
            report = engine.snapshot("chat")
            if report.error is not None:
                raise report.error
            made += report.made
            done = engine.upload("cloud")
            if done.problems:
                raise done.problems[0]
            sent += done.bytes
            if begin - swept >= _SWEEP:
                swept = begin
                engine.sweep()
            if number % 100 == 0 and sys.stderr.isatty():
                print(f"\r{number} of {len(plan)}", end="", file=sys.stderr)
        return made, sent, dict(provider.requests())


def main() -> int:
    """Prints the day."""
    parser = argparse.ArgumentParser(prog="python -m bench.s3_day")
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--hours", type=float, default=HOURS, help="in which they come")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        made, sent, requests = day(_vault(Path(place)), asked.messages, asked.hours, asked.seed)
    money = cost(requests)
    print(
        f"{asked.messages} messages in {asked.hours:g} hours: {made} snapshots, {size(sent)} sent (seed {asked.seed})"
    )
    for kind in PRICES:
        count = requests.get(kind, 0)
        print(f"  {kind:6} {count:7} requests   $ {PRICES[kind] * count:.5f}")
    month = sent / 1e9 * GB_MONTH
    print(f"  requests cost $ {money:.4f} a day, $ {money * 30:.2f} in 30 days")
    print(f"  what a day adds costs $ {month:.5f} a month to keep, before anything of it is pruned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
