"""What a provider was used for today, and how fast it may be used now: for `status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from chatkeep.config.amounts import UNLIMITED, Rate
from chatkeep.config.limits import Limit, in_force
from chatkeep.daemon.cli.measures import counted, size
from chatkeep.providers.used import day_of, glanced

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig


def rates(limit: Limit, now: float) -> tuple[Rate, Rate]:
    """The rates of sending and of receiving that hold now, by the clock of this machine."""
    local = time.localtime(now)
    return in_force(limit, local.tm_wday, local.tm_hour * 60 + local.tm_min)


def value(provider: ProviderConfig, now: float) -> dict[str, Any]:
    """For `--json`. What cannot be read is null."""
    used, (upload, download) = glanced(provider.memory, now), rates(provider.limit, now)
    today = None
    if used is not None:
        today = {
            "day": day_of(now),
            "requests": used.total,
            "kinds": [{"kind": kind, "requests": count} for kind, count in sorted(used.requests.items())],
            "sent_bytes": used.sent,
            "received_bytes": used.received,
        }
    return {
        "today": today,
        "limit": {
            "upload": None if upload >= UNLIMITED else int(upload),
            "download": None if download >= UNLIMITED else int(download),
            "connections": int(provider.connections),
        },
    }


def lines(provider: ProviderConfig, now: float) -> list[str]:
    """In words. Of a folder only where it has a limit: what it is asked costs nothing."""
    if provider.type == "folder" and provider.limit == Limit():
        return []
    used, (upload, download) = glanced(provider.memory, now), rates(provider.limit, now)
    found = []
    if used is not None and used.total:
        found.append(f"today {counted(used.total, 'request')}, {size(used.sent)} sent, {size(used.received)} received")
    held = [f"{what} {rate}" for what, rate in (("sends", upload), ("receives", download)) if rate < UNLIMITED]
    if held:
        found.append(f"{' and '.join(held)} at most now")
    elif provider.limit.hours:
        found.append("no limit at this hour")
    return found
