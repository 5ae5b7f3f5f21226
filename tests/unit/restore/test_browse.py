from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.restore.browse import list_tree, read_file
from chatkeep.daemon.restore.errors import NotAFile, NothingToRestore, PathNotInSnapshot, ProofFailed
from chatkeep.daemon.vault.errors import Unreadable
from chatkeep.daemon.vault.resolve import Tree
from chatkeep.daemon.vault.stack import read_tree
from tests.support.restoring import Sample
from tests.support.vault_maker import VaultMaker, pending


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def tree(sample: Sample) -> Tree:
    return read_tree(sample.maker.reader(), sample.snapshot)


def paths(tree: Tree, path: bytes, *, recursive: bool = False) -> list[bytes]:
    return [listed.path for listed in list_tree(tree, path, recursive=recursive)]


def test_listing(sample: Sample, tree: Tree) -> None:
    assert paths(tree, b"media") == [b"media/note.txt", b"media/video", b"media/\xff odd"]
    assert paths(tree, b"/media/") == paths(tree, b"media")
    assert paths(tree, b"", recursive=True) == sorted(sample.shape.keys() - {b""})
    assert [path for path in sorted(sample.shape) if path and b"/" not in path] == paths(tree, b"")
    assert paths(tree, b"msg.db") == [b"msg.db"]
    assert paths(tree, b"link", recursive=True) == [b"link"]
    with pytest.raises(PathNotInSnapshot) as caught:
        paths(tree, b"msgs.db")
    assert caught.value.params["nearest"] == b"msg.db"


@pytest.mark.parametrize(
    "path", [b"media/video", b"sparse", b"empty", b"msg.db", b"msg.db-journal", b"media/\xff odd/video"]
)
def test_reading(sample: Sample, tree: Tree, path: bytes) -> None:
    pieces = list(read_file(sample.maker.reader(), sample.snapshot, tree, path))
    assert b"".join(pieces) == sample.shape[path][-1]
    assert max(map(len, pieces), default=0) <= 1 << 20


def test_what_has_no_bytes(sample: Sample, tree: Tree, tmp_path: Path) -> None:
    reader = sample.maker.reader()
    for path in (b"media", b"link"):
        with pytest.raises(NotAFile):
            list(read_file(reader, sample.snapshot, tree, path))
    with pytest.raises(PathNotInSnapshot):
        list(read_file(reader, sample.snapshot, tree, b"gone"))
    maker = VaultMaker(tmp_path)
    pending(maker, b"later")
    snapshot = maker.commit()
    later = read_tree(maker.reader(), snapshot)
    assert [listed.restorable for listed in list_tree(later)] == [False]
    with pytest.raises(NothingToRestore):
        list(read_file(maker.reader(), snapshot, later, b"later"))


def test_cancelling(sample: Sample, tree: Tree) -> None:
    for path in (b"media/video", b"msg.db", b"sparse"):
        with pytest.raises(Cancelled):
            list(read_file(sample.maker.reader(), sample.snapshot, tree, path, cancelled=lambda: True))


def test_a_hole_of_any_size_is_streamed(sample: Sample, tmp_path: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"a", b"x", 1 << 60)
    snapshot = maker.commit()
    reading = read_file(maker.reader(), snapshot, read_tree(maker.reader(), snapshot), b"a")
    assert next(reading) == b"x"
    assert next(reading) == bytes(1 << 20)


def test_damage_shows_before_the_first_byte_of_a_database(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    tree = read_tree(sample.maker.reader(), sample.snapshot)
    sections = tree.sections[tree.paths[b"msg.db"]]
    sections[0] = msgspec.structs.replace(sections[0], digest=b"x" * 32)
    with pytest.raises(ProofFailed):
        next(read_file(sample.maker.reader(), sample.snapshot, tree, b"msg.db"))
    for name in sample.maker.pack_names:
        sample.maker.damage(name, 30)
    with pytest.raises(Unreadable):
        list(read_file(sample.maker.reader(), sample.snapshot, tree, b"media/video"))
