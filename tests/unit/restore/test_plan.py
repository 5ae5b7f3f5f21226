from __future__ import annotations

import pytest

from chatkeep.daemon.restore.errors import NothingToRestore, PathNotInSnapshot
from chatkeep.daemon.restore.needs import needs_of
from chatkeep.daemon.restore.plan import RestorePlan, nearest, plan_tree
from chatkeep.daemon.vault.layers import (
    BUSY,
    PENDING,
    RESET,
    Content,
    Entry,
    Extent,
    FileKind,
    FileRecord,
    Layer,
    Reference,
    Section,
    make_run,
)
from chatkeep.daemon.vault.resolve import Tree, resolve_tree


def reference(number: int, pack: int = 1) -> Reference:
    return Reference(bytes([pack]) * 32, number, number.to_bytes(32, "big"))


def record(file_id: int, kind: FileKind = FileKind.FILE, size: int = 0, flags: int = 0) -> FileRecord:
    return FileRecord(file_id, kind, 0o600, 0, 0, b"", b"", 0, size, flags, b"t" if kind is FileKind.SYMLINK else b"")


def tree() -> Tree:
    """A source with a bit of everything, some of it damaged or not there yet."""
    entries = {
        b"": 1,
        b"media": 2,
        b"media/a.jpg": 3,
        b"media/b.jpg": 4,
        b"media/copy.jpg": 3,
        b"media/late.mp4": 5,
        b"mediaeval": 6,
        b"msg.db": 7,
        b"bad.db": 8,
        b"bad.jpg": 9,
        b"link": 10,
        b"busy": 11,
    }
    files = (
        record(1, FileKind.DIRECTORY),
        record(2, FileKind.DIRECTORY),
        record(3, size=30),
        record(4, size=1 << 40),
        record(5, size=9, flags=PENDING),
        record(6),
        record(7, FileKind.DATABASE),
        record(8, FileKind.DATABASE),
        record(9, size=5),
        record(10, FileKind.SYMLINK),
        record(11, size=99, flags=BUSY),
    )
    contents = (
        Content(3, 30, 0, (Extent(10, reference(0)), Extent(20, reference(1, 2)))),
        Content(4, 1 << 40, 0, (Extent((1 << 40) - 10, None), Extent(10, reference(0)))),
        Content(9, 6, 0, (Extent(6, reference(9)),)),
        Content(11, 7, 0, (Extent(7, reference(11)),)),
    )
    sections = (
        Section(7, RESET, 4096, 3, bytes(32), (make_run([(1, 3)], reference(3, 3)),)),
        Section(8, RESET, 4096, 4, bytes(32), (make_run([(1, 3)], reference(4, 3)),)),
    )
    return resolve_tree([Layer(tuple(Entry(path, own) for path, own in entries.items()), files, contents, sections)])


def test_everything_that_can_be_is_planned_and_the_rest_is_told() -> None:
    plan = plan_tree(tree(), None)
    assert not plan.partial
    assert plan.pending == (b"media/late.mp4",)
    assert plan.stale == (b"busy",)
    assert sorted((fault.params["path"], fault.params["reason"]) for fault in plan.faults) == [
        (b"bad.db", "gap"),
        (b"bad.jpg", "size"),
    ]
    assert set(plan.paths) == tree().paths.keys() - {b"media/late.mp4", b"bad.db", b"bad.jpg"}
    assert plan.size(4) == 1 << 40
    assert plan.size(7) == 3 * 4096
    assert plan.size(11) == 7
    figures = plan.figures
    assert (figures.files, figures.directories, figures.blobs, figures.packs) == (7, 2, 4, 3)
    assert figures.content == 10 + 20 + 10 + 7 + 3 * 4096


def test_chosen_paths_bring_what_is_below_and_the_way_there() -> None:
    plan = plan_tree(tree(), [b"media"])
    assert set(plan.paths) == {b"", b"media", b"media/a.jpg", b"media/b.jpg", b"media/copy.jpg"}
    assert plan.parents == {b""}
    assert plan.pending == (b"media/late.mp4",)
    assert not plan.faults
    assert plan.partial
    assert set(plan_tree(tree(), [b"media/a.jpg", b"msg.db"]).paths) == {b"", b"media", b"media/a.jpg", b"msg.db"}
    assert set(plan_tree(tree(), [b""]).paths) == set(plan_tree(tree(), None).paths)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (b"msgs.db", b"msg.db"),
        (b"media/a.jpeg", b"media/a.jpg"),
        (b"medai/a.jpg", b"media/a.jpg"),
        (b"nothing like it", None),
        (b"zzz/yyy", None),
    ],
)
def test_a_path_that_is_not_there_gets_the_nearest(wanted: bytes, expected: bytes | None) -> None:
    with pytest.raises(PathNotInSnapshot) as caught:
        plan_tree(tree(), [wanted])
    assert caught.value.params == {"path": wanted, "nearest": expected}


def test_a_prefix_of_a_name_is_no_parent() -> None:
    assert nearest([b"media/x"], b"medi") == b"media"
    with pytest.raises(PathNotInSnapshot):
        plan_tree(tree(), [b"medi"])


@pytest.mark.parametrize("chosen", [[b"media/late.mp4"], [b"bad.db"]])
def test_nothing_that_can_be_restored_is_an_error(chosen: list[bytes]) -> None:
    with pytest.raises(NothingToRestore):
        plan_tree(tree(), chosen)
    with pytest.raises(NothingToRestore):
        plan_tree(resolve_tree([]), None)


def test_each_pack_is_needed_once_in_the_order_of_files() -> None:
    plan: RestorePlan = plan_tree(tree(), None)
    needs = needs_of(plan, {3, 4, 7})
    assert [pack.pack[0] for pack in needs] == [3, 1, 2]  # the database first
    assert [(need.slot, need.file_id, need.offset) for need in needs[1].chunks] == [(0, 3, 0), (0, 4, (1 << 40) - 10)]
    assert [need.offset for need in needs[2].chunks] == [10]
    assert [list(need.spans) for need in needs[0].pages] == [[0, 1, 3]]
    assert needs_of(plan, set()) == []
