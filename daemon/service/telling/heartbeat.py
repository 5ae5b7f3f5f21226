"""A URL that is asked for as long as all is well: whoever listens there raises the alarm when that ends.

It is the only way of telling that works when this machine does not. So it is asked for only when nothing is wrong that
is worth knowing. Once something is, `/fail` is appended to its path, as healthchecks.io and services like it understand
at once; others do not have that page, which is no matter: silence says it too.
"""

from __future__ import annotations

from typing import Final

from chatkeep.daemon.service.telling.address import Address
from chatkeep.daemon.service.telling.errors import Undelivered
from chatkeep.daemon.service.telling.post import Post

EVERY: Final = 300.0  # seconds between two beats
FIRST: Final = 300.0  # and after the start: a daemon that is started again and again is not well
AGAIN: Final = 60.0  # after one that got lost


class Heartbeat:
    """Beats when told that all is well. To be closed."""

    name: Final = "heartbeat"

    def __init__(self, address: Address, boot: float) -> None:
        self._address = address
        self._post = Post(self.name)
        self._failed = False  # that something is wrong was said
        self._beat_at = boot + FIRST
        self._fail_at = boot

    def wake_at(self, well: bool) -> float:
        """When `beat` has something to do, on the clock `boot`."""
        if well:
            return self._beat_at
        return float("inf") if self._failed else self._fail_at

    async def beat(self, well: bool, boot: float) -> bool:
        """Says how things are, if it is time to; whether it was. Raises Undelivered; it is tried again a minute
        later."""
        if boot < self.wake_at(well):
            return False
        self._beat_at = self._fail_at = boot + AGAIN
        if well:
            await self._post.send(self._address.url, self._address.headers, None)
            self._failed = False
            self._fail_at = boot
        else:
            await self._fail()
        self._beat_at = boot + EVERY
        return True

    async def _fail(self) -> None:
        try:
            await self._post.send(self._address.below("fail"), self._address.headers, None)
        except Undelivered as error:
            if error.params["reason"] != "refused" or error.params.get("status") == 429:
                raise
            # It has no such page. Asking again would not make one.
        self._failed = True

    async def close(self) -> None:
        """Ends every connection."""
        await self._post.close()
