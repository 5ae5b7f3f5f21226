"""What every command shares: the global options, the lazily loaded groups, the nearest right word."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.config.problems import nearest
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.output import Output

if TYPE_CHECKING:
    from chatkeep.config.model import Config


@dataclasses.dataclass
class Frame:
    """The global options of one invocation, and what follows from them. `least`: how the command ends at best, whatever
    it says itself, for what was found on the way."""

    config_file: Path | None = None
    out: Output = dataclasses.field(default_factory=Output)
    least: Exit = Exit.DONE

    def config(self) -> Config:
        """The configuration, its shape checked. Raises ConfigError."""
        from chatkeep.config.loader import load

        return load(self.config_file)


pass_frame = click.make_pass_decorator(Frame)


def _set_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(Frame).config_file = value


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Frame).out.as_json = True


def global_options() -> list[click.Parameter]:
    """The options that every command takes, before or behind its name."""
    return [
        click.Option(
            ["--config"],
            metavar="FILE",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_set_config,
            help="The configuration file.  [default: ~/.config/chatkeep/chatkeep.yaml]",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Print the result, or the error, as one JSON object.",
        ),
    ]


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options())


@dataclasses.dataclass(frozen=True, slots=True)
class Later:
    """Where a command is, and its line in the list of commands, so that neither the list nor a sibling imports it."""

    module: str
    name: str
    line: str


class Group(click.Group):
    """A group whose commands are imported when they are called, and that knows what a wrong word was meant to be."""

    command_class = Command

    def __init__(self, *args: Any, later: Mapping[str, Later] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazily = dict(later or {})
        self.params.extend(global_options())

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the signature is click's
        """Names in the order they were given, which is the order of a newcomer's day."""
        return [*self.lazily, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now if need be."""
        where = self.lazily.get(cmd_name)
        if where is None:
            return super().get_command(ctx, cmd_name)
        found = getattr(importlib.import_module(where.module), where.name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but for the advice when there is no such command."""
        word = args[0]
        known = self.list_commands(ctx)
        if word not in known and not word.startswith("-"):
            meant = nearest(word, known)
            advice = f" Did you mean '{meant}'?" if meant else f" There are: {', '.join(known)}."
            raise click.UsageError(f"No such command '{word}'.{advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing one."""
        rows: Sequence[tuple[str, str]] = [
            (name, self.lazily[name].line if name in self.lazily else self.commands[name].get_short_help_str(80))
            for name in self.list_commands(ctx)
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
