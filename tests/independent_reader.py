"""The reader that shares no code with the product, as users get it: the program that `chatkeep reader` prints."""

from __future__ import annotations

import linecache
import sys
from types import ModuleType
from typing import Any

from chatkeep.daemon.cli.joining import joined

TEXT = joined()
NAME = "chatkeep-reader.py"


def _loaded() -> ModuleType:
    module = ModuleType("chatkeep_reader")
    sys.modules[module.__name__] = module  # dataclasses look there for what their fields are
    linecache.cache[NAME] = (len(TEXT), None, TEXT.splitlines(keepends=True), NAME)  # for tracebacks
    exec(compile(TEXT, NAME, "exec"), module.__dict__)  # noqa: S102 - this tree's own text
    return module


PROGRAM = _loaded()


def __getattr__(name: str) -> Any:
    return getattr(PROGRAM, name)
