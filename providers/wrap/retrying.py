"""Trying again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import tenacity

from chatkeep.providers import base
from chatkeep.providers.wrap.around import Around
from chatkeep.providers.wrap.limited import Limited
from chatkeep.providers.wrap.patience import Patience

T = TypeVar("T")

_GIVE_UP: Final = -1.0  # in place of seconds, between the two questions that tenacity asks


class Retrying(Around):
    """Repeats calls whose error says that the same call may succeed later; raises the last error when it gives up.

    Sound because every verb is idempotent. Only the disposition decides: what needs a person is not repeated at it.

    Args:
        inner: what is called.
        patience: bounds.
        sleep: waits that many seconds. It may raise (`Cancelled`, say) to end the wait and the call. Where `inner`
            keeps to a rate, it waits in the same way.
        chance: source of jitter, in [0, 1).
    """

    def __init__(
        self,
        inner: base.Provider,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(inner.waiting(sleep) if isinstance(inner, Limited) else inner)
        self._patience = patience or Patience()
        self._sleep = sleep
        self._chance = chance
        self._attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(base.ProviderError),
            wait=self._wait,
            stop=lambda state: state.upcoming_sleep < 0,
            sleep=sleep,
            reraise=True,
        )

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        return self._listing(prefix)

    def _call(self, verb: str, call: Callable[[], T]) -> T:  # noqa: ARG002  # all are idempotent
        return self._attempts(call)  # several threads at once: what it counts, it counts for each

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        assert isinstance(error, base.ProviderError)
        wait = self._patience.wait(state.attempt_number, error, self._chance())
        return _GIVE_UP if wait is None else wait

    def _listing(self, prefix: str) -> Iterator[base.ObjectStat]:
        """Begins anew after an error and leaves out what was already given: a position in a listing is not portable,
        and giving up what was listed would make a listing of many pages never end on a poor line."""
        given: set[str] = set()
        attempt = 1
        while True:
            try:
                for found in self.inner.list(prefix):
                    if found.name not in given:
                        given.add(found.name)
                        attempt = 1  # it moves: the bound is for a listing that does not
                        yield found
                return
            except base.ProviderError as error:
                wait = self._patience.wait(attempt, error, self._chance())
                if wait is None:
                    raise
                self._sleep(wait)
            attempt += 1
