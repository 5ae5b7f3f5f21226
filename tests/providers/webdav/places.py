"""Where a test puts its vault on a WebDAV server, and what lies there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from chatkeep.providers.webdav import WebdavProvider
from tests.support import apache, wsgidav_server

NUMBERS = itertools.count()
BODY = bytes(range(256)) * 2000

Open = Callable[..., WebdavProvider]


def fresh(server: apache.Apache | wsgidav_server.Wsgidav) -> str:
    return f"{server.url}/vault{next(NUMBERS)}"


def folder_of(server: apache.Apache | wsgidav_server.Wsgidav, url: str) -> Path:
    return server.room / "files" / url.rpartition("/")[2]


def files_in(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
