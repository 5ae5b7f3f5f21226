"""`chatkeep backup`: what changed since the last time goes into the vault. Needs no secret."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import click

from chatkeep.config.model import Config, Source
from chatkeep.config.problems import nearest
from chatkeep.daemon.cli.backup_report import exit_of, lines_of, value_of
from chatkeep.daemon.cli.errors import NotByDaemon
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.provider_standing import handing_over
from chatkeep.daemon.service.engine.report import Report


@click.command(cls=Command, short_help="Back up what changed. Needs no secret.")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--no-upload", is_flag=True, help="Only capture and seal; the next backup uploads.")
@click.option("--anew", is_flag=True, help="Send everything again, if this device's records were lost.")
@pass_frame
def backup(frame: Frame, sources: tuple[str, ...], no_upload: bool, anew: bool) -> int:
    """Back up what changed. Needs no secret.

    Takes a snapshot of every source, or of those named, and uploads it to every provider. What one provider cannot take
    now stays queued on this device for the next backup. Where the daemon runs it does the work, and this command shows
    it; stopped, it leaves the daemon to go on.
    """
    config = frame.config()
    report = perform(frame, config, sources, upload=not no_upload, anew=anew)
    frame.out.result(value_of(report), *lines_of(report, frame.out, handing_over(config)))
    return exit_of(report)


def perform(
    frame: Frame, config: Config, sources: Sequence[str] = (), *, upload: bool = True, anew: bool = False
) -> Report:
    """A backup of the sources named, or of all: through the daemon where one runs, else here.

    Raises click.BadParameter for a source that is not configured, NotByDaemon, and what keeps it from beginning.
    """
    wanted = named_sources(config, sources)
    from chatkeep.daemon.cli import by_daemon

    daemon = None if anew else by_daemon.daemon_of(config)
    if daemon is None:
        return _alone(frame, config, wanted, upload=upload, anew=anew)
    if not upload:
        raise NotByDaemon(option="--no-upload")
    return by_daemon.back_up(daemon, [source.name for source in wanted] if sources else [], frame.out)


def _alone(frame: Frame, config: Config, wanted: Sequence[Source], *, upload: bool, anew: bool) -> Report:
    from chatkeep.daemon.cli import allocator, backup_work, by_daemon

    allocator.keep_blocks()
    # That everything may be sent again is this command's word, and holds for this one time: it works itself then.
    with by_daemon.borrowed(config, "backup", frame.out) if anew else contextlib.nullcontext():
        return backup_work.run(config, wanted, frame.out, upload=upload, anew=anew)


def named_sources(config: Config, names: Sequence[str]) -> list[Source]:
    """The sources of these names, in the order of the configuration; all of them when none is named."""
    known = {source.name: source for source in config.sources}
    for name in names:
        if name not in known:
            meant = nearest(name, known)
            advice = f"Did you mean '{meant}'?" if meant else f"There are: {', '.join(known)}."
            raise click.BadParameter(f"No source is called '{name}'. {advice}", param_hint="SOURCE")
    return [source for source in config.sources if not names or source.name in names]
