"""How far everything is, as values: what a daemon says of its work without asking storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatkeep.daemon.service.standing import Fault

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.state import State


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """One source. Times are UNIX nanoseconds.

    Attributes:
        seq, taken_ns, complete: of the newest snapshot: its number (0: there is none), when it was taken, whether
            nothing was pending after it.
        looked_ns: when a backup last ended well, also one that found nothing.
        fault: why the last one failed.
    """

    name: str
    seq: int
    taken_ns: int | None
    complete: bool
    looked_ns: int | None
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """One provider. Times are UNIX nanoseconds.

    Attributes:
        objects, waiting: that it lacks; the second in bytes.
        frontiers: by source, the number of the newest snapshot up to which it has everything.
        acknowledged_ns: when the newest snapshot was taken that it has; None: it has none.
        behind_ns: when the oldest snapshot was taken that it lacks; None: it lacks none. The lag is now less this.
        sent_ns: when an upload last ended well.
        fault: why the last one failed.
        left_behind_ns: since when it is not waited for: what it lacks left the outbox, and comes from another provider.
            None: it is waited for.
    """

    name: str
    required: bool
    objects: int
    waiting: int
    frontiers: Mapping[str, int]
    acknowledged_ns: int | None
    behind_ns: int | None
    sent_ns: int | None
    fault: Fault | None
    left_behind_ns: int | None = None


@dataclass(frozen=True, slots=True)
class EngineStanding:
    """All of it. `waiting`: bytes in the outbox; `limit`: more than this, and no snapshot begins; `epoch`: the one that
    this device seals to."""

    sources: tuple[SourceFigures, ...]
    providers: tuple[ProviderFigures, ...]
    waiting: int
    limit: int
    epoch: int

    @property
    def full(self) -> bool:
        """Whether nothing is captured until some of it is sent."""
        return self.waiting > self.limit


def read(config: Config, state: State, epoch: int) -> EngineStanding:
    """The figures of everything that is configured. Raises StateError."""
    newest, notes, uploads = state.figures.sources(), state.figures.backups(), state.outbox.uploads()
    sources = []
    for source in config.sources:
        last, note = newest.get(source.name), notes.get(source.name)
        fault = Fault(note.error, {"source": source.name}, note.error_at) if note and note.error else None
        looked = note.last_success if note else None
        if last is None:
            sources.append(SourceFigures(source.name, 0, None, False, looked, fault))
        else:
            sources.append(SourceFigures(source.name, last.seq, last.clock, last.complete, looked, fault))
    providers = []
    for provider in config.providers:
        lag = state.figures.lag(provider.name)
        sent, error, at = uploads.get(provider.name, (None, None, None))
        providers.append(
            ProviderFigures(
                provider.name,
                provider.required,
                lag.objects,
                lag.waiting,
                {name: lag.frontiers.get(last.stream, 0) for name, last in newest.items()},
                lag.newest,
                lag.oldest,
                sent,
                Fault(error, {"provider": provider.name}, at) if error else None,
                lag.left_behind,
            )
        )
    waiting = state.outbox.waiting()[1]
    return EngineStanding(tuple(sources), tuple(providers), waiting, int(config.outbox.limit), epoch)
