"""Requests and bytes of each day, kept in the memo: for `status`, for `providers test`, and for whoever pays."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from chatkeep.providers import base
from chatkeep.providers.memo import Memo, MemoUnusable
from chatkeep.providers.wrap.counting import Tallying

_LOG: Final = logging.getLogger(__name__)
_KEPT: Final = 31  # days
_DAY: Final = 86_400
_PREFIX: Final = "day:"
LATE: Final = 5.0
"""Seconds after which what was counted is in the memo. A process that is killed forgets no more than that."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a provider was used for. Days are those of UTC.

    Attributes:
        requests: by kind. Real ones where the provider counts them (`base.Usage`), else calls of verbs.
        sent, received: bytes of objects.
    """

    requests: Mapping[str, int] = field(default_factory=dict)
    sent: int = 0
    received: int = 0

    @property
    def total(self) -> int:
        """Requests of all kinds."""
        return sum(self.requests.values())

    def plus(self, other: Used) -> Used:
        """Both together."""
        kinds = Counter(self.requests) + Counter(other.requests)
        return Used(dict(sorted(kinds.items())), self.sent + other.sent, self.received + other.received)

    def encode(self) -> bytes:
        """As it stands in the memo."""
        return json.dumps({"requests": dict(self.requests), "sent": self.sent, "received": self.received}).encode()

    @classmethod
    def decode(cls, raw: bytes | None) -> Self:
        """From what stands in the memo; what cannot be read is nothing, for a count is no reason to stop."""
        try:
            found = json.loads(raw or b"{}")
            kinds = {str(kind): int(count) for kind, count in found.get("requests", {}).items()}
            return cls(kinds, int(found.get("sent", 0)), int(found.get("received", 0)))
        except (ValueError, TypeError, AttributeError):
            return cls()


def day_of(now: float) -> str:
    """The day of UTC that a time in seconds since 1970 falls in: `2026-01-31`."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def used_on(memo: Memo, now: float) -> Used:
    """What was used on the day of `now`, by all processes of this device. Raises MemoUnusable."""
    return Used.decode(memo.get(_PREFIX + day_of(now)))


class Daily(Tallying):
    """Adds what passes to the counts of the day.

    Args:
        inner: what is called: the provider itself, so that every attempt counts.
        memo: where the counts are kept. It is the caller's, and stays open longer than this.
        now: seconds since 1970.
        late: seconds until what was counted is written down.
    """

    def __init__(
        self, inner: base.Provider, memo: Memo, now: Callable[[], float] = time.time, late: float = LATE
    ) -> None:
        super().__init__(inner)
        self._memo, self._now, self._late = memo, now, late
        self._lock = threading.Lock()
        self._pending: dict[str, Used] = {}
        self._seen: Counter[str] = Counter()  # of what the provider counted itself
        self._timer: threading.Timer | None = None
        self._tidied = ""
        self._closed = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self.flush()
        super().close()

    def flush(self) -> None:
        """Writes down what was counted. A memo that cannot be written costs counts and nothing else."""
        with self._lock:
            self._timer = None
            self._take_real()
            pending, self._pending = self._pending, {}
        for day, used in pending.items():
            try:
                self._memo.change(_PREFIX + day, lambda raw, used=used: Used.decode(raw).plus(used).encode())  # type: ignore[misc]
                self._tidy(day)
            except MemoUnusable as problem:
                _LOG.warning("requests-not-counted: %s", problem)

    def _note(self, verb: str = "", *, failed: int = 0, sent: int = 0, received: int = 0) -> None:  # noqa: ARG002
        with self._lock:
            self._take_real()
            counts_itself = isinstance(self.inner, base.Usage)
            self._add(Used({verb: 1} if verb and not counts_itself else {}, sent, received))
            if self._timer is None and not self._closed:
                # By a thread of its own: after the last call of a burst nobody else comes by for hours.
                self._timer = threading.Timer(self._late, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def _take_real(self) -> None:
        if isinstance(self.inner, base.Usage):
            seen = Counter(self.inner.requests())
            self._add(Used(dict(seen - self._seen)))
            self._seen = seen

    def _add(self, used: Used) -> None:
        if used.requests or used.sent or used.received:
            day = day_of(self._now())
            self._pending[day] = self._pending.get(day, Used()).plus(used)

    def _tidy(self, day: str) -> None:
        if day != self._tidied:
            oldest = _PREFIX + day_of(self._now() - _KEPT * _DAY)
            for key, _ in self._memo.items(_PREFIX):
                if key < oldest:
                    self._memo.delete(key)
            self._tidied = day
