"""What changed in a source's tree since the newest snapshot: pure, over values.

A file keeps its id as long as its inode lives, whatever its name (a renamed 10 GB database is one entry, hard links
share one id); a file saved by replacing it under the same name keeps the id of the name, so unchanged chunks are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chatkeep.daemon.capture.tree import Found, Kind


@dataclass(frozen=True)
class Known:
    """The newest snapshot, as far as ids go."""

    paths: Mapping[bytes, int]
    inodes: Mapping[tuple[int, int], int]
    next_file_id: int


@dataclass
class Assignment:
    """Which id each path has now, and each inode that has content."""

    ids: dict[bytes, int] = field(default_factory=dict)
    inodes: dict[tuple[int, int], int] = field(default_factory=dict)
    next_file_id: int = 1

    def allocate(self) -> int:
        """A file id that was never used in this stream."""
        self.next_file_id += 1
        return self.next_file_id - 1


def assign_ids(found: Sequence[Found], known: Known, hidden: Sequence[bytes] = ()) -> Assignment:
    """Give every found path its file id.

    `hidden`: paths at or below which the walk could not see. What the newest snapshot knows there stays: it was not
    deleted, it could not be looked at.
    """
    result = Assignment(next_file_id=known.next_file_id)
    by_inode = result.inodes
    visible = {item.path for item in found}
    unseen = {
        path: file_id for path, file_id in known.paths.items() if path not in visible and _is_hidden(path, hidden)
    }
    result.ids.update(unseen)
    # The inode of a file that cannot be looked at may have a new owner: only a path that had the id before keeps it.
    reserved = set(unseen.values())
    taken = set(reserved)
    for item in found:
        file_id = None if item.kind is Kind.DIRECTORY else known.inodes.get((item.dev, item.ino))
        if file_id is not None and (file_id not in reserved or known.paths.get(item.path) == file_id):
            by_inode[item.dev, item.ino] = file_id
            taken.add(file_id)
    for item in found:
        file_id = None if item.kind is Kind.DIRECTORY else by_inode.get((item.dev, item.ino))
        if file_id is None:
            file_id = known.paths.get(item.path)
            if file_id is None or file_id in taken:
                file_id = result.allocate()
            if item.kind is not Kind.DIRECTORY:
                by_inode[item.dev, item.ino] = file_id
            taken.add(file_id)
        result.ids[item.path] = file_id
    return result


def path_changes(before: Mapping[bytes, int], now: Mapping[bytes, int]) -> list[tuple[bytes, int | None]]:
    """Which paths came or moved, with their ids, and which went (None)."""
    came = [(path, file_id) for path, file_id in now.items() if before.get(path) != file_id]
    return [*came, *((path, None) for path in before if path not in now)]


def ids_gone(before: Mapping[bytes, int], now: Mapping[bytes, int]) -> list[int]:
    """The ids that no path has any more."""
    return sorted(set(before.values()) - set(now.values()))


def _is_hidden(path: bytes, places: Sequence[bytes]) -> bool:
    return any(path == place or path.startswith(place + b"/") or not place for place in places)
