"""What happens, as lines on standard error: for the journal, for a person at a terminal, or for a program.

Words first, then the kind of event, its code and its values. Names of files are at debug level only. Lines are written
by a thread of their own: a terminal that was stopped, or a journal that is, delays nobody.

How the journal is found: sd_journal(3) names the device and inode of its stream in JOURNAL_STREAM, see systemd.exec(5);
priorities are in front of the line as sd-daemon(3) has them.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from chatkeep.daemon.service.events import Bus, Event, Kind, Stream
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.telling.scrub import printable, scrub

Words = Callable[[Event], str]
_KEPT: Final = 5000  # events that wait to be written
_LEAVING: Final = 2.0  # seconds for the last lines, when it ends
_NAMES: Final = MappingProxyType({10: "debug", 20: "info", 30: "warning", 40: "error"})
_PRIORITIES: Final = MappingProxyType({"debug": 7, "info": 6, "warning": 4, "error": 3})

_LEVELS: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        **dict.fromkeys(Kind, logging.INFO),
        Kind.SNAPSHOT_BEGUN: logging.DEBUG,
        Kind.SNAPSHOT_NOTHING: logging.DEBUG,
        Kind.UPLOAD_BEGUN: logging.DEBUG,
        Kind.UPLOAD_PROGRESS: logging.DEBUG,
        Kind.JOB_BEGUN: logging.DEBUG,
        Kind.COMMAND_ENDED: logging.DEBUG,
        Kind.RELOAD_REFUSED: logging.ERROR,
        Kind.SNAPSHOT_FAILED: logging.WARNING,
        Kind.UPLOAD_FAILED: logging.WARNING,
        Kind.JOB_FAILED: logging.WARNING,
        Kind.WATCH_DEGRADED: logging.WARNING,
        Kind.OVERFLOW: logging.WARNING,
        Kind.OUTBOX_FULL: logging.WARNING,
        Kind.PROBLEM: logging.ERROR,
        Kind.PROBLEM_OVER: logging.WARNING,  # as loud as what it ends, for whoever looks at warnings only
        Kind.LISTENER_LOST: logging.ERROR,
        Kind.LIBRARY: logging.WARNING,
        Kind.SENT_IN_CLEAR: logging.WARNING,
    }
)


class Style(StrEnum):
    """What a line looks like."""

    JOURNAL = "journal"  # <6>words [kind name=value ...]
    TERMINAL = "terminal"  # time, level and kind in colours, words and values
    JSON = "json"  # one object a line: time, level, event, text, and the values
    PLAIN = "plain"  # as for the journal, with a time instead of a priority


def style_for(stream: TextIO, *, as_json: bool, environment: Mapping[str, str] | None = None) -> Style:
    """The style for a stream: JSON when asked for, else as who reads it can use it."""
    if as_json:
        return Style.JSON
    if is_journal(stream, environment):
        return Style.JOURNAL
    return Style.TERMINAL if stream.isatty() else Style.PLAIN


def is_journal(stream: TextIO, environment: Mapping[str, str] | None = None) -> bool:
    """Whether a stream leads to the journal itself, and not to what it was since redirected to."""
    told = (os.environ if environment is None else environment).get("JOURNAL_STREAM", "")
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return told == f"{facts.st_dev}:{facts.st_ino}"


class Log:
    """Writes what happens until it is closed. `words` says an event in a sentence; it may return nothing.

    Attributes:
        lost: how many lines could not be written, because nobody takes them.
    """

    def __init__(
        self,
        bus: Bus,
        words: Words,
        *,
        stream: TextIO | None = None,
        style: Style = Style.PLAIN,
        level: int = logging.INFO,
        colours: bool = True,
    ) -> None:
        self.lost = 0
        self._words, self._level = words, level
        self._out = sys.stderr if stream is None else stream
        # A program that reads JSON from the journal gets its priority there too.
        prefixed = style is Style.JOURNAL or (style is Style.JSON and is_journal(self._out))
        self._log = structlog.wrap_logger(
            _Lines(self._write),
            processors=[_timed, _scrubbing, _renderer(style, prefixed, colours)],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            context_class=dict,
        )
        self._events = Stream(bus, _KEPT, name="log")
        self._ending = threading.Event()
        self._foreign = _Foreign(bus)
        logging.getLogger().addHandler(self._foreign)
        # A daemon thread: one that is stuck in a write to a stopped terminal must not keep the daemon from leaving.
        self._thread = threading.Thread(target=self._follow, name="log", daemon=True)
        self._thread.start()

    def crashed(self, error: BaseException, where: str) -> None:
        """An error that no code names: its type and the lines it came through. Never its text, which can be anything;
        at debug level that too."""
        frames = [f"{os.path.basename(one.filename)}:{one.lineno} {one.name}" for one in _frames(error)]
        values = {"where": where, "error": type(error).__name__, "frames": " < ".join(reversed(frames[-12:]))}
        if self._level <= logging.DEBUG:
            values["message"] = str(error)
        self._say("error", "crashed", "An internal error.", values)

    def close(self) -> None:
        """Writes what there is, for two seconds at most, and ends."""
        logging.getLogger().removeHandler(self._foreign)
        self._ending.set()
        self._events.close()
        self._thread.join(_LEAVING)

    def _follow(self) -> None:
        while True:
            ending = self._ending.is_set()
            batch = self._events.take(3600)
            if batch.dropped:
                self._say("warning", "lines-dropped", "", {"count": batch.dropped})
            for event in batch.events:
                self._tell(event)
            if ending and not batch.events:
                return

    def _tell(self, event: Event) -> None:
        level, values = _LEVELS[event.kind], dict(event.values)
        if level < self._level:
            return
        if self._level <= logging.DEBUG:
            values |= {f"detail_{name}": value for name, value in event.detail.items()}
        try:
            words = self._words(event)
        except Exception:
            words = ""  # what has no words is told by its code
        self._say(_NAMES[level], event.kind, words, {**values, "wall_ns": event.at.wall_ns})

    def _say(self, level: str, kind: str, words: str, values: Mapping[str, Any]) -> None:
        named = {f"{name}_" if name in {"event", "level", "text", "time"} else name: it for name, it in values.items()}
        getattr(self._log, level)(str(kind), level=level, text=words, **named)

    def _write(self, line: str) -> None:
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except (OSError, ValueError):
            self.lost += 1


class _Lines:
    """What structlog writes to."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = write


