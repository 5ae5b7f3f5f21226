"""Which machine this is, as a value that says nothing about it elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

PLACES: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_LABEL: Final = b"chatkeep/v1/machine\0"


def machine_mark(vault_id: bytes, places: tuple[Path, ...] = PLACES) -> bytes | None:
    """32 bytes that are the same on this machine and others on another: a hash of its id keyed with the vault's, since
    machine-id(5) asks that the id itself is shown to nobody. None where a machine has none, as in some containers."""
    for place in places:
        try:
            found = place.read_bytes()[:64].strip()
        except OSError:
            continue
        if found:
            return hashlib.blake2b(_LABEL + found, key=vault_id, digest_size=32).digest()
    return None
