from __future__ import annotations

import resource

import pytest

from chatkeep.daemon.vault import reader as reading
from chatkeep.daemon.vault import room as rooms
from chatkeep.daemon.vault.copies import MOST_FINDINGS, Findings
from chatkeep.daemon.vault.errors import MissingObject, SnapshotTooLarge, Unresolvable
from chatkeep.daemon.vault.layers import (
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
from chatkeep.daemon.vault.resolve import resolve_database
from chatkeep.daemon.vault.room import Room, most_memory, weight
from chatkeep.daemon.verify.deep import deep
from tests.support.limits import MIB, bounded
from tests.support.restoring import Sample


def test_room_is_half_of_what_the_process_may_have() -> None:
    physical = most_memory()
    assert physical > 64 * MIB

    def limited() -> str:
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        assert most_memory() == min(physical, soft // 2)
        return "asked"

    assert bounded(limited, memory=64 * MIB, seconds=5, space=256 * MIB).said == "asked"


def test_what_does_not_fit_is_refused_with_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "most_memory", lambda: 100)
    room = Room()
    room.take(60)
    with pytest.raises(SnapshotTooLarge) as caught:
        room.take(41)
    assert caught.value.params == {"needed": 101, "limit": 100}


def test_every_record_weighs() -> None:
    reference = Reference(b"p" * 32, 0, b"i" * 32)
    record = FileRecord(1, FileKind.FILE, 0, 0, 0, b"", b"", 0, 0, 0)
    section = Section(1, 0, 512, 1, b"d" * 32)
    parts = [
        Layer(),
        Layer(entries=(Entry(b"a", 1),)),
        Layer(files=(record,)),
        Layer(files=(FileRecord(1, FileKind.FILE, 0, 0, 0, b"", b"", 0, 0, 0, b"", ((b"a", b""),)),)),
        Layer(contents=(Content(1, 0, 0, ()),)),
        Layer(contents=(Content(1, 1, 0, (Extent(1, None),)),)),
        Layer(sections=(section,)),
        Layer(sections=(Section(1, 0, 512, 1, b"d" * 32, (make_run([(1, 1)], reference),)),)),
    ]
    weights = [weight(part, 7) for part in parts]
    assert weights[0] == 7
    assert len(set(weights)) == len(weights) - 1  # an entry weighs what a content does
    assert weights[3] > weights[2]
    assert weights[5] > weights[4]
    assert weights[7] > weights[6]


def test_a_map_of_pages_larger_than_memory_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run([(1, 2048)], Reference(b"p" * 32, 0, b"i" * 32))
    section = Section(1, 1, 512, 4096, b"d" * 32, (run, run))
    monkeypatch.setattr("chatkeep.daemon.vault.resolve.most_memory", lambda: 4095)
    with pytest.raises(Unresolvable) as caught:
        resolve_database([section])
    assert caught.value.params["reason"] == "too-large"


def test_findings_end() -> None:
    findings = Findings()
    for number in range(MOST_FINDINGS + 100):
        findings.add(MissingObject(str(number)))
    assert len(findings) == MOST_FINDINGS
    assert [one.params.get("reason") for one in findings][-1] == "too-many"


def test_directories_that_are_kept_open_are_few_or_small(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Sample(tmp_path_factory.mktemp("packs"))
    reader = sample.maker.reader()
    monkeypatch.setattr(reading, "MOST_OPEN_ENTRIES", 5)
    for name in sample.maker.pack_names * 2:
        reader.open_pack(0, name)
        kept = [one.count for one in reader._packs.values()]
        assert sum(kept) == reader._entries
        assert sum(kept) <= 5 or len(kept) == 1
    assert len(sample.maker.pack_names) > 5


def test_a_snapshot_that_does_not_fit_is_a_finding(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Sample(tmp_path_factory.mktemp("packs"))
    assert deep(sample.maker.reader()).snapshots == 2
    monkeypatch.setattr(rooms, "most_memory", lambda: 1)
    seen = deep(sample.maker.reader())
    assert (seen.snapshots, [one.code for one in seen.findings]) == (0, ["snapshot-too-large"] * 2)
    with pytest.raises(SnapshotTooLarge):
        sample.restore(tmp_path_factory.mktemp("out") / "out")