class _Foreign(logging.Handler):
    """What libraries log. Their texts can hold names of files and addresses: at debug level only."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(logging.WARNING)
        self._bus = bus

    def emit(self, record: logging.LogRecord) -> None:
        values = {"library": record.name}
        if record.exc_info and record.exc_info[0]:
            values["error"] = record.exc_info[0].__name__
        try:
            detail = {"message": record.getMessage()}
        except Exception:
            detail = {}
        self._bus.publish(Event(Kind.LIBRARY, now(), values, detail))


def _renderer(style: Style, prefixed: bool, colours: bool) -> Callable[..., str]:
    render: Callable[..., str]
    if style is Style.JSON:
        as_json = structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=True)

        def render(log: WrappedLogger, name: str, entry: EventDict) -> str:
            head = {"time": entry.pop("time"), "level": entry.pop("level"), "event": entry.pop("event")}
            return str(as_json(log, name, {**head, **entry}))
    elif style is Style.TERMINAL:
        console = structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, sort_keys=False)

        def render(log: WrappedLogger, name: str, entry: EventDict) -> str:
            kind, words = entry["event"], entry.pop("text")
            entry.update(event=words or kind, timestamp=entry.pop("time")[11:19])
            if words:
                entry["kind"] = kind
            return str(console(log, name, {key: _one_line(value) for key, value in entry.items()}))
    else:

        def render(_log: WrappedLogger, _name: str, entry: EventDict) -> str:
            kind, words, when = entry.pop("event"), entry.pop("text"), entry.pop("time")
            level = entry.pop("level")
            values = " ".join([kind, *(f"{key}={_quoted(value)}" for key, value in entry.items())])
            line = f"{printable(words)} [{values}]" if words else f"[{values}]"
            return line if prefixed else f"{when} {level:7} {line}"

    def prefixing(log: WrappedLogger, name: str, entry: EventDict) -> str:
        priority = _PRIORITIES[entry["level"]]
        return f"<{priority}>{render(log, name, entry)}"

    return prefixing if prefixed else render


def _timed(_log: WrappedLogger, _name: str, entry: EventDict) -> EventDict:
    """UTC, RFC 3339, milliseconds: of the event where it is one."""
    seconds = entry.pop("wall_ns", now().wall_ns) // 10**6 / 1e3
    entry["time"] = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return entry


def _scrubbing(_log: WrappedLogger, _name: str, entry: EventDict) -> EventDict:
    ours = {name: entry[name] for name in ("time", "level", "event")}
    return {**scrub({name: value for name, value in entry.items() if name not in ours}), **ours}


def _quoted(value: Any) -> str:
    text = printable(str(value))
    return text if text and not set(text) & set(' "=[]') else '"' + text.replace('"', "'") + '"'


def _one_line(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))
