"""The daemon of the demonstration: the real `chatkeep run`, and what it says as it goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.demo_proof import Failed

DEADLINE: Final = 60.0  # seconds for what takes one
CLEANLY: Final = 5.0  # seconds a daemon may take to end


@dataclass(frozen=True)
class Made:
    """A snapshot that the daemon took. `stored`: its bytes, sealed; `seen`: when it was told of (monotonic)."""

    seq: int
    stored: int
    seen: float


class Daemon:
    """A daemon that runs, with its log of JSON lines."""

    def __init__(self, config: Path, vault: Path) -> None:
        self._vault = vault
        command = [sys.executable, "-m", "chatkeep.daemon.cli.main", "--config", str(config), "--json", "run"]
        self.process: Final = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._lines: list[tuple[float, dict[str, Any]]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with contextlib.suppress(ValueError):
                self._lines.append((time.monotonic(), json.loads(line)))

    def until(self, found: Callable[[], object], what: str) -> None:
        """Waits until something is so. Raises Failed when the daemon ends before, or it takes too long."""
        end = time.monotonic() + DEADLINE
        while not found():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"{what}: it did not come to that. The daemon said: {[line for _, line in self._lines]}")
            time.sleep(0.01)

    def said(self, kind: str) -> bool:
        """Whether it logged something of a kind."""
        return any(line.get("event") == kind for _, line in list(self._lines))

    def snapshots(self) -> list[Made]:
        """Those it took so far."""
        return [
            Made(line["snapshot"], line["bytes"], at)
            for at, line in list(self._lines)
            if line.get("event") == "snapshot-made"
        ]

    def snapshot_after(self, seq: int) -> Made:
        """The first that is newer than `seq`."""
        self.until(lambda: any(one.seq > seq for one in self.snapshots()), f"a snapshot after {seq}")
        return next(one for one in self.snapshots() if one.seq > seq)

    def stored(self) -> int:
        """How many snapshots storage has: it takes manifests in order, each after all that it stands on."""
        return sum(1 for _ in self._vault.glob("d/*/s/*/*"))

    def close(self) -> None:
        """Kills it, should it still run."""
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def end(self) -> float:
        """Ends it as a service manager does; how long that took (seconds). Raises Failed unless it was clean."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(CLEANLY)
        except subprocess.TimeoutExpired as exc:
            raise Failed(f"the daemon was asked to end, and runs after {CLEANLY:.0f} seconds") from exc
        if code != 0:
            raise Failed(f"the daemon ended with {code}")
        return time.monotonic() - begun


@contextlib.contextmanager
def running(config: Path, vault: Path) -> Iterator[Daemon]:
    """A daemon for the block, that serves when it begins; its runtime directory lies beside the configuration."""
    runtime = config.parent / "run"
    runtime.mkdir(mode=0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)  # of every command too: they find it by that
    daemon = Daemon(config, vault)
    try:
        daemon.until(lambda: daemon.said("started"), "its start")
        yield daemon
    finally:
        daemon.close()
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
