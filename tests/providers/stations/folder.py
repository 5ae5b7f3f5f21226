"""A folder on a disk of this machine."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from chatkeep.providers import base, durable
from chatkeep.providers.folder import FolderProvider
from tests.providers.stations import Fired, Lack, Lines, Place, Station


class Folder(Station):
    name = "folder"
    type: str | None = "folder"
    http = False
    many = 600  # more than two in each of the 256 shards
    lacks = frozenset({Lack.NAME_IN_NAME, Lack.CLOCK, Lack.STALE_LISTS, Lack.CREDENTIALS, Lack.PUT_ONLY})

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        root = folder / "vault"
        FolderProvider(self.name, root, create=True).close()

        def opened(_: str | None) -> base.Provider:
            return FolderProvider(self.name, root)

        yield Place(opened, full=full, lines=lambda _: Lines({"path": str(root)}))


class _FullDisk:
    """`os`, on a disk that takes no byte more."""

    def __init__(self) -> None:
        self.fired = 0

    def __getattr__(self, name: str) -> Any:
        return self._write if name == "write" else getattr(os, name)

    def _write(self, *_: object) -> int:
        self.fired += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def full() -> Iterator[Fired]:
    disk = _FullDisk()
    with mock.patch.object(durable, "os", disk):
        yield lambda: disk.fired


STATION = Folder()
