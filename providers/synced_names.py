"""What clients that synchronise a folder call their own files in it: conflict copies, stand-ins, temporary files.

Pure. The forms are those that the clients' manuals and users' reports show; a form that is missing here is a file that
is nobody's, is never listed, and never mended from.
"""

from __future__ import annotations

import enum
import re
from typing import Final

from chatkeep.providers import base

TEMPORARY: Final = ("~", ".tmp")
"""How the name of a file begins and ends that no client uploads: Dropbox, Nextcloud and ownCloud leave out `~*.tmp`,
OneDrive and iCloud Drive what ends in `.tmp`. For Syncthing, which has no such rule, it is a file that goes again."""


class Kind(enum.Enum):
    """What an entry of a folder is to the object (or the folder of objects) that it belongs to."""

    ITSELF = "itself"
    COPY = "copy"  # a conflict copy
    AWAY = "away"  # a stand-in: the client holds the bytes elsewhere


# `name 2`: iCloud Drive, Finder. `name (1)`: Google Drive, OneDrive, Insync. `name (...)` with words in it: Dropbox,
# Nextcloud, ownCloud, Seafile, pCloud. Parentheses may nest once: `name (conflicted copy 2026-01-02 (1))`.
_SPACED = r" \d{1,3}| ?\((?:[^()/]|\([^()/]*\))*\)"
# `name.sync-conflict-20260102-030405-ABCDEFG`: Syncthing. `name_conflict-20260102-030405`: older ownCloud.
_DATED = r"\.sync-conflict-\d{8}-\d{6}(?:-[A-Za-z0-9]{7})?|_conflict-\d{8}-\d{6}"
# `name-LAPTOP`: OneDrive, the name of a computer, which Windows has in capitals; ours have none.
_MACHINE = r"-[A-Z0-9-]*[A-Z][A-Z0-9-]*"
_COPY: Final = re.compile(
    rf"(?P<stem>[a-z0-9-][a-z0-9.-]*?)(?P<mark>(?:{_SPACED}|{_DATED}|{_MACHINE})+)(?P<end>(?:\.[a-z0-9-]+)*)", re.ASCII
)
_ICLOUD: Final = re.compile(r"\.(?P<name>.+)\.icloud", re.DOTALL)
_SUFFIXED: Final = re.compile(r"(?P<name>.+)\.(?:nextcloud|owncloud)", re.DOTALL)


def read(entry: str) -> tuple[str, Kind] | None:
    """What an entry stands for: a component of object names, and how. None for what is none of ours.

    The clients' names are looked for first: some (`name.nextcloud`) are in the grammar of object names. None of the
    vault's is among them.
    """
    if "/" in entry:
        return None  # a path, and no entry of any folder
    away = _ICLOUD.fullmatch(entry) or _SUFFIXED.fullmatch(entry)
    if away and base.is_name(away["name"]):
        return away["name"], Kind.AWAY
    copy = _COPY.fullmatch(entry)
    if copy and base.is_name(copy["stem"] + copy["end"]):
        return copy["stem"] + copy["end"], Kind.COPY
    return (entry, Kind.ITSELF) if base.is_name(entry) else None


def stand_ins(name: str) -> tuple[str, ...]:
    """The entries that a client would put in place of one of that name."""
    return f".{name}.icloud", f"{name}.nextcloud", f"{name}.owncloud"
