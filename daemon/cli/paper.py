"""A new recovery key: shown once and typed back, or written to a file. Nowhere else is it ever shown."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatkeep.daemon.cli import ask
from chatkeep.daemon.cli.output import Output

if TYPE_CHECKING:
    from chatkeep.daemon.keys.recovery import RecoveryKey

OPTION = "--recovery-key-file"

_SHOWN = """\
Your recovery key

  Write these eight lines on paper and keep them where you keep a passport.
  Whoever has them can read the backup. They are shown this once.

{lines}
"""
_BACK = """\
Now type them back from the paper, so that you know it can be read.
(Or type show, to see them again.)
"""


def require_terminal(out: Output) -> None:
    """Raises click.UsageError when there is no terminal to show a recovery key at.

    Standard error must be the terminal too: redirected, the key would end in a log.
    """
    if not (ask.has_terminal() and out.err.isatty()):
        raise click.UsageError(
            f"There is no terminal to show the recovery key at. Have it written to a file instead: {OPTION} F"
        )


def hand_over(out: Output, key: RecoveryKey) -> None:
    """Shows the key and has every line typed back. Nothing of it stays on the screen or in what can be scrolled back.

    Raises:
        click.UsageError: there is no terminal.
        click.Abort: the person gave up.
    """
    from chatkeep.daemon.keys.errors import RecoveryTypo

    require_terminal(out)
    with out.aside():
        _show(out, key)
        for number, line in enumerate(key.lines, start=1):
            while True:
                typed = click.prompt(f"  line {number}", err=True, prompt_suffix=": ")
                if typed.strip().lower() == "show":
                    _show(out, key)
                    continue
                try:
                    if key.check_line(number, typed) == line:
                        break
                    reason = "This is a line of another recovery key."
                except RecoveryTypo as error:
                    reason = ask.slip(error.params)
                out.note(f"    {reason} Look at the paper, or type show.")


def require_new(file: Path, *, first: bool = False) -> None:
    """Raises click.BadParameter when a key cannot be written to this file, before anybody is asked for anything.

    `first`: it is the first key of a vault, and storage has none yet.
    """
    if os.path.lexists(file):
        cut = (
            "There is no vault in this storage: if an init that was cut short wrote the file, its key opens nothing, "
            "and the file can be deleted. If it is the key of another vault, keep it, and name another file."
        )
        raise click.BadParameter(f"{file} exists; it is not replaced{f'. {cut}' if first else ''}", param_hint=OPTION)
    if not file.parent.is_dir():
        raise click.BadParameter(f"there is no directory {file.parent}", param_hint=OPTION)


def write(file: Path, key: RecoveryKey) -> None:
    """Writes the key to a new file that only this user may read. Raises click.BadParameter; nothing is replaced."""
    from chatkeep.providers.durable import create_durably

    text = "".join(f"{line}\n" for line in key.lines).encode("ascii")
    try:
        create_durably(file, text, mode=0o600)
    except FileExistsError as exc:
        raise click.BadParameter(f"{file} exists; it is not replaced", param_hint=OPTION) from exc
    except OSError as exc:
        raise click.BadParameter(f"{file}: {os.strerror(exc.errno or errno.EIO)}", param_hint=OPTION) from exc


def _show(out: Output, key: RecoveryKey) -> None:
    out.clear()
    lines = "\n".join(f"      {number}   {line}" for number, line in enumerate(key.lines, start=1))
    out.note(_SHOWN.format(lines=lines))
    click.prompt("Press Enter when they are written down", default="", show_default=False, prompt_suffix=" ", err=True)
    out.clear()
    out.note(_BACK)
