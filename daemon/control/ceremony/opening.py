"""Opening the page in the person's browser, without showing its link to anybody else.

The arguments of a process can be read by every user of the machine. So the browser is given the name of a file that
only this user can read, and the file leads to the page.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Final

_DESKTOP: Final = ("DISPLAY", "WAYLAND_DISPLAY")
_KEPT: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"),
    *("DBUS_SESSION_BUS_ADDRESS", "DESKTOP_SESSION", "GNOME_DESKTOP_SESSION_ID", "KDE_FULL_SESSION"),
    "KDE_SESSION_VERSION",
)
_KEPT_PREFIXES: Final = ("XDG_", "LC_")

# A file:// page. The link is in the address the browser goes to, after the #, which it sends to no server.
_REDIRECT: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<meta http-equiv="refresh" content="0; url={url}">
<title>Chatkeep</title>
<p>Chatkeep is opening: <a href="{url}">go on</a></p>
"""


def has_desktop(environment: Mapping[str, str]) -> bool:
    """Whether a browser that is opened here would appear in front of the person who asked."""
    remote = "SSH_CONNECTION" in environment or "SSH_TTY" in environment
    return not remote and any(environment.get(name) for name in _DESKTOP)


class Redirect:
    """A file that leads a browser to `url`, which has no character that HTML gives a meaning to."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        """Raises OSError when it cannot be written."""
        runtime = environment.get("XDG_RUNTIME_DIR", "")
        self._made = "" if _private(runtime) else tempfile.mkdtemp(prefix="chatkeep-")
        # 0600, and of a name that was not there before, so that nobody waits for it with a link of their own.
        descriptor, self.path = tempfile.mkstemp(".html", "chatkeep-", self._made or runtime)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(_REDIRECT.format(url=url))

    def remove(self) -> None:
        """Takes the file away. Twice is once."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        if self._made:
            with contextlib.suppress(OSError):
                os.rmdir(self._made)


def open_file(path: str, environment: Mapping[str, str]) -> bool:
    """Asks the desktop to show a file in the browser. False when it cannot be asked; True does not say that it did."""
    program = shutil.which("xdg-open", path=environment.get("PATH"))
    if program is None:
        return False
    kept = {name: value for name, value in environment.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    try:
        # Of its own session: it stays when the command ends, and Ctrl-C at the terminal is not for it.
        subprocess.Popen(
            [program, path],
            env=kept,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True


def _private(directory: str) -> bool:
    """Whether a directory is ours alone."""
    try:
        facts = os.stat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o077
