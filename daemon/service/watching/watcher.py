"""All sources, watched."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from chatkeep.config.model import Source
from chatkeep.daemon.service.events import Event
from chatkeep.daemon.service.watching.scope import Scope
from chatkeep.daemon.service.watching.sentry import Edge, Reason, Rhythm, Sentry

# A sentry that hangs in a file system that does not answer is left behind: it holds nothing but that.
PATIENCE = 2.0


class _Watched(NamedTuple):
    """What of a source matters here."""

    name: str
    path: Path
    exclude: tuple[str, ...]


class Watcher:
    """Watches sources from `start` to `stop`; for one thread, but its callbacks come from others.

    Args:
        on_hint: called with a source's name and whether nobody knows what changed there. Comes after the change it is
            about, several changes may share one, and one may come for nothing. Comes for every source once it is
            watched, with True. Must not wait.
        tell: called with events of the kinds watch-degraded, watch-restored and overflow (`Bus.publish`).
    """

    def __init__(
        self,
        sources: Iterable[Source],
        on_hint: Callable[[str, bool], object],
        tell: Callable[[Event], object],
        rhythm: Rhythm = Rhythm(),  # noqa: B008  # frozen
        edge: Edge = Edge(),  # noqa: B008  # frozen
    ) -> None:
        self._wanted = tuple(sources)
        self._on_hint, self._tell = on_hint, tell
        self._rhythm, self._edge = rhythm, edge
        self._sentries: dict[_Watched, Sentry] = {}
        self._running = False

    @property
    def degraded(self) -> dict[str, Reason]:
        """The sources that are polled, or of which a part is, and why."""
        found = ((sentry.source, sentry.degraded) for sentry in self._sentries.values())
        return {name: reason for name, reason in found if reason is not None}

    def start(self) -> None:
        """Begins, and does not wait until everything is entered; what is missing is watched from when it comes."""
        self._running = True
        self.change(self._wanted)

    def change(self, sources: Iterable[Source], poll_every: float | None = None) -> None:
        """Watches these from now on; those that stay as they are lose no event. `poll_every`: seconds between looks at
        a whole tree that has to be polled."""
        self._wanted = tuple(sources)
        if poll_every is not None:
            self._rhythm = replace(self._rhythm, whole=poll_every)
        if not self._running:
            return
        before, after = dict(self._sentries), {}
        for source in self._wanted:
            watched = _Watched(source.name, source.path, source.exclude)
            stays = before.pop(watched, None)
            after[watched] = self._begin(watched) if stays is None else stays
            after[watched].change(self._rhythm)
        self._sentries = after  # in one step: `degraded` may be asked meanwhile
        # What begins gives a whole hint once it watches, so that what ends takes no event away.
        _end(list(before.values()))

    def settled(self, seconds: float) -> bool:
        """Whether every source was entered, or found missing, within so many seconds."""
        deadline = time.monotonic() + seconds
        return all(sentry.settled(max(0.0, deadline - time.monotonic())) for sentry in self._sentries.values())

    def stop(self) -> None:
        """No hint comes any more when this returns, which takes no longer than PATIENCE."""
        self._running = False
        ending, self._sentries = list(self._sentries.values()), {}
        _end(ending)

    def _begin(self, watched: _Watched) -> Sentry:
        hint = partial(self._on_hint, watched.name)
        root, scope = os.fsencode(watched.path), Scope(watched.exclude)
        sentry = Sentry(watched.name, root, scope, hint, self._tell, self._rhythm, self._edge)
        sentry.start()
        return sentry


def _end(sentries: list[Sentry]) -> None:
    for sentry in sentries:
        sentry.stop()
    deadline = time.monotonic() + PATIENCE
    for sentry in sentries:
        sentry.join(max(0.0, deadline - time.monotonic()))
