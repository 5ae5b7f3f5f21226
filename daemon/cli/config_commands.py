"""`chatkeep config`: check, schema, example."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatkeep.config.places import default_file
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import printable

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.config.problems import Problem


@click.group(cls=Group, short_help="Check the configuration, or learn to write it.")
def config() -> None:
    """Check the configuration, or learn to write it."""


@config.command()
@pass_frame
def check(frame: Frame) -> None:
    """Name everything that is wrong with the file and with the directories it names."""
    found = frame.config()
    made = folders_to_be_made(found)
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
        *(f"  {printable(path)} is not there yet: chatkeep init makes it" for path in made),
    )


def folders_to_be_made(found: Config) -> list[str]:
    """The folders that `chatkeep init` will make. Raises ConfigInvalid for what else is wrong on the disk."""
    from chatkeep.config.paths import check_paths
    from chatkeep.config.problems import ConfigInvalid, Reason
    from chatkeep.daemon.service.device import is_set_up

    try:
        check_paths(found)
    except ConfigInvalid as exc:
        made = [
            problem
            for problem in exc.problems
            if problem.reason is Reason.PATH_MISSING
            and problem.key.startswith("providers[")
            and Path(problem.found).parent.is_dir()
            and not is_set_up(found)
        ]
        rest = [problem for problem in exc.problems if problem not in made]
        if rest:
            raise ConfigInvalid(found.origin.file, [_to_be_mirrored(found, problem) for problem in rest]) from exc
        return [problem.found for problem in made]
    return []


def _to_be_mirrored(found: Config, problem: Problem) -> Problem:
    """The missing folder of a provider beside others may be a new one, which no init makes any more."""
    from chatkeep.config.problems import Reason
    from chatkeep.daemon.service.device import is_set_up

    names = {f"providers[{i}].path": provider.name for i, provider in enumerate(found.providers)}
    new = problem.reason is Reason.PATH_MISSING and problem.key in names and len(names) > 1 and is_set_up(found)
    if not new:
        return problem
    return dataclasses.replace(problem, reason=Reason.PLACE_MISSING, wanted=names[problem.key])


@config.command()
@pass_frame
def schema(frame: Frame) -> None:
    """Print the JSON Schema of the file, for editors that complete and check."""
    from chatkeep.config.schema import schema as made

    value = made()
    frame.out.result(value, json.dumps(value, indent=2))


@config.command()
@click.option("--type", "kind", metavar="KIND", default="", help="The kind of storage in it. Left out: a folder.")
@pass_frame
def example(frame: Frame, kind: str) -> None:
    """Print a commented file to begin with."""
    from chatkeep.config.example import example as made
    from chatkeep.config.problems import nearest
    from chatkeep.config.storages import PROVIDER_OPTIONS, TypeUnusable

    try:
        text = made(kind)
    except TypeUnusable as exc:
        raise click.BadParameter(
            f"{kind} comes from a package that cannot be used ({exc.place}: {exc.cause})."
        ) from exc
    except KeyError as exc:
        close = nearest(kind, PROVIDER_OPTIONS)
        meant = f" Did you mean {close}?" if close else ""
        raise click.BadParameter(f"{kind} is none of {', '.join(PROVIDER_OPTIONS)}.{meant}") from exc
    frame.out.result({"example": text, "file": default_file()}, text.rstrip("\n"))
