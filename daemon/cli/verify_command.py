"""`chatkeep verify`: that storage holds what was sealed; with --deep, that it can be restored."""

from __future__ import annotations

from pathlib import Path

import click

from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.storage import from_option
from chatkeep.daemon.cli.unlocking import Secret, secret_options


@click.command(cls=Command, short_help="Check that storage holds what was sealed.")
@click.option("--deep", is_flag=True, help="Unlock too, and open and check everything that any snapshot reaches.")
@click.option(
    "--sample",
    metavar="PERCENT",
    type=click.IntRange(0, 100),
    default=100,
    show_default=True,
    help="Read only so many of the packs, at random.",
)
@from_option
@secret_options
@pass_frame
def verify(frame: Frame, deep: bool, sample: int, folder: Path | None, secret: Secret) -> int:
    """Check that storage holds what was sealed.

    Needs no secret: every object is read and compared with the hash in its name, signatures and chains are checked, and
    what this device knows to be there is looked for. With --deep the vault is unlocked, everything is opened, and every
    database put together and compared with what was captured. Nothing is written to storage.
    """
    from chatkeep.daemon.cli import allocator, verify_work

    allocator.keep_blocks()

    if deep:
        report = verify_work.run_deep(frame, folder, sample / 100, secret)
    else:
        report = verify_work.run(frame, folder, sample / 100)
    if folder is None and not report.cancelled:
        verify_work.note(frame.config(), report)
    frame.out.result(report.value(), *report.lines(frame.out))
    return report.exit()
