"""`chatkeep providers`: the storage of the vault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.config.problems import nearest
from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli import provider_login
from chatkeep.daemon.cli.exits import worst
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.provider_places import place
from chatkeep.daemon.cli.provider_screen import Screen
from chatkeep.daemon.cli.provider_trial import Tried, attempt

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig


@click.group(cls=Group, short_help="The storage of the vault: list it, try it, log in.")
def providers() -> None:
    """The storage of the vault: list it, try what it does, log in."""


@providers.command(name="list", short_help="List the providers, and how it is with each.")
@pass_frame
def list_all(frame: Frame) -> None:
    """List the providers: what and where they are, how it is with each as far as this device knows, and how many
    requests it made there today (in UTC). Asks no storage."""
    from chatkeep.daemon.cli import provider_list

    config = frame.config()
    found = provider_list.listed(config)
    columns = ("NAME", "TYPE", "REQUIRED", "PLACE", "STATE", "TODAY")
    rows = [
        (
            one["name"],
            one["type"],
            "yes" if one["required"] else "no",
            place(provider, Path.home()),
            one["text"],
            "" if one["requests_today"] is None else f"{sum(one['requests_today'].values()):,}",
        )
        for provider, one in zip(config.providers, found, strict=True)
    ]
    frame.out.table({"providers": found}, columns, rows, right={"TODAY"})


@providers.command(short_help="Log in to storage that wants a person for it.")
@click.argument("name")
@click.option("--no-browser", is_flag=True, help="Only show the address; open no browser.")
@click.option(
    "--timeout",
    "patience",
    metavar="SECONDS",
    type=click.IntRange(10, 3600),
    default=provider_login.PATIENCE,
    help=f"Wait that long.  [default: {provider_login.PATIENCE}]",
)
@pass_frame
def login(frame: Frame, name: str, no_browser: bool, patience: int) -> None:
    """Log in to a storage that wants a person for it: Google Drive. The others have a key or a password, in a file that
    the configuration names.

    Opens the browser, or shows an address to open in another one. What that gives is kept on this device, for this user
    alone, until it is revoked: in the account, or by not being used for half a year.
    """
    (config,) = chosen(frame.config().providers, [name])
    shown = printable(name)
    if not provider_login.is_needed(config):
        text = f"{shown} needs no login: storage of the type {config.type} has none."
        frame.out.result({"name": name, "type": config.type, "needed": False, "logged_in": False}, text)
        return
    provider_login.log_in(frame.out, config, browser=not no_browser, patience=patience)
    value = {"name": name, "type": config.type, "needed": True, "logged_in": True}
    frame.out.result(
        value,
        "",
        frame.out.styled(f"Logged in to {shown}.", "good"),
        f"See that it works: chatkeep providers test {shown}",
        "What waits to be uploaded is sent with the next backup; at once: chatkeep backup",
    )


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
