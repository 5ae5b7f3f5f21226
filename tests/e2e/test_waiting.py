"""What is required of a daemon that waits, and of one that watches: measured, with the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]


def measured(*words: str) -> list[dict[str, Any]]:
    """What a benchmark printed; it fails when it misses what it was asked for."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long
def test_an_idle_daemon_with_a_thousand_databases_takes_no_time_and_asks_nobody() -> None:
    (found,) = measured("bench.idle", "--daemon", "--databases", "1000", "--seconds", "60")
    assert found["cpu_percent"] < 0.1
    assert found["provider_calls"] == 0


@pytest.mark.long
def test_a_commit_is_sealed_within_the_quiet_period_and_a_second() -> None:
    watch = "quiet: 2s, max_delay: 2s, min_interval: 1s"
    found = measured("bench.watch_latency", "--daemon", "--rate", "5", "--watch", watch)
    (sealed,) = [one for one in found if one["what"] == "sealed"]
    assert sealed["commits"] > 200
    assert sealed["p99"] <= 3.0


@pytest.mark.long
def test_a_commit_is_acknowledged_within_ten_seconds() -> None:
    watch = "min_interval: 5s"
    found = measured("bench.watch_latency", "--daemon", "--rate", "5", "--watch", watch)
    (acknowledged,) = [one for one in found if one["what"] == "acknowledged"]
    assert acknowledged["commits"] > 200
    assert acknowledged["p99"] <= 10.0
