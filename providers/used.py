"""What storage was used for on a day, as the memo of a provider keeps it. Written by `wrap.Daily`.

Apart from it, so that whoever only shows the counts loads nothing else.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from chatkeep.providers.memo import Memo

DAYS: Final = "day:"
"""What the keys of the memo begin with."""
_PATIENCE: Final = 2.0  # seconds


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
    return Used.decode(memo.get(DAYS + day_of(now)))


def glanced(file: Path | None, now: float) -> Used | None:
    """As `used_on`, of a memo in a file that somebody else writes, without opening it for that; nothing is made or
    mended. None: it cannot be read now."""
    if file is None or not file.exists():
        return Used()
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)
        with contextlib.closing(connection):
            found = connection.execute("SELECT value FROM memo WHERE key=?", (DAYS + day_of(now),)).fetchone()
    except sqlite3.Error:
        return None
    return Used.decode(None if found is None else bytes(found[0]))
