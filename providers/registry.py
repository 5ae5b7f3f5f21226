"""From a configured provider to an open one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from chatkeep.config.model import ProviderConfig
from chatkeep.providers.base import Provider


def _folder(config: ProviderConfig, create: bool) -> Provider:
    from chatkeep.providers.folder import FolderProvider

    return FolderProvider(config.name, config.options.path, create=create)


# Every type is written down here; nothing is found by looking around. An opener imports its file when it is called,
# so that a command that talks to a folder does not load the client libraries of every service.
OPENERS: Final[Mapping[str, Callable[[ProviderConfig, bool], Provider]]] = MappingProxyType({"folder": _folder})


def open_provider(config: ProviderConfig, *, create: bool = False) -> Provider:
    """Opens a provider as configured. Storage is not asked anything yet, so it may be away now and come back.

    Args:
        config: as the loader returned it, which also vouches for the type.
        create: make the place itself where it does not exist (for a folder: the folder, in a parent that exists, and
            the mark that tells it from an empty mount point). Passed by `init` only.

    Raises:
        StorageMissing, PermissionRefused, QuotaExceeded: with `create`, when the place cannot be made.
    """
    return OPENERS[config.type](config, create)
