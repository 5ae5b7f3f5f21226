"""`chatkeep`, with every call of a provider counted: `python -m bench.counted FILE WORDS...` adds a byte to FILE for
each.

A file, because the daemon is another process than the one that wants to know.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

from chatkeep.daemon.cli.main import main as chatkeep
from chatkeep.providers import registry
from chatkeep.providers.base import Provider

_VERBS = frozenset({"put", "adopt", "get", "stat", "list", "delete", "probe"})


class Counted:
    """A provider whose calls are counted, whatever else it can do."""

    def __init__(self, inner: Provider, calls: Path) -> None:
        self._inner, self._calls = inner, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in _VERBS:
            return found

        def counted(*arguments: Any, **named: Any) -> Any:
            with open(self._calls, "ab") as file:
                file.write(b".")
            return found(*arguments, **named)

        return counted


def main() -> int:
    """Runs the command, and returns its exit code."""
    calls = Path(sys.argv.pop(1))
    calls.touch()
    opened = registry.open_provider

    def open_counted(*config: Any, **how: Any) -> Any:
        return Counted(opened(*config, **how), calls)

    with mock.patch.object(registry, "open_provider", open_counted):
        return chatkeep()


if __name__ == "__main__":
    sys.exit(main())
