"""What an error takes along."""

from __future__ import annotations

import gc
import traceback
import types


def held(error: BaseException) -> str:
    """Every text that can be reached from an error, but for the frames of a traceback: what it says, its causes, and
    what they keep."""
    found: list[str] = []
    seen: set[int] = set()
    left: list[object] = [error]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, type | types.ModuleType | types.FrameType | types.FunctionType):
            continue
        seen.add(id(each))
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, bytes | bytearray):
            found.append(each.decode("latin-1"))
        else:
            left += [it for it in gc.get_referents(each) if not isinstance(it, types.TracebackType)]
    found += traceback.format_exception(error)
    return "\n".join(found)
