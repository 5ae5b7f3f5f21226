"""A kind of storage of its own, for tests of commands: a folder that says of itself what a test has it say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import pytest

from chatkeep.config import storages
from chatkeep.config.key import Key
from chatkeep.providers import base, registry
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.registry import Opening, ProviderType


@dataclasses.dataclass(frozen=True, slots=True)
class OddOptions:
    """A folder for tests."""

    path: Annotated[Path, Key("Where it is.", example="/odd")]


class OddStorage(FolderProvider):
    """`seen`: what `probe` says, in place of what is so; `error`: what it raises."""

    seen: dict[str, Any] = {}  # noqa: RUF012  # a test replaces it
    error: base.ProviderError | None = None

    def probe(self) -> base.Capabilities:
        if self.error is not None:
            raise self.error
        return dataclasses.replace(super().probe(), **self.seen)


TYPE = ProviderType(OddOptions, lambda opening: _opened(opening))


def _opened(opening: Opening) -> OddStorage:
    return OddStorage(opening.name, opening.options.path, create=opening.create)


def install(monkeypatch: pytest.MonkeyPatch, **seen: Any) -> None:
    """From now on there is a type `odd`."""
    options = {**storages.BUILT_IN_OPTIONS, "odd": OddOptions}
    monkeypatch.setattr(storages, "BUILT_IN_OPTIONS", MappingProxyType(options))
    monkeypatch.setattr(registry, "BUILT_IN", MappingProxyType({**registry.BUILT_IN, "odd": f"{__name__}:TYPE"}))
    monkeypatch.setattr(OddStorage, "seen", seen)
