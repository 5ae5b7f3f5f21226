"""`chatkeep drill`: a restore on trial, so that the day on which it counts is not the first."""

from __future__ import annotations

from pathlib import Path

import click

from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.storage import from_option
from chatkeep.daemon.cli.unlocking import Secret, secret_options


@click.command(cls=Command, short_help="Restore on trial, and prove what comes back.")
@click.option("--source", metavar="SOURCE", help="Only this source.  [default: the newest snapshot of each]")
@click.option("--snapshot", "snap", metavar="SNAP", help="Another snapshot than the newest.")
@click.option(
    "--sample",
    metavar="PERCENT",
    type=click.IntRange(0, 100),
    default=100,
    show_default=True,
    help="Only so many of the files, at random; always every database.",
)
@click.option(
    "--scratch",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where to restore to meanwhile.  [default: in the state directory]",
)
@from_option
@secret_options
@pass_frame
def drill(
    frame: Frame,
    source: str | None,
    snap: str | None,
    sample: int,
    scratch: Path | None,
    folder: Path | None,
    secret: Secret,
) -> int:
    """Restore on trial, and prove what comes back.

    The newest snapshot of each source is restored into a private directory, compared with what was captured, looked at
    by SQLite, and removed again. SQLite works in a process of its own that has no secret and little to spend. chatkeep
    status shows when this was last done, and what came of it.
    """
    from chatkeep.daemon.cli import allocator, drill_work

    allocator.keep_blocks()

    if folder is not None and scratch is None:
        raise click.UsageError("With --from, say where there is room: --scratch DIR")
    report = drill_work.run(frame, folder, drill_work.Order(source, snap, sample / 100, scratch), secret)
    frame.out.result(report.value(), *report.lines(frame.out))
    return report.exit()
