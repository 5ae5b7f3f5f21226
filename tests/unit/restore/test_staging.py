"""The directory a restore is made in, among others' directories and on other file systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatkeep.daemon.restore.beneath import Beneath
from chatkeep.daemon.restore.errors import TargetExists
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.restore.staging import PREFIX, Staging
from tests.support.restoring import Sample
from tests.support.vault_maker import VaultMaker


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("packs"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def test_a_staging_directory_with_anything_else_in_it_is_not_used(sample: Sample, place: Path) -> None:
    """Somebody who may rename in the directory around could have put another of our directories there."""
    mine = place / (os.fsdecode(PREFIX) + sample.snapshot.name.sha256.hex()[:12])
    (mine / "tree").mkdir(parents=True)
    (mine / "tree" / "file").write_bytes(b"mine")
    (mine / "notes").write_bytes(b"mine too")
    with pytest.raises(TargetExists):
        sample.restore(place / "out")
    assert (mine / "tree" / "file").read_bytes() == b"mine"


def test_two_files_that_are_one_name_on_this_file_system_are_not_made_one(
    tmp_path_factory: pytest.TempPathFactory, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = VaultMaker(tmp_path_factory.mktemp("packs"))
    maker.file(b"Note", b"one")
    maker.file(b"note", b"two")
    snapshot = maker.commit()
    reader = maker.reader()
    at = Beneath._parent

    def folding(self: Beneath, path: bytes, *, hold: bool = False) -> object:
        return at(self, path.lower(), hold=hold)

    monkeypatch.setattr(Beneath, "_parent", folding)
    with pytest.raises(TargetExists) as caught:
        restore(reader, snapshot, plan(reader, snapshot), os.fsencode(place / "out"))
    assert caught.value.params["reason"] == "collision"
    assert not (place / "out").exists()


def test_it_says_whether_anything_lies_in_it(place: Path) -> None:
    """What an error then tells the person to look after: not nothing, and not the target."""
    with Beneath.without_links(os.fsencode(place)) as around:
        for part in ("tree", "parts", "replaced"):
            with Staging(around, os.fsencode(place), b"one") as staging:
                assert not staging.holds_anything()
                (Path(os.fsdecode(staging.path)) / part / "7").write_bytes(b"plain")
                assert staging.holds_anything()
                staging.finished()
                staging.remove()
                assert not staging.holds_anything()
        with Staging(around, os.fsencode(place), b"one") as staging:
            staging.tree.make_directory(b"mine")
            os.rename(Path(os.fsdecode(staging.path)) / "tree", place / "out")
            assert not staging.holds_anything()  # it has its name: what is open as the tree is the target
            staging.finished()
            staging.remove()
