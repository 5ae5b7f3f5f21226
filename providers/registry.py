"""From a configured provider to an open one.

Every built-in type is written down here; nothing is found by looking around. Others come from installed packages, which
name a `ProviderType` under the entry point group `chatkeep.providers`; the entry's name is the word for `type`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from chatkeep.config.model import ProviderConfig
from chatkeep.config.storages import entry_of
from chatkeep.providers.base import Provider, ProviderError
from chatkeep.providers.memo import Memo, MemoryMemo
from chatkeep.providers.wrap.discreet import Discreet, discreetly


@dataclass(frozen=True, slots=True)
class Opening:
    """What a provider is opened with.

    Attributes:
        name: what it is called in the configuration; the `provider` parameter of its errors.
        options: the keys of its type, an instance of the type's class of options.
        memo: what it may remember on this machine. It belongs to whoever opened it and is closed by them.
        create: make the place itself where it does not exist (for a folder: the folder, in a parent that exists, and
            the mark that tells it from an empty mount point). Set by `init` only.
    """

    name: str
    options: Any
    memo: Memo
    create: bool = False


@dataclass(frozen=True, slots=True)
class ProviderType:
    """A kind of storage.

    Attributes:
        options: a frozen dataclass, each field of it a key of the configuration (`chatkeep.config.key.Key`). For a
            built-in type it stands in `chatkeep.config.storages`.
        open: makes a provider. It asks storage nothing yet, so that the place may be away now and come back, and it
            imports the client library of its service itself, so that other types do not pay for it.
    """

    options: type
    open: Callable[[Opening], Provider]


# The word for `type` > module:name of its ProviderType, imported when a provider of the type is opened: a command that
# talks to a folder does not load the client libraries of every service. The options of each stand beside those of the
# others in chatkeep.config.storages, under the same word.
BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "folder": "chatkeep.providers.folder:TYPE",
        "gdrive": "chatkeep.providers.gdrive:TYPE",
        "icloud": "chatkeep.providers.icloud:TYPE",
        "opendal": "chatkeep.providers.opendal:TYPE",
        "s3": "chatkeep.providers.s3:TYPE",
        "webdav": "chatkeep.providers.webdav:TYPE",
    }
)


def provider_type(word: str) -> ProviderType:
    """The type that a word of the configuration means. Raises KeyError for a word that the loader would refuse."""
    found: object = None
    if word in BUILT_IN:
        module, _, name = BUILT_IN[word].partition(":")
        found = getattr(importlib.import_module(module), name)
    elif (entry := entry_of(word)) is not None:
        found = entry.load()
    if not isinstance(found, ProviderType):
        raise KeyError(word)
    return found


def open_provider(config: ProviderConfig, memo: Memo | None = None, *, create: bool = False) -> Provider:
    """Opens a provider as configured. Storage is not asked anything yet, so it may be away now and come back.

    Behind its errors stands a `Cause` in place of what a library raised: see `wrap.discreet`.

    Args:
        config: as the loader returned it, which also vouches for the type.
        memo: what it remembers on this machine; without one it remembers for as long as it is open. The caller closes
            it, after the provider.
        create: see `Opening`.

    Raises:
        StorageMissing, PermissionRefused, QuotaExceeded: with `create`, when the place cannot be made.
        ClientMissing: the client library of its service is not installed.
        SecretFileRefused: a file that holds a secret of it cannot be used.
    """
    chosen = provider_type(config.type)
    opening = Opening(config.name, config.options, memo if memo is not None else MemoryMemo(), create)
    try:
        with discreetly():
            return Discreet(chosen.open(opening))
    except ProviderError as problem:
        problem.params.setdefault("provider", config.name)  # a secret is read by code that does not know for whom
        raise
