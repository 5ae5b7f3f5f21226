"""From providers that have objects to one that lacks them. Sees no plaintext and no key.

The bytes are copied verbatim. Whoever asks says what is to be copied, in which order, and how each object is told from
damage: by the hash in its name, or by a signature. What no provider has whole is never put, nor what stands on it.
Killed at any call, the next run finds what is there and goes on.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.sync.errors import NowhereWhole
from chatkeep.daemon.sync.upload import Pace
from chatkeep.providers import base
from chatkeep.providers.wrap import Retrying

REST: Final = 60.0  # seconds for which a provider that failed is not asked if another one may have it
_NAP: Final = 0.2  # seconds until a cancelled wait is noticed, at most
_YIELD: Final = 30.0  # seconds that one object waits for uploads at most: a mirror that always waits never ends
_ABOUT_ONE: Final = (base.ObjectNotFound, base.ObjectDamaged, base.ObjectConflict, base.InvalidName)


@dataclass(frozen=True, slots=True)
class Item:
    """One object that is to be at the target.

    Attributes:
        size: as it is known; for showing how far it is.
        limit: bytes that are read of it at most.
        check: raises ChatkeepError unless these are its bytes.
        chain: what stands on what: once one of a chain cannot be put, nothing later of it is. Empty: of none.
        closes: it says what of everything before it lives: put only when all of that is there.
        together: it may be put beside its neighbours that may, in any order.
        preferred: providers that are asked first.
    """

    name: str
    size: int
    limit: int
    check: Callable[[bytes], None]
    chain: bytes = b""
    closes: bool = False
    together: bool = False
    preferred: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Copied:
    """How far a copy is. The totals are those of everything that was to be copied when it began."""

    objects: int
    bytes: int
    objects_total: int
    bytes_total: int


@dataclass(slots=True)
class CopyResult:
    """What a copy did.

    Attributes:
        objects, bytes: put by this run.
        there: objects that were there already.
        problems: why not everything is there.
        findings: copies that were refused although another provider had a whole one; and providers that failed.
        cancelled: it stopped because it was asked to.
    """

    objects: int = 0
    bytes: int = 0
    there: int = 0
    problems: list[ChatkeepError] = field(default_factory=list)
    findings: list[ChatkeepError] = field(default_factory=list)
    cancelled: bool = False


class Sources:
    """Where objects are read from: any one that has it whole suffices. Threads may share it.

    A provider that cannot be asked rests for a while, so that one that is dead costs one time-out and not one for each
    object.

    Args:
        providers: in the order they are asked.
        findings: gets what a provider did that another one made up for; of one that is away, once.
    """

    def __init__(
        self,
        providers: Sequence[base.Provider],
        findings: list[ChatkeepError],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = providers
        self._findings = findings
        self._clock = clock
        self._resting: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def fetch(self, item: Item) -> bytes:
        """The object's bytes, from the first copy that is whole.

        Raises:
            NowhereWhole: every provider was asked, and none has it whole.
            ProviderError: one that may have it cannot be asked, and no other had it.
        """
        reasons: dict[str, str] = {}
        away: base.ProviderError | None = None
        for provider in self._ordered(item):
            try:
                raw = provider.get(item.name, 0, item.limit + 1)
                if len(raw) > item.limit:
                    raise base.ObjectDamaged(provider=provider.name, object=item.name, reason="too-long")
                item.check(raw)
            except base.ObjectNotFound as exc:
                reasons[provider.name] = exc.code  # it may be behind: no finding
            except base.ProviderError as exc:
                if isinstance(exc, _ABOUT_ONE):
                    reasons[provider.name] = exc.code
                    self._tell(exc, provider.name, item.name)
                else:
                    away = away or exc
                    self._rest(exc, provider.name)
            except Cancelled:
                raise
            except ChatkeepError as exc:  # the check refused it
                reasons[provider.name] = exc.code
                self._tell(exc, provider.name, item.name)
            else:
                with self._lock:
                    self._resting.pop(provider.name, None)
                return raw
        if away is not None:
            raise away
        raise NowhereWhole(object=item.name, reasons=reasons)

    def _ordered(self, item: Item) -> list[base.Provider]:
        """Those that rest come last, and are asked all the same: none of the others may have it."""
        now = self._clock()
        with self._lock:
            return sorted(
                self._providers,
                key=lambda one: (now < self._resting.get(one.name, now), one.name not in item.preferred),
            )

    def _rest(self, problem: base.ProviderError, provider: str) -> None:
        with self._lock:
            self._resting[provider] = self._clock() + REST
            if (provider, problem.code) not in self._told:
                self._told.add((provider, problem.code))
                problem.params.setdefault("provider", provider)
                self._findings.append(problem)

    def _tell(self, problem: ChatkeepError, provider: str, name: str) -> None:
        problem.params.setdefault("provider", provider)
        problem.params.setdefault("name", name)
        with self._lock:
            if (provider, name) not in self._told:
                self._told.add((provider, name))
                self._findings.append(problem)


def copy(
    items: Sequence[Item],
    sources: Sequence[base.Provider],
    target: base.Provider,
    *,
    stored: Callable[[Item], None] = lambda _item: None,
    known: Callable[[Item], bool | None] = lambda _item: None,
    on_progress: Callable[[Copied], None] = lambda _progress: None,
    cancelled: Callable[[], bool] = bool,
    busy: Callable[[], bool] = bool,
    pace: Pace | None = None,
) -> CopyResult:
    """Puts what `target` lacks of `items`, in their order.

    An object that cannot be copied stops its chain and no other; storage that fails stops the run. Both are in the
    result, with what was done until then.

    Args:
        stored: told of each item that is there, durably, also if it was before; in the thread that put it.
        known: whether the target is known to have an item, or to lack it; None: it is asked.
        cancelled: asked between objects and while waiting; what is on its way is finished.
        busy: whether something goes on that comes first: uploads. One object waits for that for half a minute at most.
        pace: how hard to try. `sources` and `target` are given without `Retrying`.
    """
    return _Copy(items, sources, target, stored, known, on_progress, cancelled, busy, pace or Pace()).run()


class _Copy:
    """One run."""

    def __init__(
        self,
        items: Sequence[Item],
        sources: Sequence[base.Provider],
        target: base.Provider,
        stored: Callable[[Item], None],
        known: Callable[[Item], bool | None],
        on_progress: Callable[[Copied], None],
        cancelled: Callable[[], bool],
        busy: Callable[[], bool],
        pace: Pace,
    ) -> None:
        self._items = items
        self._target = Retrying(target, pace.patience, self._wait)
        self._stored, self._on_progress = stored, on_progress
        self._known = known
        self._asked_to_stop, self._busy, self._pace = cancelled, busy, pace
        self._result = CopyResult()
        self._sources = Sources([Retrying(one, pace.patience, self._wait) for one in sources], self._result.findings)
        self._lock = threading.Lock()
        self._halted = False
        self._every = True
        self._stopped: set[bytes] = set()
        self._done = self._done_bytes = 0
        self._total = sum(item.size for item in items)

    def run(self) -> CopyResult:
        """Everything in order, until it is done or must stop."""
        with ThreadPoolExecutor(self._pace.threads, thread_name_prefix=f"mirror-{self._target.name}") as pool:
            for together, group in itertools.groupby(self._items, key=lambda item: item.together):
                if together:
                    for begun in _bounded(group, self._pace.threads):
                        # Every one is waited for: nothing that stands on them is put before.
                        for each in [pool.submit(self._one, item) for item in begun]:
                            each.result()
                else:
                    for item in group:
                        self._one(item)
        return self._result

    def _one(self, item: Item) -> None:
        if self._must_stop(item):
            self._every = False
            return
        try:
            known = self._known(item)
            if self._has(item) if known is None else known:
                self._count(item, put=False)
            else:
                self._give_way()
                self._target.put(item.name, self._sources.fetch(item))
                self._count(item, put=True)
            self._stored(item)
        except Cancelled:
            self._every = False
            self._result.cancelled = True
        except base.ProviderError as problem:
            self._fail(item, problem)
        except BaseException:
            self._halted = True  # our own records, or a mistake: nothing more is begun
            raise

    def _has(self, item: Item) -> bool:
        """What is there in its place is compared, if it is small: its name alone says little where it has no hash."""
        try:
            found = self._target.stat(item.name)
        except base.ObjectNotFound:
            return False
        if item.together:
            return found.size == item.size
        try:
            item.check(self._target.get(item.name, 0, item.limit + 1))
        except base.ProviderError:
            raise
        except ChatkeepError as exc:
            raise base.ObjectConflict(provider=self._target.name, object=item.name, reason=exc.code) from exc
        return True

    def _must_stop(self, item: Item) -> bool:
        if self._asked_to_stop():
            self._result.cancelled = True
        with self._lock:
            blocked = item.chain in self._stopped or (item.closes and not self._every)
            return self._halted or self._result.cancelled or blocked

    def _fail(self, item: Item, problem: base.ProviderError) -> None:
        with self._lock:
            self._every = False
            if isinstance(problem, (*_ABOUT_ONE, NowhereWhole)):
                self._stopped |= {item.chain} if item.chain else set()
            elif self._halted:
                return  # several threads met the same outage
            else:
                self._halted = True
            self._result.problems.append(problem)

    def _count(self, item: Item, *, put: bool) -> None:
        with self._lock:
            self._result.objects += put
            self._result.bytes += item.size * put
            self._result.there += not put
            self._done += 1
            self._done_bytes += item.size
            self._on_progress(Copied(self._done, self._done_bytes, len(self._items), self._total))

    def _give_way(self) -> None:
        end = time.monotonic() + _YIELD
        while self._busy() and time.monotonic() < end:
            self._wait(_NAP)

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            if self._asked_to_stop():
                raise Cancelled
            self._pace.sleep(min(seconds, _NAP))
            seconds -= _NAP


def _bounded(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Few at a time: each is held in memory."""
    rest = iter(items)
    while some := list(itertools.islice(rest, most)):
        yield some
