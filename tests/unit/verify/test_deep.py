from __future__ import annotations

from pathlib import Path

import blake3
import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.vault.stack import read_tree
from chatkeep.daemon.verify.deep import DeepReport, deep
from tests.support.restoring import Sample
from tests.support.vault_maker import VaultMaker


def codes(report: DeepReport) -> set[str]:
    return {finding.code for finding in report.findings}


def test_a_whole_vault_has_no_findings_and_everything_is_opened_once(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    seen: list[tuple[int, int]] = []
    report = deep(sample.maker.reader(), progress=lambda done, known: seen.append((done, known)))
    assert report.findings == ()
    assert (report.snapshots, report.databases) == (2, 1)
    parts = sum(len(layer.parts) for layer in sample.snapshot.manifest.stack)
    # Video (2), note, sparse (2), gone, journal; the database's three base runs and its new pages.
    assert report.blobs == 7 + 4 + parts
    assert seen[-1][0] == report.blobs
    chosen = deep(sample.maker.reader(), [sample.snapshot])
    assert (chosen.snapshots, chosen.findings) == (1, ())
    assert chosen.blobs < report.blobs


def test_every_damaged_pack_is_found_and_the_rest_is_still_verified(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    whole = deep(sample.maker.reader())
    for name in sample.maker.pack_names:
        sample.maker.damage(name, 40)  # in the first record
        report = deep(sample.maker.reader())
        assert "unreadable" in codes(report)
        assert any(finding.params.get("name") == str(name) for finding in report.findings)
        assert 0 < report.blobs < whole.blobs
        sample.maker.damage(name, 40)  # flipped back
    assert deep(sample.maker.reader()) == whole


def test_a_pack_that_is_gone_is_found(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    name = str(sample.maker.pack_names[0])
    del sample.maker.provider.objects[name]
    report = deep(sample.maker.reader())
    assert {"unreadable", "object-not-found"} <= codes(report)
    assert report.snapshots == 2


def test_one_bad_blob_is_one_finding_however_many_snapshots_use_it(tmp_path: Path) -> None:
    maker = VaultMaker(tmp_path, blobs_per_pack=3)
    for name in (b"a", b"b", b"c"):
        maker.file(name, name * 50)
    maker.commit()
    for number in range(3):
        maker.file(b"n%d" % number, b"%d" % number)
        maker.commit()
    maker.damage(maker.pack_names[0], 20)
    report = deep(maker.reader())
    bad = [finding for finding in report.findings if finding.code == "unreadable"]
    assert len(bad) == 1
    assert report.snapshots == 4
    assert report.blobs == 2 + 3 + 4 * 1  # b and c, the new ones, one part for each snapshot


def test_a_snapshot_whose_layer_is_damaged_is_told_and_its_neighbours_are_verified(tmp_path: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.file(b"a", b"a")
    maker.commit()
    maker.file(b"b", b"b")
    maker.commit()
    newest = maker.snapshots[-1].manifest.stack[0].parts[0].pack
    maker.damage(next(name for name in maker.pack_names if name.sha256 == newest), 20)
    report = deep(maker.reader())
    assert report.snapshots == 1
    assert codes(report) >= {"unreadable"}


def test_a_database_that_does_not_resolve_to_what_was_captured(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    maker = sample.maker
    # A layer that says of the same pages that they are another image: all ids and tags are right.
    image = bytearray(maker.images[maker.paths[b"msg.db"]][1])
    image[:512] = b"z" * 512
    maker.images[maker.paths[b"msg.db"]] = (512, bytes(image))
    image[512:1024] = b"y" * 512
    maker.database(b"msg.db", bytes(image), 512)
    maker.commit()
    report = deep(maker.reader())
    assert [(finding.code, finding.params["reason"]) for finding in report.findings] == [("unresolvable", "digest")]
    assert report.findings[0].params["path"] == b"msg.db"


def test_gaps_and_contradictions_are_findings_of_their_snapshot(tmp_path: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.symlink(b"l", b"x")
    maker.file(b"l/below", b"b")
    maker.file(b"short", b"12345", size=9)
    maker.commit(databases=3, set_digest=blake3.blake3(b"").digest())
    report = deep(maker.reader())
    found = {(finding.code, finding.params["reason"]) for finding in report.findings}
    assert found == {
        ("unresolvable", "not-a-directory"),
        ("unresolvable", "size"),
        ("unresolvable", "set-digest"),
    }
    assert {finding.params["snapshot"] for finding in report.findings} == {str(maker.snapshots[0].name)}


def test_a_missing_manifest_is_a_finding(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    sample.maker.file(b"more", b"more")
    sample.maker.commit()
    del sample.maker.provider.objects[str(sample.snapshot.name)]
    report = deep(sample.maker.reader())
    assert codes(report) == {"missing-object", "snapshots-missing"}
    assert report.snapshots == 2


def test_cancelling(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    with pytest.raises(Cancelled):
        deep(sample.maker.reader(), cancelled=lambda: True)


def test_empty_databases_and_snapshots(tmp_path: Path) -> None:
    maker = VaultMaker(tmp_path)
    maker.database(b"empty.db", b"", 512)
    snapshot = maker.commit()
    assert read_tree(maker.reader(), snapshot).paths == {b"empty.db": 1}
    report = deep(maker.reader())
    assert (report.databases, report.findings) == (1, ())
