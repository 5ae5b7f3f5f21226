"""File ids: they follow the inode, then the name."""

from __future__ import annotations

from collections.abc import Sequence

from chatkeep.daemon.backup.tree import Assignment, Known, assign_ids, ids_gone, path_changes
from chatkeep.daemon.capture.tree import Found, Kind


def thing(path: bytes, inode: int, kind: Kind = Kind.FILE) -> Found:
    return Found(path, kind, 0o644, 0, 0, 0, 0, 0, 0, 1, 1, inode)


class Result:
    def __init__(self, assignment: Assignment, before: Known) -> None:
        self.ids = assignment.ids
        self.next_file_id = assignment.next_file_id
        self.changed_paths = path_changes(before.paths, assignment.ids)
        self.forgotten = ids_gone(before.paths, assignment.ids)


def assigned(found: Sequence[Found], before: Known, hidden: Sequence[bytes] = ()) -> Result:
    return Result(assign_ids(found, before, hidden), before)


def known(**paths: tuple[int, int]) -> Known:
    """path=(file id, inode)"""
    return Known(
        {path.encode(): fid for path, (fid, _) in paths.items()},
        {(1, inode): fid for fid, inode in paths.values()},
        1 + max((fid for fid, _ in paths.values()), default=0),
    )


def test_new_files_get_new_ids_and_hard_links_share_one() -> None:
    result = assigned([thing(b"a", 10), thing(b"b", 10), thing(b"c", 11)], known())
    assert result.ids == {b"a": 1, b"b": 1, b"c": 2}
    assert result.next_file_id == 3
    assert result.changed_paths == [(b"a", 1), (b"b", 1), (b"c", 2)]


def test_nothing_changed_says_nothing() -> None:
    result = assigned([thing(b"a", 10)], known(a=(5, 10)))
    assert (result.changed_paths, result.forgotten, result.next_file_id) == ([], [], 6)


def test_a_rename_keeps_the_id() -> None:
    result = assigned([thing(b"new", 10)], known(old=(5, 10)))
    assert result.ids == {b"new": 5}
    assert result.changed_paths == [(b"new", 5), (b"old", None)]
    assert result.forgotten == []


def test_saved_by_replacing_keeps_the_id_of_the_name() -> None:
    result = assigned([thing(b"a", 77)], known(a=(5, 10)))
    assert result.ids == {b"a": 5}
    assert result.changed_paths == []


def test_a_backup_copy_takes_the_inode_and_its_id_with_it() -> None:
    """a -> a.bak, and a new a is written: the old content keeps its id under the new name."""
    result = assigned([thing(b"a", 77), thing(b"a.bak", 10)], known(a=(5, 10)))
    assert result.ids == {b"a": 6, b"a.bak": 5}
    assert result.forgotten == []


def test_two_files_swapped_swap_their_names_only() -> None:
    result = assigned([thing(b"a", 11), thing(b"b", 10)], known(a=(5, 10), b=(6, 11)))
    assert result.ids == {b"a": 6, b"b": 5}


def test_what_is_gone_is_forgotten() -> None:
    result = assigned([], known(a=(5, 10), b=(6, 11)))
    assert sorted(result.changed_paths) == [(b"a", None), (b"b", None)]
    assert result.forgotten == [5, 6]


def test_a_directory_never_takes_a_files_id_by_a_reused_inode() -> None:
    result = assigned([thing(b"dir", 10, Kind.DIRECTORY)], known(a=(5, 10)))
    assert result.ids == {b"dir": 6}
    assert result.forgotten == [5]


def test_one_of_two_links_unlinked_leaves_the_file() -> None:
    before = Known({b"a": 5, b"b": 5}, {(1, 10): 5}, 6)
    result = assigned([thing(b"b", 10)], before)
    assert result.changed_paths == [(b"a", None)]
    assert result.forgotten == []


def test_what_could_not_be_seen_is_kept() -> None:
    before = Known({b"d": 1, b"d/a": 2, b"d2": 3}, {(1, 10): 2, (1, 11): 3}, 4)
    result = assigned([thing(b"d", 9, Kind.DIRECTORY)], before, hidden=[b"d"])
    assert result.changed_paths == [(b"d2", None)]
    assert result.forgotten == [3]


def test_the_inode_of_a_hidden_file_may_have_a_new_owner() -> None:
    before = Known({b"d": 1, b"d/a": 2}, {(1, 10): 2}, 3)
    result = assigned([thing(b"d", 9, Kind.DIRECTORY), thing(b"new", 10)], before, hidden=[b"d"])
    assert result.ids == {b"d": 1, b"d/a": 2, b"new": 3}


def test_a_hard_link_of_a_hidden_file_keeps_its_id_unless_it_is_replaced() -> None:
    before = Known({b"d": 1, b"d/a": 2, b"link": 2}, {(1, 10): 2}, 3)
    directory = thing(b"d", 9, Kind.DIRECTORY)
    assert assigned([directory, thing(b"link", 10)], before, hidden=[b"d"]).ids[b"link"] == 2
    assert assigned([directory, thing(b"link", 11)], before, hidden=[b"d"]).ids[b"link"] == 3
