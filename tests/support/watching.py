"""A watcher, and everything that it said and saw."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from watchdog.observers.inotify_c import InotifyEvent

from chatkeep.config.model import Source
from chatkeep.daemon.service.events import Event, Kind
from chatkeep.daemon.service.watching.feed import Feed
from chatkeep.daemon.service.watching.scope import below
from chatkeep.daemon.service.watching.sentry import Edge, Rhythm
from chatkeep.daemon.service.watching.watcher import Watcher

PATIENCE = 30.0
RHYTHM = Rhythm(check=0.05, quick=0.05, whole=0.1, again=0.1)


class Heard:
    """What a watcher said, to be waited for."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self.hints: list[tuple[str, bool]] = []
        self.events: list[Event] = []
        self.refuse = 0  # so many hints are not taken

    def hint(self, source: str, whole: bool) -> None:
        with self._news:
            if self.refuse:
                self.refuse -= 1
                self._news.notify_all()
                raise RuntimeError("nobody listens")
            self.hints.append((source, whole))
            self._news.notify_all()

    def tell(self, event: Event) -> None:
        with self._news:
            assert not event.missing()
            self.events.append(event)
            self._news.notify_all()

    def note(self) -> None:
        with self._news:
            self._news.notify_all()

    def until(self, condition: Callable[[], Any]) -> Any:
        """What the condition found, waited for until the deadline."""
        found = None
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while not (found := condition()):
                assert time.monotonic() < deadline, (self.hints[-5:], self.events[-5:])
                self._news.wait(0.05)
        return found

    def told(self, kind: Kind, **values: object) -> list[Event]:
        wanted = values.items()
        return [event for event in self.events if event.kind is kind and wanted <= dict(event.values).items()]

    def since(self, mark: int) -> list[tuple[str, bool]]:
        return self.hints[mark:]

    def hint_after(self, act: Callable[[], object], *, whole: bool | None = None) -> None:
        """Waits for a hint that came after `act` began."""
        mark = len(self.hints)
        act()
        self.until(lambda: [kind for _, kind in self.since(mark) if whole is None or kind is whole])


class Seen:
    """Every event that a source's feed handled: its path, and whether it wakes."""

    def __init__(self) -> None:
        self.events: list[tuple[bytes, bool]] = []
        self.feeds: list[Feed] = []
        self.overflows = 0
        self.break_once = threading.Event()  # set: the next event ends the thread that reads
        self.broken = 0
        seen = self

        class Recorded(Feed):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                seen.feeds.append(self)

            def handle_event(self, event: InotifyEvent) -> None:
                if seen.break_once.is_set():
                    seen.break_once.clear()
                    seen.broken += 1
                    self.stopped_event.set()  # as when it ends by a mistake: nobody closed anything
                    return
                seen.overflows += event.is_queue_overflow
                with self._guard:
                    known = self._directories.get(event.wd)
                before, self._woken = self._woken, False
                super().handle_event(event)
                if known is not None:
                    seen.events.append((below(known[0], event.name), self._woken))
                self._woken = self._woken or before

        self.feed = Recorded

    def woke(self, since: int = 0) -> set[bytes]:
        return {path for path, woke in self.events[since:] if woke}


class Scene:
    """A watched source."""

    def __init__(self, top: Path, exclude: Iterable[str] = (), rhythm: Rhythm = RHYTHM, **edge: Any) -> None:
        self.top, self.heard, self.seen = top, Heard(), Seen()
        self.source = Source(top, "chat", tuple(exclude))
        self.rhythm = rhythm
        self.edge = Edge(feed=self.seen.feed, **edge)
        self.watcher = self.watch(self.source)

    def watch(self, *sources: Source) -> Watcher:
        return Watcher(sources, self.heard.hint, self.heard.tell, self.rhythm, self.edge)

    def start(self) -> None:
        self.watcher.start()
        assert self.watcher.settled(PATIENCE)

    def marked(self, directory: Path | None = None) -> set[bytes]:
        """Everything that woke before a link that is made now did: the kernel keeps the order. Emptied for the next."""
        name = os.urandom(8).hex()
        path = (directory or self.top) / name
        path.symlink_to("nowhere")  # one event; a file would be created, and then closed
        relative = os.fsencode(path.relative_to(self.top))
        self.heard.until(lambda: relative in self.seen.woke())
        woke = self.seen.woke() - {relative}
        self.seen.events.clear()
        return woke


@contextlib.contextmanager
def watched(top: Path, exclude: Iterable[str] = (), **edge: Any) -> Iterator[Scene]:
    """A scene that was entered."""
    scene = Scene(top, exclude, **edge)
    try:
        scene.start()
        yield scene
    finally:
        scene.watcher.stop()
