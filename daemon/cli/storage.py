"""Providers: those of the configuration, or a folder or the providers of a file, named on the command line."""

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
    """Adds `--from FOLDER|FILE`, given to the command as `folder: Path | None`."""
    return click.option(
        FROM,
        "folder",
        metavar="FOLDER|FILE",
        type=click.Path(path_type=Path),
        help="The vault in this folder, or at the providers of this YAML file, in place of the configured one.",
    )(command)


def named(frame: Frame, folder: Path | None) -> Sequence[ProviderConfig]:
    """The providers to read from: the folder if one is named, or what a named file says; else those of the
    configuration. Raises ConfigError."""
    from chatkeep.config.problems import ConfigMissing

    if folder is None:
        try:
            return frame.config().providers
        except ConfigMissing as exc:
            raise ConfigMissing(**exc.params, reason="to-read") from exc
    from chatkeep.config.loader import load_providers
    from chatkeep.config.model import FolderOptions, ProviderConfig

    # A folder may be called anything, and one that is not there now is a folder; a file that is to be read is called
    # by its kind also when it is not there.
    if folder.is_file() or (folder.suffix in (".yaml", ".yml") and not folder.is_dir()):
        return load_providers(folder)
    return [ProviderConfig(str(folder), "folder", FolderOptions(folder))]
