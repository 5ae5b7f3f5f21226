"""Requests and bytes of each day, kept in the memo: for `status`, for `providers test`, and for whoever pays."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from chatkeep.providers import base
from chatkeep.providers.memo import Memo, MemoUnusable
from chatkeep.providers.used import DAYS, Used, day_of
from chatkeep.providers.wrap.around import Around, Pace

T = TypeVar("T")

_LOG: Final = logging.getLogger(__name__)
_KEPT: Final = 31  # days
_DAY: Final = 86_400
LATE: Final = 5.0
"""Seconds after which what was counted is in the memo. A process that is killed forgets no more than that."""


class Daily(Around):
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
        self._usage = inner if isinstance(inner, base.Usage) else None  # once: asking takes longer than counting
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._pending: dict[str, Used] = {}
        self._seen: Counter[str] = Counter()  # of what the provider counted itself
        self._timer: threading.Timer | None = None
        self._tidied = ""
        self._closed = False

    def put(self, name: str, body: bytes) -> None:
        super().put(name, body)
        self._note(sent=len(body))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        body = super().get(name, offset, length)
        self._note(received=len(body))
        return body

    def _put_paced(self, name: str, body: bytes, pace: Pace) -> None:
        super()._put_paced(name, body, pace)
        self._note(sent=len(body))

    def _adopt(self, name: str, path: Path) -> bool:
        size = os.stat(path).st_size  # before: its name may go as soon as storage has it
        taken = super()._adopt(name, path)
        if taken:
            self._note(sent=size)
        return taken

    def _call(self, verb: str, call: Callable[[], T]) -> T:
        self._note(verb)
        return call()

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
        with self._writing:  # whoever closes waits for the one that writes: the memo is closed next
            with self._lock:
                self._timer = None
                self._take_real()
                pending, self._pending = self._pending, {}
            for day, used in pending.items():
                try:
                    self._write(day, used)
                except MemoUnusable as problem:
                    _LOG.warning("requests-not-counted: %s", problem)

    def _write(self, day: str, used: Used) -> None:
        self._memo.change(DAYS + day, lambda raw: Used.decode(raw).plus(used).encode())
        self._tidy(day)

    def _note(self, verb: str = "", *, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self._take_real()
            self._add(Used({verb: 1} if verb and self._usage is None else {}, sent, received))
            if self._timer is None and not self._closed:
                # By a thread of its own: after the last call of a burst nobody else comes by for hours.
                self._timer = threading.Timer(self._late, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def _take_real(self) -> None:
        if self._usage is not None:
            seen = Counter(self._usage.requests())
            self._add(Used(dict(seen - self._seen)))
            self._seen = seen

    def _add(self, used: Used) -> None:
        if used.requests or used.sent or used.received:
            day = day_of(self._now())
            self._pending[day] = self._pending.get(day, Used()).plus(used)

    def _tidy(self, day: str) -> None:
        if day != self._tidied:
            oldest = DAYS + day_of(self._now() - _KEPT * _DAY)
            for key, _ in self._memo.items(DAYS):
                if key < oldest:
                    self._memo.delete(key)
            self._tidied = day
