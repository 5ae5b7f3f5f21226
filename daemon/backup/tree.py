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
    """Which id each path has now."""

    ids: dict[bytes, int] = field(default_factory=dict)
    changed_paths: list[tuple[bytes, int | None]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    next_file_id: int = 1

    def allocate(self) -> int:
        """A file id that was never used in this stream."""
        self.next_file_id += 1
        return self.next_file_id - 1


def assign_ids(found: Sequence[Found], known: Known, hidden: Sequence[bytes] = ()) -> Assignment:
    """Give every found path its file id, and say which paths came, moved or went, and which ids are gone.

    `hidden`: paths at or below which the walk could not see. What the newest snapshot knows there stays: it was not
    deleted, it could not be looked at.
    """
    result = Assignment(next_file_id=known.next_file_id)
    by_inode: dict[tuple[int, int], int] = {}
    taken: set[int] = set()
    for item in found:
        file_id = None if item.kind is Kind.DIRECTORY else known.inodes.get((item.dev, item.ino))
        if file_id is not None:
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
        if known.paths.get(item.path) != file_id:
            result.changed_paths.append((item.path, file_id))
    for path, file_id in known.paths.items():
        if path not in result.ids and any(_at_or_below(path, place) for place in hidden):
            result.ids[path] = file_id
    result.changed_paths += [(path, None) for path in known.paths if path not in result.ids]
    result.forgotten = sorted(set(known.paths.values()) - set(result.ids.values()))
    return result


def _at_or_below(path: bytes, place: bytes) -> bool:
    return path == place or path.startswith(place + b"/") or not place
