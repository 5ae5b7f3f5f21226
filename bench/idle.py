"""What waiting costs: CPU of a watcher, or of the whole daemon, while nothing happens, and what it asks of its
provider.

    python -m bench.idle [--databases N] [--seconds N] [--daemon]

The source is N databases in WAL mode in a tenth as many directories. CPU is that of all threads of the process by the
scheduler's own account (/proc/PID/task/*/schedstat, nanoseconds), over the time given, after everything has settled.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.numbers import MIB

ALLOWED = 0.1
"""Per cent of one core."""
SETTLED = 5.0
"""Seconds without a CPU second's tenth being used, before the window begins."""

_WATCH = """
import sys
from pathlib import Path
from chatkeep.config.model import Source
from chatkeep.daemon.service.watching.watcher import Watcher
watcher = Watcher([Source(Path(sys.argv[1]), "chat")], lambda *_: None, lambda *_: None)
watcher.start()
watcher.settled(600)
print("ready", flush=True)
sys.stdin.read()
watcher.stop()
"""


def profile(top: Path, databases: int) -> None:
    """So many small databases, as an application leaves them that is open: each with its log."""
    for number in range(databases):
        place = top / f"{number // 10:03}"
        place.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(place / f"{number}.db", isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("CREATE TABLE message(id INTEGER PRIMARY KEY, text)")
        connection.executemany("INSERT INTO message(text) VALUES(?)", [("a message " * 20,)] * 20)
        log = (place / f"{number}.db-wal").read_bytes()
        connection.close()
        (place / f"{number}.db-wal").write_bytes(log)  # of before the checkpoint, as after a crash


def spent(pid: int) -> tuple[float, int]:
    """CPU seconds of every thread that a process has, and how often they were put on a core."""
    seconds, times = 0.0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            run, _, turns = (task / "schedstat").read_text().split()
            seconds += int(run) / 1e9
            times += int(turns)
    return seconds, times


def settle(pid: int, patience: float = 600.0) -> None:
    """Waits until the process has rested for SETTLED seconds. TimeoutError."""
    deadline = time.monotonic() + patience
    before, since = spent(pid)[0], time.monotonic()
    while time.monotonic() - since < SETTLED:
        if time.monotonic() > deadline:
            raise TimeoutError(pid)
        time.sleep(0.2)
        now = spent(pid)[0]
        if now - before > 0.1:
            before, since = now, time.monotonic()


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def watcher(top: Path) -> Iterator[tuple[int, Path | None]]:
    """A process that watches, and nothing else."""
    words = [sys.executable, "-c", _WATCH, str(top)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid, None
        assert process.stdin is not None
        process.stdin.close()


@contextlib.contextmanager
def daemon(top: Path, more: str = "") -> Iterator[tuple[int, Path | None]]:
    """The daemon, with a vault in a folder, after its first backup; and the file that grows with each provider call."""
    room = top.parent
    config, calls = room / "chatkeep.yaml", room / "calls"
    (room / "vault").mkdir()
    config.write_text(
        f"sources: [{top}]\nproviders: [{{name: storage, type: folder, path: {room / 'vault'}}}]\n"
        f"state_dir: {room / 'state'}\nsession: {{require_unlock: false}}\n" + more
    )
    environment = os.environ | {"XDG_RUNTIME_DIR": str(room / "run")}
    (room / "run").mkdir(mode=0o700)
    words = [sys.executable, "-m", "bench.counted", str(calls), "--config", str(config)]
    begin = [*words, "--json", "init", "--recovery-key-file", str(room / "key")]
    subprocess.run(begin, check=True, env=environment, stdout=subprocess.DEVNULL)
    with open(room / "log", "wb") as log, subprocess.Popen([*words, "run"], env=environment, stderr=log) as process:
        try:
            yield process.pid, calls
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def main() -> int:
    """Measures, prints, and says by its exit code whether it is little enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--daemon", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        top = Path(place) / "source"
        profile(top, asked.databases)
        with (daemon if asked.daemon else watcher)(top) as (pid, calls):
            settle(pid)
            before, turns_before = spent(pid)
            asked_before = calls.stat().st_size if calls is not None and calls.exists() else 0
            if calls is not None and not asked_before:
                raise RuntimeError("the first backup called no provider: nothing is counted")
            began = time.monotonic()
            time.sleep(asked.seconds)
            wall = time.monotonic() - began
            after, turns_after = spent(pid)
            made = calls.stat().st_size - asked_before if calls is not None else None
            share = 100 * (after - before) / wall
            threads = sum(1 for _ in itertools.islice(Path(f"/proc/{pid}/task").iterdir(), 1000))
            result = {
                "what": "daemon" if asked.daemon else "watcher",
                "databases": asked.databases,
                "seconds": round(wall, 1),
                "cpu_percent": round(share, 4),
                "wakeups_per_second": round((turns_after - turns_before) / wall, 2),
                "resident_mib": round(resident(pid) / MIB, 1),
                "threads": threads,
                "provider_calls": made,
            }
    print(json.dumps(result))
    return 0 if share < ALLOWED and not made else 1


if __name__ == "__main__":
    sys.exit(main())
