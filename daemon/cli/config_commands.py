"""`chatkeep config`: check, schema, example."""

from __future__ import annotations

import json

import click

from chatkeep.config.places import default_file
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import printable


@click.group(cls=Group, short_help="Check the configuration, or learn to write it.")
def config() -> None:
    """Check the configuration, or learn to write it."""


@config.command()
@pass_frame
def check(frame: Frame) -> None:
    """Name everything that is wrong with the file and with the directories it names."""
    from chatkeep.config.paths import check_paths

    found = frame.config()
    check_paths(found)
    value = {
        "file": found.origin.file,
        "vault": found.vault_name,
        "sources": [{"name": source.name, "path": source.path} for source in found.sources],
        "providers": [{"name": provider.name, "type": provider.type} for provider in found.providers],
        "state_dir": found.state_dir,
    }
    frame.out.result(
        value,
        f"{printable(str(found.origin.file))}: right",
        *(f"  keeps {printable(source.name)}: {printable(str(source.path))}" for source in found.sources),
        *(f"  in {printable(provider.name)} ({provider.type})" for provider in found.providers),
    )


@config.command()
@pass_frame
def schema(frame: Frame) -> None:
    """Print the JSON Schema of the file, for editors that complete and check."""
    from chatkeep.config.schema import schema as made

    value = made()
    frame.out.result(value, json.dumps(value, indent=2))


@config.command()
@pass_frame
def example(frame: Frame) -> None:
    """Print a commented file to begin with."""
    from chatkeep.config.example import example as made

    text = made()
    frame.out.result({"example": text, "file": default_file()}, text.rstrip("\n"))
