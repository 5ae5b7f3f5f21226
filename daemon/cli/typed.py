"""Lines that a person types, straight into buffers that can be overwritten: what Python's own prompt returns cannot."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from typing import Final

import click

from chatkeep.daemon.keys.secret import wipe

_LONGEST: Final = 4096  # of a line, termios(3): a terminal cuts longer ones


def line(prompt: str, *, hidden: bool = False) -> bytearray:
    """What was typed, without its line end, for the caller to wipe. Needs a terminal as standard input.

    Raises click.Abort when it was broken off or there is nobody any more.
    """
    terminal = sys.stdin.fileno()
    typed = bytearray(_LONGEST)
    try:
        with _unseen(terminal) if hidden else contextlib.nullcontext():
            # Not before nothing is shown any more: some type, and programs paste, as soon as they see it.
            click.echo(prompt, nl=False, err=True)
            count = os.readv(terminal, [typed])
        if count == 0:
            raise click.Abort
        while count and typed[count - 1] in b"\r\n":
            count -= 1
        return typed[:count]
    except KeyboardInterrupt:
        raise click.Abort from None
    finally:
        wipe(typed)


@contextlib.contextmanager
def _unseen(terminal: int) -> Iterator[None]:
    shown = termios.tcgetattr(terminal)
    hidden = shown[:]
    hidden[3] &= ~termios.ECHO
    # What was typed before is dropped: it was not meant for this question.
    termios.tcsetattr(terminal, termios.TCSAFLUSH, hidden)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, shown)
        click.echo(err=True)  # the line end that was not shown either
