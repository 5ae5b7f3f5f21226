"""The daemon with a provider that hangs, for as long as there is `frozen` in the home directory, and a watch over work
that is as short as a test: a folder on a network drive whose server is gone holds a thread in the system for ever.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatkeep.daemon.cli.main import main
from chatkeep.daemon.service import progress
from chatkeep.providers.folder import FolderProvider

FROZEN = Path.home() / "frozen"


def _hanging(verb: Callable[..., Any]) -> Callable[..., Any]:
    def act(*words: object, **more: object) -> Any:
        if FROZEN.exists():
            (Path.home() / "hangs").touch()
            with open(FROZEN, "rb"):  # a pipe that nobody writes into
                raise AssertionError("somebody did")
        return verb(*words, **more)

    return act


if __name__ == "__main__":
    progress.Progress.__init__.__defaults__ = (1.0,)
    for name in ("put", "adopt"):
        setattr(FolderProvider, name, _hanging(getattr(FolderProvider, name)))
    sys.exit(main())
