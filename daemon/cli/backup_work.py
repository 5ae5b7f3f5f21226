"""The work of `chatkeep backup`, watched by a person who may stop it."""

from __future__ import annotations

from collections.abc import Sequence

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config, Source
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.stopping import stopping
from chatkeep.daemon.cli.telling import tell
from chatkeep.daemon.service.engine import once
from chatkeep.daemon.service.engine.report import Report


def run(config: Config, sources: Sequence[Source], out: Output, *, upload: bool, anew: bool = False) -> Report:
    """Everything a backup does; what went wrong on the way is in the report. Raises what keeps it from beginning.

    `anew`: what is in the vault may be sent again, if this device's records do not say what is there.
    """
    notices: list[ChatkeepError] = []
    try:
        with stopping(lambda: _acknowledge(out)) as stopped, out.progress(sized=True) as step:
            return once.run(config, sources, step, stopped, notices.append, upload=upload, anew=anew)
    finally:
        for notice in notices:
            out.note(tell(notice).text)


def _acknowledge(out: Output) -> None:
    if not out.as_json:
        out.note("\nStopping at the next safe point. Nothing is lost. Once more: at once.")
