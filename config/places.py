"""Where files stand when nobody says otherwise: the XDG base directory specification."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def default_file() -> Path:
    """`$XDG_CONFIG_HOME/chatkeep/chatkeep.yaml`, usually `~/.config/chatkeep/chatkeep.yaml`."""
    return _absolute(platformdirs.user_config_path("chatkeep"), ".config") / "chatkeep.yaml"


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/chatkeep`, usually `~/.local/state/chatkeep`."""
    return _absolute(platformdirs.user_state_path("chatkeep"), ".local/state")


def _absolute(path: Path, fallback: str) -> Path:
    # The specification: a relative path in these variables is invalid and to be ignored. Taken as it is, state would
    # follow the working directory, and every directory would seem to be a new device.
    return path if path.is_absolute() else Path.home() / fallback / "chatkeep"
