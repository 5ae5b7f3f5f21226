"""`chatkeep status --watch`: what the daemon does, as it does it, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.by_daemon import daemon_of
from chatkeep.daemon.cli.errors import NoDaemon
from chatkeep.daemon.cli.measures import local_time
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.words_of_events import said

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.control.client import Daemon

SHOWN: Final = 8  # of what happened last, below the screen
EVERY: Final = 1.0  # seconds between two looks, when nothing happens: ages and progress go on
PACE: Final = 0.25  # seconds between two, when much happens


def follow(out: Output, config: Config, screen: Callable[[], str]) -> None:
    """Shows what happens until Ctrl-C, or the daemon ends: on a terminal the screen of `status`, kept up to date; else
    a line for each event, in words or as JSON.

    Raises NoDaemon, and as `Daemon.ask`.
    """
    daemon = daemon_of(config)
    if daemon is None:
        raise NoDaemon
    with contextlib.suppress(KeyboardInterrupt):
        if out.out.isatty() and not out.as_json:
            _draw(out, daemon, screen)
        else:
            _write(out, daemon)


def _write(out: Output, daemon: Daemon) -> None:
    with daemon.events() as lines:
        next(lines, None)  # the first one says that from here on nothing is missed: only now is asked how things stand
        first = json.dumps({"line": "status", "status": daemon.status()}) if out.as_json else "Following the daemon."
        out.write(first + "\n")
        for line in _heard(lines):
            out.write((json.dumps(line) if out.as_json else _words(line)) + "\n")


def _lines(daemon: Daemon) -> Iterator[dict[str, Any]]:
    with daemon.events() as lines:
        yield from _heard(lines)


def _heard(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (line for line in lines if line["line"] != "alive")


def _words(line: Mapping[str, Any]) -> str:
    if line["line"] == "dropped":
        return f"... {line['count']} more"
    if line["line"] == "end":
        return "The daemon ended."
    event = line["event"]
    return f"{local_time(event['wall_ns'])}  {said(event['kind'], event['values'])}"


def _draw(out: Output, daemon: Daemon, screen: Callable[[], str]) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    happened: queue.SimpleQueue[str | ChatkeepError | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(daemon, happened), daemon=True).start()
    last: deque[str] = deque(maxlen=SHOWN)
    with Live(console=Console(file=out.out), auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while True:
            recent = "\n".join(f"  {one}" for one in last)
            live.update(
                Text.from_ansi(f"{screen()}\n\n{recent}\n\nCtrl-C ends this; the daemon goes on."), refresh=True
            )
            time.sleep(PACE)
            if _collect(happened, last):
                return


def _listen(daemon: Daemon, happened: queue.SimpleQueue[str | ChatkeepError | None]) -> None:
    try:
        for line in _lines(daemon):
            if line["line"] != "event" or line["event"]["kind"] != "upload-progress":
                happened.put(_words(line))
    except ChatkeepError as exc:
        happened.put(exc)
    else:
        happened.put(None)


def _collect(happened: queue.SimpleQueue[str | ChatkeepError | None], last: deque[str]) -> bool:
    """Takes what happened, or waits a little for the first; whether that was the end. Raises how it ended."""
    with contextlib.suppress(queue.Empty):
        one = happened.get(timeout=EVERY - PACE)
        while True:
            if one is None:
                return True
            if isinstance(one, ChatkeepError):
                raise one
            last.append(one)
            one = happened.get_nowait()
    return False
