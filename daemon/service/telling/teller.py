"""Tells people and programs what happens: the edge that listens to the bus, and drives every way of telling.

It runs in the daemon's loop and never waits there for anything but time: a desktop, a web server, a program or a disk
that does not answer delays its own channel and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from chatkeep.config.amounts import NEVER, Rate
from chatkeep.config.errors import ChatkeepError
from chatkeep.config.limits import in_force
from chatkeep.config.model import Config, ProviderConfig
from chatkeep.daemon.service.events import Bus, Event, Kind, Stream
from chatkeep.daemon.service.moment import now
from chatkeep.daemon.service.telling.deliveries import BROKEN, Deliveries
from chatkeep.daemon.service.telling.errors import AddressRefused, Undelivered
from chatkeep.daemon.service.telling.heartbeat import Heartbeat
from chatkeep.daemon.service.telling.memory import Memory
from chatkeep.daemon.service.telling.metrics import Metrics, write_whole
from chatkeep.daemon.service.telling.notice import Notice, Problem, Said
from chatkeep.daemon.service.telling.threads import in_thread
from chatkeep.daemon.service.telling.troubles import Known, Limits, Troubles
from chatkeep.providers.used import Used, glanced

METRICS_EVERY: Final = 60.0  # seconds; sooner when something happened
METRICS_PACE: Final = 5.0
MEMORY_PACE: Final = 5.0
LEAVING: Final = 1.0  # seconds for the last word to the disk
_LONGEST: Final = 60.0  # the loop's clock stands still while the machine sleeps; time that passed so is noticed by then
SLEPT: Final = 300.0  # nobody looked for so long: the machine slept, whether or not it was said yet
_KEPT: Final = 10_000

Phrase = Callable[[Notice], Said]


class Channel(Protocol):
    """A way of telling."""

    @property
    def name(self) -> str:
        """What it is called in the configuration and in messages."""

    async def deliver(self, notice: Notice, said: Said) -> None:
        """Tells one notice. Raises Undelivered."""

    async def close(self) -> None:
        """Lets go of everything."""


class Teller:
    """Everything about telling, from `run` to its end. All of it in the loop of `run`.

    `phrase` puts a notice into words; `known`: when things last went well.
    """

    def __init__(self, config: Config, bus: Bus, phrase: Phrase, known: Known | None = None) -> None:
        self._config, self._bus, self._phrase = config, bus, phrase
        self._known = Known() if known is None else known
        self._troubles = Troubles(limits_of(config), now(), self._known)
        self._metrics = Metrics()
        self._expect(config)
        self._metrics.know(self._known.snapshots, self._known.acknowledged, self._known.jobs)
        self._memory = Memory(config.state_dir)
        self._waiting: dict[str, Deliveries] = {}
        self._channels: dict[str, tuple[Channel, asyncio.Task[None]]] = {}
        self._heart: Heartbeat | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events = Stream(bus, _KEPT, wake=self._arrived, name="telling")
        self._turned = asyncio.Event()  # something is to be looked at
        self._changed: dict[str, asyncio.Event] = {}  # by who waits for it
        self._looked = now()
        self._unheard: float | None = None  # since when no beat got through
        self._dirty = False
        self._reopen = True

    # What is asked

    def standing(self) -> list[Notice]:
        """What is wrong now and worth knowing, the oldest first."""
        return self._troubles.standing(now())

    def metrics(self) -> str:
        """The figures, as Prometheus reads them."""
        return self._metrics.text(self.standing())

    def reload(self, config: Config) -> None:
        """Goes on with another configuration. Files of addresses are read again."""
        self._config = config
        self._expect(config)
        self._handle(self._troubles.configure(limits_of(config), now()))
        self._reopen = True
        self._turned.set()

    # Its life

    async def run(self) -> None:
        """Tells until it is cancelled, from what happened since it was made; raises nothing else. Once."""
        self._loop = asyncio.get_running_loop()
        works = {"heartbeat": self._beat, "metrics": self._measure, "memory": self._keep}
        beside: list[asyncio.Task[None]] = []
        try:
            self._remember(await in_thread(self._memory.read))
            beside += [self._task(name, work) for name, work in works.items()]
            await self._for_ever("telling", self._turn)
        finally:
            self._events.close()
            await self._end(beside)

    def _arrived(self) -> None:
        """In the thread where something happened."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed by now
                loop.call_soon_threadsafe(self._turned.set)

    async def _for_ever(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """A mistake of ours in one part of it must neither end that part nor be made a thousand times a second."""
        while True:
            try:
                await step()
            except Exception as exc:
                self._slipped(name, exc)
                await asyncio.sleep(_LONGEST)

    def _slipped(self, name: str, error: Exception) -> None:
        self._bus.publish(Event.now(Kind.LIBRARY, library=f"telling.{name}", error=type(error).__name__))

    async def _turn(self) -> None:
        self._turned.clear()
        if self._reopen:
            self._reopen = False
            await self._open()
        looked, self._looked = self._looked, now()
        if self._looked.boot - looked.boot > SLEPT:
            self._troubles.slept(self._looked)
        for event in self._events.take().events:
            self._metrics.take(event)
            self._handle(self._troubles.take(event))
            self._dirty = self._dirty or event.kind is not Kind.UPLOAD_PROGRESS
        self._handle(self._troubles.tick(now()))
        for changed in self._changed.values():
            changed.set()
        await self._until(self._troubles.wake_at, self._turned)

    async def _end(self, beside: Sequence[asyncio.Task[None]]) -> None:
        tasks = [*beside, *(task for _, task in self._channels.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel, _ in self._channels.values():
            await channel.close()
        if self._heart is not None:
            await self._heart.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVING):
                plain = self._plain()
                await in_thread(lambda: self._memory.write(plain))

    async def _until(self, boot: float, turned: asyncio.Event) -> None:
        """Waits for an instant or an event, a minute at most."""
        seconds = min(max(0.0, boot - now().boot), _LONGEST)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await turned.wait()

    def _handle(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self._dirty = True
            self._bus.publish(notice.event())
            for name, deliveries in self._waiting.items():
                if notice.key != (Problem.CHANNEL_BROKEN, name):  # it cannot tell that it cannot tell
                    deliveries.add(notice, now())
                    if name in self._changed:
                        self._changed[name].set()

    # Channels

    async def _open(self) -> None:
        """Channels as the configuration has them now."""
        tell = self._config.tell
        wanted: dict[str, Callable[[], Channel]] = {}
        if tell.desktop:
            wanted["desktop"] = self._desktop
        if tell.webhook_file is not None:
            wanted["webhook"] = lambda path=tell.webhook_file: self._webhook(path)  # type: ignore[misc]
        if tell.command:
            wanted["command"] = lambda: self._command(tell.command)
        for name in list(self._channels):
            if name not in wanted or name != "desktop":  # the one that shows something goes on
                await self._close(name)
        for name, make in wanted.items():
            if name not in self._channels:
                self._begin(name, make)
        for name in [name for name in self._waiting if name not in wanted]:
            del self._waiting[name]
            self._handle(self._troubles.mended(name, now()))
        await self._open_heart(tell.heartbeat_file)

    def _begin(self, name: str, make: Callable[[], Channel]) -> None:
        deliveries = self._waiting.setdefault(name, Deliveries())
        try:
            channel = make()
        except AddressRefused as error:
            self._broken(name, error)
            return
        self._changed[name] = asyncio.Event()
        self._channels[name] = channel, self._task(name, lambda: self._carry(channel, deliveries))
        self._handle(self._troubles.mended(name, now()))

    def _task(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(self._for_ever(name, work))

    async def _close(self, name: str) -> None:
        channel, task = self._channels.pop(name)
        self._changed.pop(name, None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await channel.close()

    async def _open_heart(self, path: Path | None) -> None:
        if self._heart is not None:
            await self._heart.close()
            self._heart = None
        self._handle(self._troubles.mended("heartbeat", now()))
        if path is not None:
            try:
                self._heart = Heartbeat(self._address("heartbeat", path), now().boot)
            except AddressRefused as error:
                self._broken("heartbeat", error)

    def _desktop(self) -> Channel:
        from chatkeep.daemon.service.telling.desktop import Desktop

        return Desktop()

    def _webhook(self, path: Path) -> Channel:
        from chatkeep.daemon.service.telling.webhook import Webhook

        return Webhook(self._address("webhook", path))

    def _command(self, arguments: Sequence[str]) -> Channel:
        from chatkeep.daemon.service.telling.command import Command

        return Command(arguments, self._bus)

    def _address(self, channel: str, path: Path) -> Any:
        from chatkeep.daemon.service.telling.address import Address

        address = Address.load(path)
        if address.clear:
            self._bus.publish(Event.now(Kind.SENT_IN_CLEAR, channel=channel))
        return address

    def _broken(self, name: str, error: ChatkeepError) -> None:
        values = Event.failed(Kind.PROBLEM, now(), error).values
        self._handle(self._troubles.broken(name, now(), values))

    async def _carry(self, channel: Channel, deliveries: Deliveries) -> None:
        """Delivers what is next for one channel, when it is time to."""
        turned = self._changed[channel.name]
        turned.clear()
        notice = deliveries.next(now())
        if notice is None:
            await self._until(deliveries.wake_at, turned)
            return
        self._dirty = True
        try:
            await channel.deliver(notice, self._phrase(notice))
        except Undelivered as error:
            deliveries.failed(now(), error.params)
            if deliveries.broken(now()) and error.params.get("reason") != "absent":
                self._broken(channel.name, error)
        except Exception as exc:
            self._slipped(channel.name, exc)
            deliveries.failed(now(), {"reason": "failed"})
        else:
            deliveries.done(notice)
            self._handle(self._troubles.mended(channel.name, now()))

    # Beside

    async def _beat(self) -> None:
        turned, heart, moment = self._changed.setdefault("heartbeat", asyncio.Event()), self._heart, now()
        turned.clear()
        if heart is None:
            await self._until(float("inf"), turned)
            return
        try:
            if await heart.beat(self._troubles.well(moment), moment.boot):
                self._unheard = None
                self._handle(self._troubles.mended("heartbeat", now()))
        except Undelivered as error:
            self._unheard = moment.boot if self._unheard is None else self._unheard
            # Whoever listens there raises the alarm when it ends, but not when it never began.
            if moment.boot - self._unheard >= BROKEN:
                self._broken("heartbeat", error)
        await self._until(heart.wake_at(self._troubles.well(now())), turned)

    async def _measure(self) -> None:
        turned, path = self._changed.setdefault("metrics", asyncio.Event()), self._config.tell.metrics_file
        turned.clear()
        providers = self._config.providers
        self._metrics.use(*await in_thread(lambda: _usage(providers)))
        if path is not None:
            text = self.metrics()
            try:
                await in_thread(lambda: write_whole(path, text))
            except OSError as exc:
                values = {"reason": "unwritable", "errno": exc.errno or 0}
                self._handle(self._troubles.broken("metrics", now(), values))
            else:
                self._handle(self._troubles.mended("metrics", now()))
        await asyncio.sleep(METRICS_PACE)
        await self._until(now().boot + METRICS_EVERY, turned)

    async def _keep(self) -> None:
        turned = self._changed.setdefault("memory", asyncio.Event())
        turned.clear()
        if self._dirty:
            self._dirty = False
            plain = self._plain()
            await in_thread(lambda: self._memory.write(plain))
            await asyncio.sleep(MEMORY_PACE)
        await self._until(float("inf"), turned)

    def _plain(self) -> dict[str, Any]:
        waiting = {name: deliveries.plain() for name, deliveries in self._waiting.items()}
        return {"troubles": self._troubles.plain(now()), "waiting": waiting}

    def _remember(self, plain: dict[str, Any]) -> None:
        troubles, waiting = plain.get("troubles"), plain.get("waiting")
        if isinstance(troubles, dict):
            self._troubles.remember(troubles, now())
        for name, notices in (waiting if isinstance(waiting, dict) else {}).items():
            if isinstance(notices, list):
                self._waiting[name] = Deliveries()
                self._waiting[name].remember(notices, now())

    def _expect(self, config: Config) -> None:
        limits = limits_of(config)
        self._metrics.expect(limits.sources, limits.providers, {"verify": 0, "drill": 0, "prune": 0})


def _usage(providers: Sequence[ProviderConfig]) -> tuple[dict[str, Used], dict[str, tuple[Rate, Rate]]]:
    """What providers were used for today, as far as it can be read, and the rates that hold now."""
    seconds = time.time()
    local = time.localtime(seconds)
    minute = local.tm_hour * 60 + local.tm_min
    found = {one.name: glanced(one.memory, seconds) for one in providers}
    days = {name: used for name, used in found.items() if used is not None}
    return days, {one.name: in_force(one.limit, local.tm_wday, minute) for one in providers}


def limits_of(config: Config) -> Limits:
    """What a configuration expects."""
    jobs = {"verify": config.jobs.verify.every, "drill": config.jobs.drill.every, "prune": config.jobs.prune.every}
    return Limits(
        sources=[source.name for source in config.sources],
        providers=[provider.name for provider in config.providers],
        compare_every=float(config.watch.compare_every),
        jobs={name: float(every) for name, every in jobs.items() if every < NEVER},
        held_after=float(config.tell.held_after),
        unverified_after=float(config.tell.unverified_after),
    )
