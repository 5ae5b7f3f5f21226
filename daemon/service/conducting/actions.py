"""What the conductor wants done. Each is begun at once, and its end is told as an input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from chatkeep.daemon.service.events import Kind


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Take a snapshot of a source."""

    source: str


@dataclass(frozen=True, slots=True)
class Upload:
    """Send what waits to a provider."""

    provider: str


@dataclass(frozen=True, slots=True)
class StopUpload:
    """End the upload to a provider at its next safe point."""

    provider: str


@dataclass(frozen=True, slots=True)
class RunJob:
    """Run a job."""

    name: str


@dataclass(frozen=True, slots=True)
class StopWork:
    """End whatever uses the state directory at its next safe point."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Nothing uses the state directory any more: close it, and let the command have it."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell whoever listens."""

    kind: Kind
    values: Mapping[str, str | int] = field(default_factory=dict)


Action: TypeAlias = TakeSnapshot | Upload | StopUpload | RunJob | StopWork | HandOver | Publish
