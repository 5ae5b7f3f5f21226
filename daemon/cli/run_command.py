"""`chatkeep run`: the daemon, in the foreground. What systemd starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from chatkeep.daemon.cli.daemon_line import status_line
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.words_of_events import said
from chatkeep.daemon.cli.words_of_problems import phrase

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.service.events import Bus
    from chatkeep.daemon.service.notify import Supervisor
    from chatkeep.daemon.service.running.daemon import Daemon
    from chatkeep.daemon.service.telling.log import Log


@click.command(cls=Command, short_help="Run the daemon, in the foreground.")
@click.option("--debug", is_flag=True, help="Log everything, names of files too.")
@pass_frame
def run(frame: Frame, debug: bool) -> int:
    """Run the daemon, in the foreground.

    Keeps what changes, uploads it, and does the jobs of the configuration, until it is told to end (Ctrl-C, SIGTERM).
    SIGHUP has it read the configuration again. What happens is told on standard error: in lines for a person, for the
    journal where systemd started it, as JSON with --json.
    """
    from chatkeep.daemon.service.events import Bus
    from chatkeep.daemon.service.notify import Supervisor
    from chatkeep.daemon.service.telling.log import Log, style_for

    config = frame.config()
    bus = Bus()
    style = style_for(sys.stderr, as_json=frame.out.as_json)
    level = logging.DEBUG if debug else logging.INFO
    log = Log(bus, lambda event: said(event.kind, event.values), style=style, level=level)
    try:
        with Supervisor.from_environment() as supervisor:
            clean = asyncio.run(_run(frame, config, bus, supervisor, log))
    finally:
        log.close()
    if not clean:
        # A thread that hangs in a call of the system would keep the interpreter from ending. What is not committed was
        # not acknowledged either.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(Exit.DONE)
    return Exit.DONE


async def _run(frame: Frame, config: Config, bus: Bus, supervisor: Supervisor, log: Log) -> bool:
    from importlib.metadata import version

    from chatkeep.daemon.control.api import Api
    from chatkeep.daemon.service.running.daemon import Daemon, Terms

    def complain(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            log.crashed(error, str(context.get("message", "")))

    @contextlib.asynccontextmanager
    async def serving(daemon: Daemon) -> AsyncIterator[None]:
        api = Api(daemon, config.state_dir)
        await api.start()
        try:
            yield
        finally:
            await api.close()

    asyncio.get_running_loop().set_exception_handler(complain)
    terms = Terms(
        load=frame.config,
        job=lambda name: job_command(frame, name),
        status=status_line,
        phrase=phrase,
        version=version("chatkeep"),
        file=config.origin.file,
    )
    return await Daemon(terms, config, bus, supervisor).run(serving)


def job_command(frame: Frame, name: str) -> list[str]:
    """The command line that does a job: this program, in a process of its own."""
    # -P: a module in the working directory must not be taken for one of ours.
    words = [sys.executable, "-P", "-m", "chatkeep.daemon.cli.main", "--json"]
    if frame.config_file is not None:
        words += ["--config", str(frame.config_file.absolute())]
    if name == "verify":
        share = float(frame.config().jobs.verify.sample)
        return [*words, "verify", "--sample", str(max(1, round(share * 100)))]
    return [*words, name]
