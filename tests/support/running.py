"""The real daemon as a real process, on a station of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from chatkeep.daemon.control.client import Daemon
from tests.support.station import DEADLINE, Station, finish

QUICK = "watch: {quiet: 0 seconds, max_delay: 1 second, min_interval: 0 seconds}"


class Running:
    """One run of `chatkeep run`. Its log is read as it comes: JSON lines in `lines`."""

    def __init__(self, station: Station, **how: Any) -> None:
        self.station = station
        self.process = station.start("run", stderr=subprocess.PIPE, **how)
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with contextlib.suppress(ValueError):
                self.lines.append(json.loads(line))

    @property
    def client(self) -> Daemon:
        found = Daemon.find(self.station.state, self.station.runtime / "chatkeep")
        assert found is not None, self.lines
        return found

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        """What was logged of a kind."""
        return [line for line in list(self.lines) if line.get("event") == kind]

    def until(self, condition: Callable[[], object]) -> None:
        """Waits until something is so; fails when the daemon ends before, or after the deadline."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None, (self.process.returncode, self.lines)
            assert time.monotonic() < end, ("it never came to be so", self.lines)
            time.sleep(0.01)

    def logged(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Waits for so many lines of a kind; the last of them."""
        self.until(lambda: len(self.kinds(kind)) >= count)
        return self.kinds(kind)[count - 1]

    def standing(self) -> dict[str, Any]:
        return self.client.status()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def unlock(self) -> None:
        """As a person does, with the recovery key in a file."""
        self.station.ok("unlock", "--key-file", self.station.key)
        assert self.client.unlocked()


def configured(station: Station, *more: str) -> None:
    """Adds keys to the configuration, one that makes the daemon quick in any case."""
    station.configure(station.source)
    with open(station.config, "a") as file:
        file.write("\n".join([QUICK, *more, ""]))


@contextlib.contextmanager
def running(station: Station, **how: Any) -> Iterator[Running]:
    """A daemon for the block, which serves when it begins; ended after it, with whatever session it has."""
    daemon = Running(station, **how)
    try:
        daemon.logged("started")
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.wait()
        finish(station.start("lock"))


def writer(path: os.PathLike[str], stop: threading.Event, every: float = 0.02) -> threading.Thread:
    """Writes to a database without rest until told to stop."""
    import sqlite3

    def write() -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=DEADLINE, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS messages(id INTEGER PRIMARY KEY, body TEXT)")
            while not stop.wait(every):
                connection.execute("INSERT INTO messages(body) VALUES('live ' || hex(randomblob(100)))")

    thread = threading.Thread(target=write)
    thread.start()
    return thread
