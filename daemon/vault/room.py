"""How much memory what a snapshot claims may take on this machine.

A layer of a megabyte can hold a hundred thousand records and compress to a few hundred bytes, and a thief of a writer
credential can sign a thousand million such records. No bound of the format could tell them from those of a large honest
tree; but a machine has so much memory and no more, and running out of it ends the process without a word.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Final

from chatkeep.daemon.vault.errors import SnapshotTooLarge
from chatkeep.daemon.vault.layers import Layer

_SHARE: Final = 2  # half: planning, reading and the rest of the machine need some too
# Bytes that a decoded record takes at most, apart from its own texts; found by measuring, with what a plan adds.
_ENTRY, _FILE, _XATTR, _CONTENT, _EXTENT, _SECTION, _RUN = 400, 600, 250, 400, 300, 500, 500


def most_memory() -> int:
    """Bytes that may be used for one snapshot: half of what the machine, or the limits of this process, allow."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        bounds.append(soft)
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
        bounds.append(int(file.read()))  # "max" is none
    return min(bounds) // _SHARE


class Room:
    """What is left for one snapshot, as its layers are read."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, size: int) -> None:
        """Makes room for so many bytes. Raises `SnapshotTooLarge` when there is none."""
        self.used += size
        if self.used > most_memory():
            raise SnapshotTooLarge(needed=self.used, limit=most_memory())


def weight(part: Layer, size: int) -> int:
    """About how many bytes a decoded part of `size` bytes takes, and what is made of it."""
    return (
        size
        + _ENTRY * len(part.entries)
        + _FILE * len(part.files)
        + _XATTR * sum([len(record.xattrs) for record in part.files])
        + _CONTENT * len(part.contents)
        + _EXTENT * sum([len(content.extents) for content in part.contents])
        + _SECTION * len(part.sections)
        + _RUN * sum([len(section.runs) for section in part.sections])
    )
