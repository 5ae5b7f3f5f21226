"""What changed in a source's tree since the newest snapshot: pure, over values.

A file keeps its id as long as its inode lives, whatever its name (a renamed 10 GB database is one entry, hard links
share one id); a file saved by replacing it under the same name keeps the id of the name, so unchanged chunks are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Item(Protocol):
    """One thing found in the source."""

    @property
    def path(self) -> bytes:
        """Relative to the source; b"" is the source itself."""

    @property
    def inode(self) -> tuple[int, int]:
        """Device and inode number."""

    @property
    def is_directory(self) -> bool:
        """Directories are told apart by name alone: they have no content to keep."""


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


def assign_ids(found: Sequence[Item], known: Known) -> Assignment:
    """Give every found path its file id, and say which paths came, moved or went, and which ids are gone."""
    result = Assignment(next_file_id=known.next_file_id)
    by_inode: dict[tuple[int, int], int] = {}
    taken: set[int] = set()
    for item in found:
        file_id = None if item.is_directory else known.inodes.get(item.inode)
        if file_id is not None:
            by_inode[item.inode] = file_id
            taken.add(file_id)
    for item in found:
        file_id = None if item.is_directory else by_inode.get(item.inode)
        if file_id is None:
            file_id = known.paths.get(item.path)
            if file_id is None or file_id in taken:
                file_id = result.next_file_id
                result.next_file_id += 1
            if not item.is_directory:
                by_inode[item.inode] = file_id
            taken.add(file_id)
        result.ids[item.path] = file_id
        if known.paths.get(item.path) != file_id:
            result.changed_paths.append((item.path, file_id))
    result.changed_paths += [(path, None) for path in known.paths if path not in result.ids]
    result.forgotten = sorted(set(known.paths.values()) - set(result.ids.values()))
    return result
