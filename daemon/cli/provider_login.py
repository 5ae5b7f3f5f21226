"""Logging in to a storage that wants a person for it: the browser, the address, what comes back, what is said."""

from __future__ import annotations

import contextlib
import html
import importlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.cli.measures import duration
from chatkeep.daemon.cli.output import Output, paragraph

if TYPE_CHECKING:
    from chatkeep.providers.memo import Memo

PATIENCE: Final = 600
"""Seconds that a person has, if nothing else is said."""

# The type > where its login is. All others have a key, a password, or nothing.
LOGINS: Final = {"gdrive": "chatkeep.providers.google_login:login"}
_ELSEWHERE: Final = (
    "On a machine without a browser, or over SSH: open the address on another one. In the end the browser there says "
    "that it cannot reach 127.0.0.1. Copy the whole address of that page, paste it here, and press Enter."
)
_NOT_THIS: Final = (
    "That is not the answer. It is the whole address of the page at the end, and begins with http://127.0.0.1"
)


def is_needed(config: ProviderConfig) -> bool:
    """Whether the type of a provider has a login at all."""
    return config.type in LOGINS


def log_in(out: Output, config: ProviderConfig, *, browser: bool = True, patience: float = PATIENCE) -> None:
    """Has the person log in, in the browser or with an address that is pasted. Raises ProviderError, MemoUnusable."""
    from chatkeep.providers.registry import Opening

    module, _, name = LOGINS[config.type].partition(":")
    login = getattr(importlib.import_module(module), name)
    with contextlib.ExitStack() as stack:
        memo = stack.enter_context(contextlib.closing(_memory(config)))
        opened = stack.enter_context(_browsers(wanted=browser))

        def say(what: str, text: str) -> None:
            if what == "open":
                _show(out, text, patience)
            else:
                out.note("\n".join(paragraph(_NOT_THIS)))

        login(Opening(config.name, config.options, memo), opened, say, pasted=_pasted(), patience=patience)


def _show(out: Output, address: str, patience: float) -> None:
    out.note("Open this address in a browser, and agree there:\n")
    out.note(out.remark(address, "head"))  # whole, on however many lines: it is copied
    out.note("\n" + "\n".join(paragraph(f"{_ELSEWHERE}\nIt is waited for {duration(patience)}. Ctrl-C ends it.")))


def _memory(config: ProviderConfig) -> Memo:
    from chatkeep.providers.memo import FileMemo, MemoryMemo

    return MemoryMemo() if config.memory is None else FileMemo(config.memory)


@contextlib.contextmanager
def _browsers(*, wanted: bool) -> Iterator[Callable[[str], object]]:
    """What opens an address in the browser of whoever sits here. The address is in a file, not in an argument, which
    every user of the machine could read."""
    from chatkeep.daemon.control.ceremony.opening import Redirect, has_desktop, open_file

    with contextlib.ExitStack() as stack:

        def show(address: str) -> object:
            if not wanted or not has_desktop(os.environ):
                return False
            redirect = Redirect(html.escape(address), os.environ)
            stack.callback(redirect.remove)
            return open_file(redirect.path, os.environ)

        yield show


def _pasted() -> Callable[[], str | None]:
    """What was typed or piped since it was asked for the last time, a line at a time; never waits."""
    held, ended = bytearray(), not _is_open(sys.stdin)

    def read() -> str | None:
        nonlocal ended
        if not ended and b"\n" not in held and select.select([sys.stdin], [], [], 0)[0]:
            part = os.read(sys.stdin.fileno(), 4096)
            held.extend(part or b"\n")
            ended = not part
        line, newline, rest = held.partition(b"\n")
        if not newline:
            return None
        held[:] = rest
        return line.decode("utf-8", "replace").strip() or None

    return read


def _is_open(stream: Any) -> bool:
    try:
        return stream is not None and not stream.closed and stream.fileno() >= 0
    except (ValueError, OSError):
        return False
