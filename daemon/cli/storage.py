"""Providers: those of the configuration, or a folder named on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from chatkeep.daemon.cli.frame import Frame

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

FROM: Final = "--from"


def from_option(command: Decorated) -> Decorated:
    """Adds `--from FOLDER`, given to the command as `folder: Path | None`."""
    return click.option(
        FROM,
        "folder",
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        help="The vault in this folder, in place of the configured one. No configuration is needed.",
    )(command)


def named(frame: Frame, folder: Path | None) -> Sequence[ProviderConfig]:
    """The providers to read from: the folder if one is named, else those of the configuration. Raises ConfigError."""
    from chatkeep.config.problems import ConfigMissing

    if folder is None:
        try:
            return frame.config().providers
        except ConfigMissing as exc:
            raise ConfigMissing(**exc.params, reason="to-read") from exc
    from chatkeep.config.model import FolderOptions, ProviderConfig

    return [ProviderConfig(str(folder), "folder", FolderOptions(folder))]
