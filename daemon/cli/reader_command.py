"""`chatkeep reader`: prints the reader that needs no Chatkeep, to be kept beside a vault."""

from __future__ import annotations

import click

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.joining import joined


@click.command(cls=Command, short_help="Print a program that restores without Chatkeep.")
@pass_frame
def reader(frame: Frame) -> int:
    """Print a program that restores any vault without Chatkeep: one file of Python, to be kept with the recovery key.

    \b
    chatkeep reader > chatkeep-reader.py
    python3 chatkeep-reader.py VAULT TARGET

    Its first lines say what it needs and how it is used. Needs no secret and no configuration.
    """
    text = joined()
    frame.out.result({"reader": text}, *text.splitlines())
    return Exit.DONE
