"""`chatkeep providers`: the storage of the vault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from chatkeep.config.problems import nearest
from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli.exits import worst
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.provider_places import place
from chatkeep.daemon.cli.provider_screen import Screen
from chatkeep.daemon.cli.provider_trial import Tried, attempt

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig


@click.group(cls=Group, short_help="The storage of the vault: try what it does.")
def providers() -> None:
    """The storage of the vault: try what it does."""


@providers.command(name="test", short_help="Try what a provider does.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Without the speed.")
@pass_frame
def try_out(frame: Frame, names: Sequence[str], quick: bool) -> int:
    """Try what a provider does, with small objects that are deleted again.

    Whether it can be reached and lets this device in, write, read, read parts, list and delete; whether it refuses to
    overwrite, notices damage on the way, keeps versions; its clock, its free room, how fast it is. Says of every "no"
    what it means. Needs no secret.

    Without a NAME all of them. The speed is that of one connection, measured with a few megabytes.
    """
    configs = chosen(frame.config().providers, names)
    values, codes = [], []
    shown = Screen(frame.out)
    for config in configs:
        shown.head(config)
        tried = attempt(config, shown.asked, shown.row, quick=quick)
        shown.verdict(tried, required=config.required)
        values.append(_value(config, tried))
        codes += [findings.exit_of(tried.rows)] if config.required or names else []
    frame.out.result({"providers": values}, *shown.rest())
    return worst(codes)


def chosen(configs: Sequence[ProviderConfig], names: Sequence[str]) -> list[ProviderConfig]:
    """Those of the names, each once and in the order of the configuration; without names all. Raises
    click.BadParameter."""
    known = [config.name for config in configs]
    for name in names:
        if name not in known:
            meant = nearest(name, known)
            advice = f"Did you mean '{printable(meant)}'?" if meant else f"There are: {printable(', '.join(known))}."
            raise click.BadParameter(f"There is no provider '{printable(name)}' in the configuration. {advice}")
    return [config for config in configs if not names or config.name in names]


def _value(config: ProviderConfig, tried: Tried) -> dict[str, Any]:
    return {
        "name": config.name,
        "type": config.type,
        "place": place(config, None),
        "required": config.required,
        "verdict": findings.verdict(tried.rows),
        "checks": [
            {
                "check": row.check,
                "answer": row.answer,
                "level": row.level,
                "text": row.text,
                "remedy": row.remedy,
                "value": row.value,
                "code": row.error.code if row.error is not None else None,
            }
            for row in tried.rows
        ],
        "left_behind": tried.left,
    }
