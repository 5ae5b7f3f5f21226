"""The systemd of this user, asked through its own commands. The edge: everything here runs a program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import platformdirs

from chatkeep.daemon.cli.errors import SystemdFailed
from chatkeep.daemon.cli.unit_files import UNIT

QUICK: Final = 20.0  # seconds; a question, or a word to the manager
_STARTING: Final = 120.0  # systemd's own limit for a start is 90


def unit_file() -> Path:
    """Where a user's own unit belongs: systemd.unit(5), "User Unit Search Path"."""
    config = platformdirs.user_config_path()
    return (config if config.is_absolute() else Path.home() / ".config") / "systemd" / "user" / UNIT


def own_command() -> tuple[str, ...]:
    """How this program is started, so that a service manager can do it: the script, by a path that stays the same when
    what it leads to is installed anew."""
    script = Path(os.path.abspath(sys.argv[0]))
    if script.name == "chatkeep" and os.access(script, os.X_OK):
        return (str(script),)
    return (sys.executable, "-m", "chatkeep.daemon.cli.main")


def reachable() -> bool:
    """Whether there is a manager of this user's services that can be talked to."""
    return _run(["systemctl", "--user", "show", "--property=Version"]).returncode == 0


def enabled() -> bool:
    """Whether the unit is started at login."""
    return _run(["systemctl", "--user", "is-enabled", UNIT]).returncode == 0


def active() -> bool:
    """Whether the unit runs."""
    return _run(["systemctl", "--user", "is-active", UNIT]).returncode == 0


def reload() -> None:
    """Has the manager read its units again. Raises SystemdFailed."""
    _must(["systemctl", "--user", "daemon-reload"])


def start() -> None:
    """Has the unit started at every login, and now; returns when it is ready. Raises SystemdFailed."""
    _must(["systemctl", "--user", "enable", UNIT])
    # Not `enable --now`: one that runs already has to take up what changed in its unit.
    _must(["systemctl", "--user", "restart", UNIT], _STARTING)


def stop() -> None:
    """Ends the unit and has it not started again. Raises SystemdFailed."""
    _must(["systemctl", "--user", "disable", "--now", UNIT], _STARTING)


def lingers() -> bool | None:
    """Whether this user's services run while nobody is logged in; None when it cannot be told."""
    done = _run(["loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value"])
    return {"yes": True, "no": False}.get(done.stdout.strip())


def linger() -> None:
    """Has this user's services run from boot on. May ask for a password. Raises SystemdFailed."""
    _must(["loginctl", "enable-linger"], _STARTING)


def _must(argv: Sequence[str], seconds: float = 0.0) -> None:
    done = _run(argv, seconds)
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0].rstrip(".")
        raise SystemdFailed(command=" ".join(argv), said=said)


def _run(argv: Sequence[str], seconds: float = 0.0) -> subprocess.CompletedProcess[str]:
    """The program, in words that do not depend on the user's language. One that is missing or hangs has failed."""
    if shutil.which(argv[0]) is None:
        return subprocess.CompletedProcess(argv, 127, "", f"there is no {argv[0]}")
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds or QUICK,
            env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer within {seconds or QUICK:.0f} seconds")
    except OSError as exc:
        return subprocess.CompletedProcess(argv, 126, "", str(exc.strerror))
