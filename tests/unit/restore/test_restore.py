from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.restore import fill
from chatkeep.daemon.restore.apply import Choices, Origin, apply
from chatkeep.daemon.restore.attributes import Attributes
from chatkeep.daemon.restore.beneath import Beneath
from chatkeep.daemon.restore.errors import (
    NoSpace,
    NothingToRestore,
    ProofFailed,
    TargetExists,
    TargetInsideSource,
    TargetInUse,
    TargetUnwritable,
)
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.restore.staging import PREFIX, Staging
from chatkeep.daemon.vault.blob import BlobKind, BlobRef
from chatkeep.daemon.vault.errors import Malformed, Unreadable
from chatkeep.daemon.vault.layers import Extent
from chatkeep.daemon.vault.names import PackName
from tests.support.restoring import Sample, gets, shape_of, unlock_directories
from tests.support.vault_maker import VaultMaker, chunks, pending


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("packs"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where to restore to; directories that may not be written are made removable afterwards."""
    yield tmp_path
    unlock_directories(tmp_path)


def test_everything_comes_back(sample: Sample, place: Path) -> None:
    report = sample.restore(place / "out")
    assert shape_of(place / "out") == sample.shape
    video = os.stat(place / "out" / "media" / "video")
    assert video.st_nlink == 2
    assert os.stat(place / "out" / "sparse").st_blocks * 512 < 1 << 20
    assert os.listdir(place) == ["out"]
    assert (report.reused, report.damaged, report.unset, report.pending) == (0, (), (), ())
    assert report.files == 9


def test_an_older_snapshot_is_not_touched_by_the_newer(sample: Sample, place: Path) -> None:
    reader, first = sample.maker.reader(), sample.maker.snapshots[0]
    restore(reader, first, plan(reader, first), os.fsencode(place / "out"))
    assert (place / "out" / "gone").read_bytes() == b"gone"
    assert len((place / "out" / "msg.db").read_bytes()) == 512 * 5000


def test_an_empty_target_is_filled_and_keeps_its_place(sample: Sample, place: Path) -> None:
    (place / "out").mkdir()
    inode = os.stat(place / "out").st_ino
    sample.restore(place / "out")
    assert shape_of(place / "out") == sample.shape
    assert os.stat(place / "out").st_ino == inode


def test_a_target_with_anything_in_it_is_left_alone(sample: Sample, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "mine").write_bytes(b"mine")
    before = shape_of(place)
    with pytest.raises(TargetExists):
        sample.restore(place / "out")
    (place / "file").write_bytes(b"")
    with pytest.raises(TargetExists):
        sample.restore(place / "file", overwrite=True)
    (place / "file").unlink()
    assert {path: facts[:2] for path, facts in shape_of(place).items()} == {
        path: facts[:2] for path, facts in before.items()
    }


def test_overwriting_replaces_what_is_in_the_way_and_nothing_else(sample: Sample, place: Path) -> None:
    out = place / "out"
    (out / "media").mkdir(parents=True)
    (out / "mine").write_bytes(b"mine")
    (out / "media" / "note.txt").write_bytes(b"another note")
    (out / "msg.db").write_bytes(b"another database")
    for suffix in ("-wal", "-shm", "-journal"):
        (out / f"msg.db{suffix}").write_bytes(b"of the other database")
    (out / "link").symlink_to("mine")
    sample.restore(out, overwrite=True)
    assert (out / "mine").read_bytes() == b"mine"
    (out / "mine").unlink()
    os.utime(out, ns=(0, sample.shape[b""][2]))  # type: ignore[arg-type]
    assert shape_of(out) == sample.shape


@pytest.mark.parametrize("overwrite", [True, False])
def test_chosen_paths_go_beside_what_is_there(sample: Sample, place: Path, overwrite: bool) -> None:
    out = place / "out"
    (out / "media").mkdir(parents=True, mode=0o700)
    (out / "mine").write_bytes(b"mine")
    sample.restore(out, [b"media/\xff odd", b"empty"], overwrite=overwrite)
    found = shape_of(out)
    assert set(found) == {b"", b"media", b"media/\xff odd", b"media/\xff odd/video", b"empty", b"mine"}
    assert found[b"media/\xff odd/video"] == sample.shape[b"media/video"]
    assert found[b"media"][1] == 0o700  # not chosen, only on the way


def test_a_chosen_path_that_is_there_needs_overwrite(sample: Sample, place: Path) -> None:
    (place / "empty").write_bytes(b"not empty")
    with pytest.raises(TargetExists) as caught:
        sample.restore(place, [b"empty"])
    assert caught.value.params == {"path": b"empty", "reason": "exists"}
    assert (place / "empty").read_bytes() == b"not empty"
    sample.restore(place, [b"empty"], overwrite=True)
    assert (place / "empty").read_bytes() == b""


@pytest.mark.parametrize("kind", ["directory for file", "file for directory", "link for directory"])
def test_another_kind_in_the_way_is_never_replaced(sample: Sample, place: Path, kind: str) -> None:
    out, other = place / "out", place / "other"
    out.mkdir()
    other.mkdir()
    if kind == "directory for file":
        (out / "empty").mkdir()
    elif kind == "file for directory":
        (out / "media").write_bytes(b"x")
    else:
        (out / "media").symlink_to(other)
    with pytest.raises(TargetExists) as caught:
        sample.restore(out, overwrite=True)
    assert caught.value.params["reason"] == "kind"
    assert os.listdir(other) == []


def test_the_target_itself_may_be_reached_through_a_link(sample: Sample, place: Path) -> None:
    (place / "real").mkdir()
    (place / "alias").symlink_to(place / "real")
    sample.restore(place / "alias")
    assert shape_of(place / "real") == sample.shape


# --- interruptions


def test_a_cancelled_restore_goes_on_where_it_was(sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "_THREADS", 1)  # one pack after the other: what is finished is then known
    reader = sample.maker.reader()
    made = plan(reader, sample.snapshot)
    written: list[int] = []
    with pytest.raises(Cancelled) as raised:
        restore(
            reader,
            sample.snapshot,
            made,
            os.fsencode(place / "out"),
            progress=lambda *figures: written.append(figures[0]),
            cancelled=lambda: written[-1] > 1 << 20,
        )
    assert not (place / "out").exists()
    (staging,) = place.iterdir()
    assert raised.value.params == {"staging": os.fsencode(staging)}, "plain files lie there, and nobody knows"
    assert (staging / "tree" / "msg.db").exists(), "the database is first"
    since = len(sample.maker.provider.verbs)
    report = sample.restore(place / "out")
    assert shape_of(place / "out") == sample.shape
    assert report.reused >= 1
    assert os.listdir(place) == ["out"]
    every = gets(sample.maker, 0)
    assert gets(sample.maker, since) < every


def test_what_an_interruption_left_is_believed_only_by_its_bytes(sample: Sample, place: Path) -> None:
    sample.restore(place / "whole")
    staging = Path(os.fsdecode(bytes(place) + b"/" + PREFIX)).with_name(
        os.fsdecode(PREFIX) + sample.snapshot.name.sha256.hex()[:12]
    )
    tree = staging / "tree"
    (place / "whole").rename(place / "kept")
    staging.mkdir(mode=0o700)
    (place / "kept").rename(tree)
    unlock_directories(tree)
    (staging / "parts").mkdir()
    (staging / "parts" / "5").write_bytes(b"half")
    # One of each: right length and wrong bytes; a filled hole; a wrong page; too long; what the snapshot does not have.
    _patch(tree / "media" / "video", 1 << 20, b"?")
    _patch(tree / "sparse", 1 << 20, b"?")
    _patch(tree / "msg.db", 5000, b"?")
    _patch(tree / "empty", 0, b"?")
    (tree / "stranger").write_bytes(b"x")
    (tree / "link").unlink()
    (tree / "link").write_bytes(b"not a link")
    report = sample.restore(place / "out")
    assert report.reused == 2  # the note and the journal
    assert shape_of(place / "out") == sample.shape


def _patch(path: Path, at: int, content: bytes) -> None:
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)


def test_two_restores_of_one_snapshot_do_not_meet(sample: Sample, place: Path) -> None:
    short = sample.snapshot.name.sha256.hex()[:12].encode()
    with Beneath(place) as around, Staging(around, os.fsencode(place), short), pytest.raises(TargetInUse):
        sample.restore(place / "out")
    sample.restore(place / "out")


def test_a_staging_directory_of_another_kind_is_not_used(sample: Sample, place: Path, tmp_path: Path) -> None:
    (place / "elsewhere").mkdir()
    name = os.fsdecode(PREFIX) + sample.snapshot.name.sha256.hex()[:12]
    (place / name).symlink_to(place / "elsewhere")
    with pytest.raises(TargetExists):
        sample.restore(place / "out")
    assert os.listdir(place / "elsewhere") == []


# --- damage


def test_damage_stops_a_restore_and_salvage_leaves_out_what_it_touches(tmp_path: Path, place: Path) -> None:
    sample = Sample(tmp_path)
    bad = _pack_of(sample, b"media/video", 1)
    sample.maker.damage(bad, 300)
    with pytest.raises(Unreadable):
        sample.restore(place / "out")
    assert not (place / "out").exists()
    report = sample.restore(place / "out", salvage=True)
    lost = {path for path, _ in report.damaged}
    assert b"media/video" in lost
    assert b"msg.db" not in lost
    kept = shape_of(place / "out")
    # Other names of a lost file are lost with it; everything else is there.
    assert set(kept) == set(sample.shape) - lost - {b"media/\xff odd/video"}
    assert all(kept[path] == sample.shape[path] for path in kept)


def _pack_of(sample: Sample, path: bytes, extent: int) -> PackName:
    made = plan(sample.maker.reader(), sample.snapshot)
    ref = made.extents[made.paths[path]][extent].reference
    assert ref is not None
    return next(name for name in sample.maker.pack_names if name.sha256 == ref.pack)


def test_nothing_left_to_salvage_is_an_error(tmp_path: Path, place: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"a", b"content")
    snapshot = maker.commit()
    maker.damage(maker.pack_names[0], 20)
    reader = maker.reader()
    with pytest.raises(NothingToRestore):
        restore(reader, snapshot, plan(reader, snapshot), os.fsencode(place / "out"), Choices(salvage=True))


def test_a_database_that_is_not_the_captured_one_is_not_given_its_name(sample: Sample, place: Path) -> None:
    reader = sample.maker.reader()
    made = plan(reader, sample.snapshot)
    file_id = made.paths[b"msg.db"]
    # As if layers had been resolved wrongly: every blob is authentic, the image is not the captured one.
    first, *others = made.databases[file_id].pieces
    first.spans[1] += 1
    with pytest.raises(ProofFailed) as caught:
        restore(reader, sample.snapshot, made, os.fsencode(place / "out"))
    assert caught.value.params["path"] == b"msg.db"
    assert not (place / "out").exists()
    assert others


def test_a_set_of_databases_that_is_not_the_captured_one_is_told(tmp_path: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.database(b"a.db", bytes(range(256)) * 2, 512)
    snapshot = maker.commit(set_digest=b"x" * 32)
    (fault,) = plan(maker.reader(), snapshot).faults
    assert fault.params["reason"] == "set-digest"


def test_pending_files_are_left_out_and_told(tmp_path: Path, place: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"here", b"x")
    pending(maker, b"later")
    snapshot = maker.commit()
    reader = maker.reader()
    report = restore(reader, snapshot, plan(reader, snapshot), os.fsencode(place / "out"))
    assert report.pending == (b"later",)
    assert os.listdir(place / "out") == ["here"]


# --- hostile trees


def origin(maker: VaultMaker, source: Path | None = None) -> Origin:
    """One that is never asked for a blob."""

    def fetch(kind: BlobKind, refs: Sequence[BlobRef]) -> Iterator[tuple[BlobRef, bytes]]:
        raise AssertionError((kind, refs))

    return Origin("abc", fetch, maker.ids, None if source is None else os.fsencode(source))


@pytest.mark.parametrize("path", [b"../evil", b"/tmp/evil", b"a/../../evil", b"a\0b", b"a//b", b".", b"x" * 256])
def test_a_path_out_of_the_target_is_refused_by_the_last_line_too(tmp_path: Path, place: Path, path: bytes) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"good", b"")
    made = plan(maker.reader(), maker.commit())
    # Decoding a layer refuses such a path: this is a plan that came past it.
    hostile = made.paths[b"good"]
    for key in list(made.paths):
        del made.paths[key]
    made.paths[path] = hostile
    before = sorted(os.listdir(place))
    with pytest.raises(Malformed):
        apply(made, origin(maker), os.fsencode(place / "out"))
    assert [name for name in sorted(os.listdir(place)) if not name.startswith(".chatkeep")] == before


def test_files_below_a_link_are_left_out_and_nothing_is_written_through_it(tmp_path: Path, place: Path) -> None:
    outside = place / "outside"
    outside.mkdir()
    maker = VaultMaker(tmp_path)
    maker.symlink(b"door", os.fsencode(outside))
    maker.file(b"door/evil", b"evil")
    maker.file(b"good", b"good")
    snapshot = maker.commit()
    reader = maker.reader()
    report = restore(reader, snapshot, plan(reader, snapshot), os.fsencode(place / "out"))
    assert [path for path, _ in report.damaged] == [b"door/evil"]
    assert os.listdir(outside) == []
    assert sorted(os.listdir(place / "out")) == ["door", "good"]


@pytest.mark.parametrize("asked", [False, True])
def test_special_bits_come_back_only_when_asked_for(tmp_path: Path, place: Path, asked: bool) -> None:
    maker = VaultMaker(tmp_path)
    maker.directory(b"", mode=0o3755)
    maker.file(b"tool", b"#!/bin/sh", mode=0o6755)
    snapshot = maker.commit()
    reader = maker.reader()
    choices = Choices(attributes=Attributes(special_bits=asked))
    restore(reader, snapshot, plan(reader, snapshot), os.fsencode(place / "out"), choices)
    assert stat.S_IMODE(os.stat(place / "out" / "tool").st_mode) == (0o6755 if asked else 0o755)
    assert stat.S_IMODE(os.stat(place / "out").st_mode) == (0o3755 if asked else 0o755)


PRIVILEGED = tuple((name, b"\x01") for name in (b"security.x", b"security.capability", b"trusted.overlay.opaque"))


def test_extended_attributes_come_back_or_are_reported(tmp_path: Path, place: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"a", b"x", mode=0o400, xattrs=((b"user.note", b"\0v"), (b"nonsense.x", b"1"), *PRIVILEGED))
    snapshot = maker.commit()
    reader = maker.reader()
    report = restore(reader, snapshot, plan(reader, snapshot), os.fsencode(place / "out"))
    failed = {unset.what for unset in report.unset}
    assert "nonsense.x" in failed
    assert report.unset_count == len(failed)
    assert failed >= {"security.x", "security.capability", "trusted.overlay.opaque"}
    if "user.note" not in failed:  # a file system without them says so, and that is reported
        assert os.getxattr(place / "out" / "a", "user.note") == b"\0v"


def test_a_file_that_is_nearly_all_hole_costs_what_it_holds(tmp_path: Path, place: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"a", b"x", 1 << 42, b"y")  # 4 TiB; the file system may refuse it, but nothing may fill the disk
    snapshot = maker.commit()
    reader = maker.reader()
    made = plan(reader, snapshot)
    assert made.figures.content == 2
    restore(reader, snapshot, made, os.fsencode(place / "out"))
    facts = os.stat(place / "out" / "a")
    assert (facts.st_size, facts.st_blocks < 64) == ((1 << 42) + 2, True)


def test_a_size_beyond_every_file_system_is_an_error_and_not_a_full_disk(tmp_path: Path, place: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"a", b"x", 1 << 60)
    snapshot = maker.commit()
    reader = maker.reader()
    made = plan(reader, snapshot)
    failed: list[object] = []
    try:
        restore(reader, snapshot, made, os.fsencode(place / "out"))
    except TargetUnwritable as exc:
        failed.append(exc.params["path"])
    assert failed == [b"a"] or os.stat(place / "out" / "a").st_blocks < 64


# --- the target


def test_more_than_fits_is_refused_before_anything_is_fetched(sample: Sample, place: Path) -> None:
    reader = sample.maker.reader()
    made = plan(reader, sample.snapshot)
    file_id = made.paths[b"empty"]
    ref = next(own for extents in made.extents.values() for own in extents if own.reference).reference
    made.extents[file_id] = [Extent(1 << 20, ref)] * (1 << 26 if os.statvfs(place).f_bavail < 1 << 33 else 1)
    since = len(sample.maker.provider.verbs)
    with pytest.raises(NoSpace) as caught:
        restore(reader, sample.snapshot, made, os.fsencode(place / "out"))
    assert caught.value.params["needed"] > caught.value.params["free"]  # type: ignore[operator]
    assert not gets(sample.maker, since)


def test_a_target_inside_the_source_is_refused(sample: Sample, place: Path) -> None:
    source = place / "source"
    (source / "deep").mkdir(parents=True)
    inside = origin(sample.maker, source)
    made = plan(sample.maker.reader(), sample.snapshot)
    for target in (source / "out", source / "deep" / "out"):
        with pytest.raises(TargetInsideSource):
            apply(made, inside, os.fsencode(target))
    (source / "mine").write_bytes(b"")
    with pytest.raises(TargetExists):  # the source itself is a place to restore to, under the usual rules
        apply(made, inside, os.fsencode(source))


def test_a_parent_that_is_not_there_is_an_error(sample: Sample, place: Path) -> None:
    with pytest.raises(TargetUnwritable):
        sample.restore(place / "no" / "such")
    assert os.listdir(place) == []


def test_progress_ends_at_the_total(sample: Sample, place: Path) -> None:
    reader = sample.maker.reader()
    made = plan(reader, sample.snapshot)
    seen: list[tuple[int, int]] = []
    restore(
        reader,
        sample.snapshot,
        made,
        os.fsencode(place / "out"),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (made.figures.content, made.figures.content)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_many_files_open_at_once_are_few_descriptors(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatkeep.daemon.restore.parts._OPEN", 4)
    maker = VaultMaker(tmp_path, blobs_per_pack=30)
    # Two packs, and every file has one piece in each: all of them are open until the second is read.
    for number in range(30):
        maker.file(b"%02d" % number, b"%02d first" % number)
    maker.commit()
    first = {path: plan(maker.reader(), maker.snapshots[0]).extents[own][0] for path, own in maker.paths.items()}
    for path in list(maker.paths):
        maker.file(path + b"x", path + b" second")
    snapshot = maker.commit()
    reader = maker.reader()
    made = plan(reader, snapshot)
    for path, extent in first.items():
        made.extents[made.paths[path + b"x"]] = [extent, *made.extents[made.paths[path + b"x"]]]
    restore(reader, snapshot, made, os.fsencode(place / "out"))
    for path in first:
        assert (place / "out" / os.fsdecode(path + b"x")).read_bytes() == path + b" first" + path + b" second"


def test_owners_are_given_back_only_by_root_and_only_when_asked(tmp_path: Path, place: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"a", b"x", uid=12345, gid=23456)
    snapshot = maker.commit()
    reader = maker.reader()
    for asked in (False, True):
        choices = Choices(attributes=Attributes(ownership=asked))
        restore(reader, snapshot, plan(reader, snapshot), os.fsencode(place / f"{asked}"), choices)
        facts = os.stat(place / f"{asked}" / "a")
        given = (facts.st_uid, facts.st_gid)
        assert given == ((12345, 23456) if asked and os.geteuid() == 0 else (os.geteuid(), os.getegid()))


def test_chunks_of_the_wrong_length_are_refused(tmp_path: Path, place: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"a", *chunks(b"x" * 10))
    snapshot = maker.commit()
    reader = maker.reader()
    made = plan(reader, snapshot)
    (extent,) = made.extents[made.paths[b"a"]]
    made.extents[made.paths[b"a"]] = [msgspec.structs.replace(extent, length=11)]
    with pytest.raises(Malformed):
        restore(reader, snapshot, made, os.fsencode(place / "out"))


def test_a_record_of_a_directory_alone_is_a_directory(place: Path, tmp_path: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.directory(b"only")
    snapshot = maker.commit()
    reader = maker.reader()
    restore(reader, snapshot, plan(reader, snapshot), os.fsencode(place / "out"))
    assert os.listdir(place / "out") == ["only"]
