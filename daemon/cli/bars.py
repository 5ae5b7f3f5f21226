"""Progress on a terminal: one quiet line for each thing worked at."""

from __future__ import annotations

import threading
import time
from typing import Final, Self, TextIO

from rich import progress
from rich.console import Console
from rich.text import Text

from chatkeep.daemon.cli.measures import duration, printable, size

PATIENCE: Final = 0.4  # seconds of work before anything is shown: what flashes by only disturbs


class _Count(progress.ProgressColumn):
    """What is done, of what there is."""

    def __init__(self, *, sized: bool) -> None:
        super().__init__()
        self._sized = sized

    def render(self, task: progress.Task) -> Text:
        done, total = int(task.completed), task.total
        if total is None:
            return Text("")
        words = (size(done), size(int(total))) if self._sized else (f"{done:,}", f"{int(total):,}")
        return Text(f"{words[0]} of {words[1]}", style="dim")


class _Elapsed(progress.ProgressColumn):
    """How long it has been at it."""

    def render(self, task: progress.Task) -> Text:
        return Text(duration(task.elapsed or 0.0), style="dim")


class Bars:
    """Lines with bars. `step` may be called from any thread."""

    def __init__(self, stream: TextIO, *, sized: bool, single: bool) -> None:
        quiet = {"style": "bright_black", "complete_style": "cyan", "finished_style": "cyan", "pulse_style": "cyan"}
        self._shown = progress.Progress(
            progress.TextColumn("  {task.description}"),
            progress.BarColumn(bar_width=30, **quiet),  # type: ignore[arg-type]
            _Count(sized=sized),
            _Elapsed(),
            console=Console(file=stream),
            transient=True,
        )
        self._single = single
        self._lines: dict[str, progress.TaskID] = {}
        self._lock = threading.Lock()
        self._timer = threading.Timer(PATIENCE, self._begin)
        self._timer.daemon = True
        self._over = self._running = False
        self.begun = time.monotonic()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._running:
                self._shown.stop()

    def step(self, what: str, done: int, total: int | None) -> None:
        """How far `what` is."""
        key = "" if self._single else what
        with self._lock:
            if key not in self._lines:
                self._lines[key] = self._shown.add_task("", total=None)
            self._shown.update(self._lines[key], description=printable(what), completed=done, total=total)

    def _begin(self) -> None:
        with self._lock:
            if not self._over:
                self._shown.start()
                self._running = True
