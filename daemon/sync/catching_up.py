"""A provider that was left behind is brought up from one that is not, and then gets what waits, as any other does.

What it lacks left the outbox, so it comes from storage; its name and this device's rows say what its bytes are. In the
order in which it was made: whoever sees a manifest finds everything it stands on. Until nothing is lacking, nothing is
uploaded there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from chatkeep.daemon.state import Left, State
from chatkeep.daemon.state.pruning import CHECKPOINTS
from chatkeep.daemon.sync.mirror import Copied, Item, copy
from chatkeep.daemon.sync.upload import Pace, Progress, UploadResult, upload
from chatkeep.providers import base

ROUNDS: Final = 100
"""How often it is looked anew for what left the outbox meanwhile. Each round is shorter than the one before, unless
more is made than can be sent: the next attempt goes on then."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who watches, and what comes first.

    Attributes:
        on_progress: as of `upload`.
        cancelled: as of `upload`.
        busy: whether an upload runs that a mirror gives way to.
    """

    on_progress: Callable[[Progress], None] = lambda _progress: None
    cancelled: Callable[[], bool] = lambda: False
    busy: Callable[[], bool] = lambda: False


def send(
    state: State,
    provider: base.Provider,
    every: Sequence[base.Provider],
    watch: Watch | None = None,
    pace: Pace | None = None,
) -> UploadResult:
    """Sends what `provider` lacks: from `every` other one what left the outbox, if it was left behind, and then what is
    in the outbox. The result is as of `upload`.

    Raises:
        StateError: receipts cannot be read or recorded.
    """
    watch, pace = watch or Watch(), pace or Pace()
    caught = catch_up(state, provider, [one for one in every if one.name != provider.name], watch, pace)
    if caught.problems or caught.cancelled or provider.name in state.mirrors.behind():
        return caught
    sent = upload(state.outbox, provider, watch.on_progress, watch.cancelled, pace)
    return replace(
        sent,
        objects=caught.objects + sent.objects,
        bytes=caught.bytes + sent.bytes,
        frontiers={**caught.frontiers, **sent.frontiers},
    )


def send_all(
    state: State,
    providers: Sequence[base.Provider],
    every: Sequence[base.Provider],
    watch: Watch | None = None,
    pace: Pace | None = None,
) -> list[UploadResult]:
    """`send` to each of `providers`, side by side; the results in their order. Those that were left behind come last:
    what they lack is read from the others."""
    if not providers:
        return []
    behind = state.mirrors.behind()
    results: dict[str, UploadResult] = {}
    for some in ([one for one in providers if (one.name in behind) is late] for late in (False, True)):
        if some:
            with ThreadPoolExecutor(len(some), thread_name_prefix="upload") as pool:
                started = [pool.submit(send, state, each, every, watch, pace) for each in some]
            results |= {one.name: begun.result() for one, begun in zip(some, started, strict=True)}
    return [results[one.name] for one in providers]


def catch_up(
    state: State,
    provider: base.Provider,
    others: Sequence[base.Provider],
    watch: Watch | None = None,
    pace: Pace | None = None,
) -> UploadResult:
    """Copies from `others` what left the outbox and `provider` lacks, if it was left behind; it is not any more then.

    Raises:
        StateError: receipts cannot be read or recorded.
    """
    watch, pace = watch or Watch(), pace or Pace()
    total = UploadResult(provider.name, 0, 0, {}, (), cancelled=False)
    if provider.name not in state.mirrors.behind():
        return total
    for _ in range(ROUNDS):
        with state.mirrors.turns:
            if state.mirrors.caught_up(provider.name):
                return total
        result = _round(state, provider, others, watch, pace)
        total = replace(
            result,
            objects=total.objects + result.objects,
            bytes=total.bytes + result.bytes,
            frontiers={**total.frontiers, **result.frontiers},
        )
        if result.problems or result.cancelled:
            code = result.problems[0].code if result.problems else None
            if code is not None:
                state.outbox.note_upload(provider.name, pace.now_ns(), code)
            return total
    return total


def _round(
    state: State, provider: base.Provider, others: Sequence[base.Provider], watch: Watch, pace: Pace
) -> UploadResult:
    lacking = state.mirrors.lacking(provider.name)
    holders = state.mirrors.holders(provider.name)
    rows = {row.name: row for row in lacking}
    frontiers: dict[bytes, int] = {}

    def stored(item: Item) -> None:
        state.mirrors.arrived(item.name, provider.name, pace.now_ns())
        row = rows[item.name]
        if row.is_manifest:
            frontiers[row.stream] = row.seq

    def progress(at: Copied) -> None:
        watch.on_progress(Progress(provider.name, at.objects, at.bytes, at.objects_total, at.bytes_total))

    result = copy(
        [_item(row, holders.get(row.name, frozenset())) for row in lacking],
        others,
        provider,
        stored=stored,
        on_progress=progress,
        cancelled=watch.cancelled,
        busy=watch.busy,
        pace=pace,
    )
    return UploadResult(
        provider.name, result.objects, result.bytes, frontiers, tuple(result.problems), cancelled=result.cancelled
    )


def _item(row: Left, holders: frozenset[str]) -> Item:
    def check(raw: bytes) -> None:
        if len(raw) != row.size or hashlib.sha256(raw).digest() != row.sha256:
            raise base.ObjectDamaged(object=row.name, expected=row.size, found=len(raw))

    return Item(
        row.name,
        row.size,
        row.size,
        check,
        chain=row.stream,
        closes=row.stream == CHECKPOINTS,
        together=not row.is_manifest,
        preferred=holders,
    )
