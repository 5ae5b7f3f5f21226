"""The provider of `examples/sqlite`, as a third party would test its own."""

from __future__ import annotations

import contextlib
import importlib.util
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.registry import Opening
from tests.providers.stations import Fired, Lack, Place, Station

SOURCE = Path(__file__).parents[3] / "examples/sqlite/chatkeep_sqlite.py"


def _imported() -> Any:
    """The module, from where it stands: here it is tried, not installed."""
    spec = importlib.util.spec_from_file_location("chatkeep_sqlite", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the names in annotations
    spec.loader.exec_module(module)
    return module


EXAMPLE = _imported()


class Example(Station):
    name = "example"
    http = False
    lacks = frozenset({Lack.CLOCK, Lack.STALE_LISTS, Lack.CREDENTIALS, Lack.PUT_ONLY})

    @contextlib.contextmanager
    def place(self, running: None, folder: Path) -> Iterator[Place]:
        options = EXAMPLE.SqliteOptions(folder / "vault.db")
        EXAMPLE.TYPE.open(Opening(self.name, options, MemoryMemo(), create=True)).close()

        @contextlib.contextmanager
        def full() -> Iterator[Fired]:
            """No page more than there are: what SQLite says then, it says of a full disk too."""
            real, fired = sqlite3.connect, []

            def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
                connection: sqlite3.Connection = real(*arguments, **named)
                pages = connection.execute("PRAGMA page_count").fetchone()[0]
                fired.append(connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0])
                return connection

            sqlite3.connect = connect  # type: ignore[assignment]
            try:
                yield lambda: len(fired)
            finally:
                sqlite3.connect = real

        yield Place(lambda _: EXAMPLE.TYPE.open(Opening(self.name, options, MemoryMemo())), full=full)


STATION = Example()
