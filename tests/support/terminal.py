"""A command at a terminal of its own, and somebody who types at it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

DEADLINE = 60.0  # seconds; a child that asks answers within one
# What is typed, or how it follows from what was shown so far; None: nothing is, something else is done meanwhile.
Answer = str | Callable[[str], str | None]

# Opening it makes it the terminal of the new session, so that Ctrl-C typed there is a signal.
_TAKE_IT = "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"


def converse(
    argv: Sequence[str], talk: Sequence[tuple[str, Answer]], environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Runs a command; types each answer when its question has appeared. Returns its exit code and what was shown."""
    outer, inner = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", _TAKE_IT, *argv],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    os.close(inner)
    try:
        shown = ""
        for question, answer in talk:
            shown += _until(outer, question)
            typed = answer if isinstance(answer, str) else answer(shown)
            if typed is not None:
                os.write(outer, typed.encode() + (b"" if typed == "\x03" else b"\r"))
        shown += _until(outer, None, again=b"\x03" if talk and talk[-1][1] == "\x03" else b"")
    finally:
        os.close(outer)  # a child that still asks gets an end of file, and ends
    return child.wait(DEADLINE), shown.replace("\r\n", "\n")


def _until(outer: int, text: str | None, again: bytes = b"") -> str:
    """What the child shows, up to a text; without one, to its end.

    `again` is typed whenever nothing comes for a while: a signal that meets Python between showing a prompt and waiting
    for its answer is seen at the next key only.
    """
    shown = ""
    until = time.monotonic() + DEADLINE
    while text is None or text not in shown:
        ready, _, _ = select.select([outer], [], [], 1.0 if again else max(0.0, until - time.monotonic()))
        if not ready and again and time.monotonic() < until:
            os.write(outer, again)
            continue
        assert ready, f"never asked {text!r}: {shown!r}"
        try:
            part = os.read(outer, 4096)
        except OSError:  # how Linux says that the child closed its end
            part = b""
        if not part:
            assert text is None, f"ended before {text!r}: {shown!r}"
            return shown
        shown += part.decode(errors="replace")
    return shown
