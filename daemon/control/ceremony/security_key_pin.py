"""The PIN of a security key, typed at the terminal of whoever runs the command.

It is asked for here, in the process of the ceremony, so that it never leaves it. What is shown is written here too: the
command writes to the same terminal, and of two writers a question could overtake what it is about.
"""

from __future__ import annotations

import os
import select
import termios
import threading
import unicodedata
from collections.abc import Callable
from typing import Final

from chatkeep.daemon.control.errors import NoTerminal

TERMINAL: Final = "/dev/tty"
FULL_TRIES: Final = 8
"""How many tries a key starts with (CTAP 2.1, section 6.5.2.2); as long as it has them all there is nothing to tell."""
_LENGTHS: Final = (4, 63)
"""Code points at least and bytes at most (CTAP 2.1, section 6.5.1): what no PIN can be must not cost a try."""
_LOOK: Final = 0.1  # seconds between two looks whether it is over
_ECHO_FLAGS: Final = 3  # where tcgetattr has the local modes


class NothingTyped(Exception):
    """An empty line, or the end of the input: the person does not want to."""


def ask(
    retries: int | None, *, wrong: bool, over: threading.Event, before_leaving: Callable[[Callable[[], object]], None]
) -> str:
    """A PIN, typed unseen, in the form in which keys take it (NFC; CTAP 2.1, section 6.5.1).

    `retries`: how many the key has left, if it said so. It is waited for until `over` is set. `before_leaving` is told
    how to turn the echo on again.

    Raises:
        NoTerminal: there is none to type at.
        NothingTyped: an empty line.
        TimeoutError: nothing was typed in time.
    """
    try:
        terminal = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as exc:
        raise NoTerminal(what="pin") from exc
    asking = [terminal]  # until it is closed: its number may be another file's then
    try:
        usual = termios.tcgetattr(terminal)

        def echo() -> None:
            for each in asking:
                termios.tcsetattr(each, termios.TCSANOW, usual)

        before_leaving(echo)
        hidden = [*usual]
        hidden[_ECHO_FLAGS] = usual[_ECHO_FLAGS] & ~termios.ECHO
        # What was typed ahead was not meant for this question, and was shown.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, hidden)
        try:
            return _typed(terminal, question(retries, wrong=wrong), over)
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, usual)
            os.write(terminal, b"\n")
    finally:
        asking.clear()
        os.close(terminal)


def question(retries: int | None, *, wrong: bool) -> str:
    """What is shown in front of the cursor."""
    left = (
        "" if retries is None else f"{retries} tries left" if retries != 1 else "last try before the key locks for good"
    )
    if wrong:
        return f"That PIN is wrong{f': {left}' if left else ''}.\nPIN of the security key: "
    if left and retries is not None and retries < FULL_TRIES:
        return f"PIN of the security key ({left}): "
    return "PIN of the security key: "


def _typed(terminal: int, shown: str, over: threading.Event) -> str:
    while True:
        os.write(terminal, shown.encode())
        pin = unicodedata.normalize("NFC", _line(terminal, over))
        if not pin:
            raise NothingTyped
        if len(pin) < _LENGTHS[0] or len(pin.encode()) > _LENGTHS[1]:
            shown = "\nA PIN has 4 to 63 characters, so this was none. No try was used.\nPIN of the security key: "
            continue
        return pin


def _line(terminal: int, over: threading.Event) -> str:
    typed = bytearray()
    while not typed.endswith(b"\n"):
        ready: list[int] = []
        while not ready:
            if over.is_set():
                raise TimeoutError
            ready, _, _ = select.select([terminal], [], [], _LOOK)
        part = os.read(terminal, 1024)
        if not part:
            raise NothingTyped
        typed += part
    return typed.decode("utf-8", errors="replace").rstrip("\r\n")
