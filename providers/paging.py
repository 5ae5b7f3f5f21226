"""Listings that come in pages end, whatever the other side says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from chatkeep.providers import base

BARREN: Final = 100
"""Most pages in a row without anything new. Some are right: services pass over what was deleted, a page at a time."""


class Pages:
    """Tells a listing that goes on from one that goes round in a circle, by what it brings. Not by the marks that lead
    from page to page: one may serve again, and one that is new each time may lead nowhere.

    Args:
        provider: the configured name, for errors.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._seen: set[str] = set()
        self._barren = 0

    def new(self, keys: Iterable[str]) -> list[str]:
        """Those of a page that no page before had, in its order. `keys`: everything on it, what is somebody else's too.

        Raises:
            Unavailable: more than `BARREN` pages in a row had none.
        """
        fresh = [key for key in dict.fromkeys(keys) if key not in self._seen]
        self._seen.update(fresh)
        self._barren = 0 if fresh else self._barren + 1
        if self._barren > BARREN:
            raise base.Unavailable(provider=self._provider, reason="circle")
        return fresh
