"""A folder with everything around it that a configured provider has: wrappers change no promise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from chatkeep.config.amounts import AtOnce, Rate
from chatkeep.config.limits import Limit
from chatkeep.config.model import ProviderConfig
from chatkeep.config.storages import FolderOptions
from chatkeep.providers import base
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.memo import FileMemo
from chatkeep.providers.wrap import Retrying, wrapped
from tests.providers.stations import Place
from tests.providers.stations.folder import Folder, full


class Wrapped(Folder):
    name = "wrapped"
    type: str | None = None

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        root = folder / "vault"
        FolderProvider(self.name, root, create=True).close()
        limit = Limit(upload=Rate(10**10), download=Rate(10**10))
        config = ProviderConfig(self.name, "folder", FolderOptions(root), connections=AtOnce(2), limit=limit)
        with contextlib.closing(FileMemo(folder / "memo.db")) as memo:

            def opened(_: str | None) -> base.Provider:
                return Retrying(wrapped(FolderProvider(self.name, root), config, memo))

            yield Place(opened, full=full)


STATION = Wrapped()
