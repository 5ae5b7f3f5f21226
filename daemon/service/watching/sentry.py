"""One source: is its directory there, is it the same one, how can it be watched - and, when that changes, what follows.

A thread of its own does what may block (a dead network mount holds up only its own source): it enters trees, polls, and
looks every few seconds whether the root is still the directory that was entered.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from chatkeep.daemon.service.events import Event, Kind
from chatkeep.daemon.service.watching import mounts
from chatkeep.daemon.service.watching.feed import Feed, Trouble, UsedUp
from chatkeep.daemon.service.watching.polling import Poller
from chatkeep.daemon.service.watching.scope import Scope


class Reason(StrEnum):
    """Why a source, or a part of it, is looked at from time to time instead of being watched."""

    USED_UP = "watches-used-up"  # fs.inotify.max_user_watches, max_user_instances or open files
    SHARED = "network"  # a file system that changes without this kernel being asked
    REFUSED = "refused"  # the system watches this directory for nobody, or not for us
    FAILED = "failed"  # our own mistake; it is tried again


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often what is done, in seconds."""

    check: float = 5.0  # is the root still the same? One stat, and one reading of the mount table
    quick: float = 5.0  # databases, where polling is needed
    whole: float = 300.0  # everything, where polling is needed
    again: float = 600.0  # to watch what could not be watched


@dataclass(frozen=True, slots=True)
class Edge:
    """What tests put something else in place of."""

    kind_at: Callable[[bytes], str] = mounts.kind_at
    feed: type[Feed] = Feed


_Identity = tuple[int, int]

# Seconds between entering a tree and entering it again because of what its events say: events that never stop
# overflowing must not be answered by walking without end.
BETWEEN = 1.0
_TRIED_AGAIN = frozenset({Reason.USED_UP, Reason.REFUSED, Reason.FAILED})


