"""A folder that somebody else synchronises, while nobody does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from chatkeep.providers import base
from chatkeep.providers.synced import SyncedFolder
from tests.providers.stations import Lines, Place
from tests.providers.stations.folder import Folder, full


class Synced(Folder):
    name = "folder-synced"
    many = 300

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        root = folder / "vault"
        SyncedFolder(self.name, root, create=True).close()

        def opened(_: str | None) -> base.Provider:
            return SyncedFolder(self.name, root)

        yield Place(opened, full=full, lines=lambda _: Lines({"path": str(root), "synced": True}))


STATION = Synced()
