"""The session's rules, applied: sessions are found, watched and ended, and uploads held, as they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.running import SessionConfig
from chatkeep.daemon.service.errors import ReaderFailed
from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.logind import LoginSignal
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.running.session_watch import SessionWatch
from chatkeep.daemon.service.running.workers import Workers
from chatkeep.daemon.service.session_rules import Input, Opened, Order, SessionRules, Signal
from chatkeep.daemon.service.wire import About

_SIGNALS: Final = {
    LoginSignal.SUSPEND: Signal.SUSPEND,
    LoginSignal.RESUME: Signal.RESUME,
    LoginSignal.SCREEN_LOCK: Signal.SCREEN_LOCK,
    LoginSignal.LOGOUT: Signal.LOGOUT,
    LoginSignal.IDLE: Signal.IDLE,
}
LOOK_EVERY: Final = 15.0
"""Seconds at least between two looks for a session that nobody told of."""


class Memory(Protocol):
    """Where it is remembered that uploads are open, until the login session ends."""

    def read(self) -> bool:
        """Whether they are."""

    def write(self) -> None:
        """They are."""

    def forget(self) -> None:
        """They are not."""


class Gatekeeper:
    """For the thread of the loop.

    Args:
        changed: called when `uploads` or `session` changed.
        rearm: called when the rules may want to be woken at another time.
        hold: has suspending wait for us, or go on.
        directory: of the sockets of sessions; None for every one that this user's may be in.
    """

    def __init__(
        self,
        config: SessionConfig,
        vault_id: bytes,
        memory: Memory,
        workers: Workers,
        bus: Bus,
        changed: Callable[[], None],
        rearm: Callable[[], None],
        hold: Callable[[bool], None],
        directory: Path | None = None,
    ) -> None:
        self._config = config
        self._memory, self._workers, self._bus = memory, workers, bus
        self._changed, self._rearm, self._hold = changed, rearm, hold
        self._watch = SessionWatch(vault_id, workers, lambda: self.hear(Signal.GONE), directory)
        self.rules: Final = SessionRules(config, remembered=memory.read())
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[bool] | None = None
        self._looked = 0.0
        self._told = (self.rules.uploads, self.rules.session)
        self._seen = False

    @property
    def about(self) -> About | None:
        """The session that there is, as it described itself."""
        return self._watch.about

    @property
    def readable(self) -> bool:
        """Whether somebody holds keys that read, as far as is known. Also while that one is being ended: an end can
        fail, and nobody is told that the vault is locked before it is."""
        return self.rules.session or (self.rules.ending and self._watch.about is not None)

    def reload(self, config: SessionConfig) -> None:
        """Goes by another configuration."""
        self._config = config
        self.rules.reload(config)
        self._settle()

    def login(self, signal: LoginSignal) -> None:
        """What logind told."""
        if signal in _SIGNALS:
            self.hear(_SIGNALS[signal])

    def hear(self, said: Input) -> None:
        """Something happened."""
        for order in self.rules.take(said, now().boot):
            match order:
                case Order.END:
                    self._ending = asyncio.ensure_future(self._watch.end())
                    self._begin(self._ended(self._ending))
                case Order.LOOK:
                    self._begin(self._look())
                case Order.REMEMBER:
                    self._memory.write()
                case Order.FORGET:
                    self._memory.forget()
        self._settle()
        self._rearm()

    async def begin(self) -> None:
        """Finds the session that there may be since before the daemon was started."""
        await self._look()

    def tick(self) -> None:
        """Time passed."""
        self.hear(Signal.TICK)
        if not self.rules.session and now().boot - self._looked >= LOOK_EVERY:
            self._begin(self._look())

    async def look(self) -> bool:
        """Looks for a session, and adopts it; whether there is one. Raises SessionError."""
        self._looked = now().boot
        try:
            found = await self._watch.look()
        except OSError as exc:
            raise ReaderFailed(reason="socket", errno=exc.errno) from exc
        about = self._watch.about
        if found and about is not None:
            self.hear(Opened(about.facts, about.facts.until / 1e9))
        return found

    async def lock(self) -> bool:
        """Ends the session, as a command wants it; whether there was one. Raises SessionError."""
        self.hear(Signal.LOCK_COMMAND)
        try:
            return await asyncio.shield(self._ending) if self._ending is not None else False
        except OSError as exc:
            raise ReaderFailed(reason="socket", errno=exc.errno) from exc

    def close(self) -> None:
        """A session that there is goes on."""
        self._watch.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        try:
            await self.look()
        except ChatkeepError as exc:
            self._bus.publish(Event.failed(Kind.PROBLEM, now(), exc, problem="session", subject="session"))

    async def _ended(self, ending: asyncio.Future[bool]) -> None:
        try:
            await asyncio.shield(ending)
        except (ChatkeepError, OSError):
            self.hear(Signal.END_FAILED)  # tried again; whoever asked is told
        else:
            self.hear(Signal.GONE)

    def _settle(self) -> None:
        """Tells what changed."""
        rules = self.rules
        # Suspending waits as long as there is something to be ended before.
        self._hold((rules.session and Signal.SUSPEND.value in self._config.lock_on) or rules.ending)
        seen, self._seen = self._seen, self.readable
        if self._seen and not seen:
            self._bus.publish(Event.now(Kind.UNLOCKED))
        elif seen and not self._seen:
            self._bus.publish(Event.now(Kind.LOCKED, reason=rules.reason))
        told, self._told = self._told, (rules.uploads, rules.session)
        if told != self._told or seen != self._seen:
            self._changed()