class Sentry(threading.Thread):
    """Watches one source from `start` to `stop`.

    `hint(whole)` and `tell(event)` are called in threads of this class. They must not wait; a hint that raises is owed,
    and given again.
    """

    def __init__(
        self,
        name: str,
        root: bytes,
        scope: Scope,
        hint: Callable[[bool], object],
        tell: Callable[[Event], object],
        rhythm: Rhythm,
        edge: Edge = Edge(),  # frozen
    ) -> None:
        super().__init__(name="watch", daemon=True)  # one that hangs in a dead mount does not keep the program
        self.source, self._root, self._scope = name, root, scope
        self._hint, self._tell, self._rhythm, self._edge = hint, tell, rhythm, edge
        self._wake = threading.Condition()
        self._troubles: set[Trouble] = set()
        self._owed: bool | None = None  # a hint that could not be given; True: a whole one
        self._over = False
        self._identity: _Identity | None = None
        self._mounts: tuple[mounts.Mount, ...] = ()
        self._feed: Feed | None = None
        self._poller: Poller | None = None
        self._degraded: Reason | None = None
        self._again_at: float | None = None
        self._entered_at = -BETWEEN
        self._settled = threading.Event()

    def settled(self, seconds: float) -> bool:
        """Whether the source was entered, or found missing, within so many seconds."""
        return self._settled.wait(seconds)

    @property
    def degraded(self) -> Reason | None:
        """Why it is not, or not wholly, watched."""
        return self._degraded

    def change(self, rhythm: Rhythm) -> None:
        """How often what is done, from the next look on."""
        self._rhythm = rhythm
        poller = self._poller
        if poller is not None:
            poller.change(rhythm.quick, rhythm.whole)

    def stop(self) -> None:
        """Asks it to end; `join` waits. No hint comes any more."""
        with self._wake:
            self._over = True
            self._wake.notify_all()

    def run(self) -> None:
        """What the thread does."""
        try:
            while not self._over:
                try:
                    self._turn()
                except Exception as exc:
                    self._fail(exc)
                self._settled.set()
                self._rest()
        finally:
            self._close()

    def _rest(self) -> None:
        with self._wake:
            due = time.monotonic() + self._rhythm.check
            if self._poller is not None:
                due = min(due, self._poller.due_at)
            self._wake.wait_for(lambda: self._over or self._troubles, max(0.0, due - time.monotonic()))
            pause = self._entered_at + BETWEEN - time.monotonic()
            if self._troubles and pause > 0:
                self._wake.wait_for(lambda: self._over, pause)

    def _fail(self, exc: Exception) -> None:
        # Not to be silent is all that is known to be right here; with the next look everything begins anew.
        self._close()
        self._identity = None
        self._say(Reason.FAILED, type(exc).__name__)

    def _turn(self) -> None:
        with self._wake:
            troubles, self._troubles = self._troubles, set()
        if self._owed is not None:
            self._give(self._owed)
        identity = self._look()
        now = time.monotonic()
        if Trouble.OVERFLOW in troubles:
            self._tell(Event.now(Kind.OVERFLOW, source=self.source))
        if identity is None:
            self._gone()
        elif self._must_enter(identity, troubles, now):
            self._enter(identity, now)
        if self._poller is not None and self._poller.due_at <= now and self._poller.look(now):
            self._give(whole=False)

    def _look(self) -> _Identity | None:
        try:
            facts = os.stat(self._root)
        except OSError:
            return None
        return facts.st_dev, facts.st_ino

    def _gone(self) -> None:
        if self._identity is None:
            return
        self._close()
        self._identity, self._again_at = None, None
        self._give(whole=True)  # so that somebody finds it missing, and says so

    def _must_enter(self, identity: _Identity, troubles: set[Trouble], now: float) -> bool:
        below = mounts.mounts_below(self._root)
        moved, self._mounts = below != self._mounts, below
        dead = self._feed is not None and not self._feed.is_alive()
        late = self._again_at is not None and self._again_at <= now
        return not self._is_same(identity) or bool(troubles) or moved or dead or late

    def _is_same(self, identity: _Identity) -> bool:
        if self._identity is None or self._feed is not None:
            return identity == self._identity
        # Inode numbers of a network file system may be made up anew, and what is polled is found by its path anyway.
        return identity[0] == self._identity[0]

    def _enter(self, identity: _Identity, now: float) -> None:
        same = self._is_same(identity)
        if not same or (self._feed is not None and not self._feed.is_alive()):
            self._close()
        self._identity, self._again_at = identity, None
        before = self._degraded
        reason, parts = self._watch_what_can_be()
        there = self._look()
        if there is None or (self._feed is not None and there != identity):
            self._start_over()  # replaced meanwhile: which of the two was entered?
            return
        self._entered_at = time.monotonic()
        if reason in _TRIED_AGAIN:
            self._again_at = now + self._rhythm.again
        if not parts:
            self._poller = None
        elif self._poller is None or self._poller.parts != parts:
            self._poller = Poller(self._root, self._scope, parts, self._rhythm.quick, self._rhythm.whole)
            self._poller.look(now)
        self._say(reason)
        if not (same and reason in _TRIED_AGAIN and reason == before):
            # After the tree was entered, and about whatever happened until now: nobody was told of it.
            self._give(whole=True)

    def _start_over(self) -> None:
        self._close()
        self._identity = None
        self._give(whole=True)
        self._trouble(Trouble.ROOT)

    def _watch_what_can_be(self) -> tuple[Reason | None, tuple[bytes, ...]]:
        """Why not everything is watched, and what has to be polled; nothing, when the kernel tells everything."""
        try:
            if mounts.is_shared(self._edge.kind_at(self._root)):
                self._let_go()
                return Reason.SHARED, (b"",)
            if self._feed is None:
                self._feed = self._edge.feed(self._root, self._scope, self._changed, self._trouble, self._is_shared)
                self._feed.start()
            shared = self._feed.enter_all()
        except UsedUp:
            # All of them: what is left belongs to other programs, and half a tree is polled as dearly as a whole one.
            self._let_go()
            return Reason.USED_UP, (b"",)
        except OSError:
            self._let_go()
            return Reason.REFUSED, (b"",)
        return (Reason.SHARED if shared else None), shared

    def _is_shared(self, directory: bytes) -> bool:
        try:
            return mounts.is_shared(self._edge.kind_at(directory))
        except OSError:
            return False

    def _say(self, reason: Reason | None, error: str = "") -> None:
        before, self._degraded = self._degraded, reason
        if reason is not None and reason != before:
            extra = {"error": error} if error else {}
            self._tell(Event.now(Kind.WATCH_DEGRADED, source=self.source, reason=reason, **extra))
        elif reason is None and before is not None:
            self._tell(Event.now(Kind.WATCH_RESTORED, source=self.source))

    def _let_go(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.stop()
            if feed.ident is not None:
                feed.join()

    def _close(self) -> None:
        self._let_go()
        self._poller = None

    def _changed(self) -> None:
        self._give(whole=False)

    def _trouble(self, trouble: Trouble) -> None:
        with self._wake:
            self._troubles.add(trouble)
            self._wake.notify_all()

    def _give(self, whole: bool) -> None:
        with self._wake:
            if self._over:
                return
            whole = whole or bool(self._owed)
            self._owed = None
        try:
            self._hint(whole)
        except Exception:  # whoever listens may be about to end; if not, it hears of it with the next look
            with self._wake:
                self._owed = whole or bool(self._owed)
