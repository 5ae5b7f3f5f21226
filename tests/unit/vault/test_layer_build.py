from __future__ import annotations

import random

import pytest

from chatkeep.daemon.vault.errors import Malformed, RecordTooLong
from chatkeep.daemon.vault.layer_build import LayerBuilder, split_ranges
from chatkeep.daemon.vault.layers import (
    MAX_BLOB,
    RESET,
    Extent,
    FileKind,
    FileRecord,
    Reference,
    Section,
    decode_part,
    join,
    make_run,
)
from chatkeep.daemon.vault.resolve import resolve_database, resolve_tree

OWN = b"o" * 32


def record(file_id: int, kind: FileKind = FileKind.FILE, size: int = 0, xattrs: int = 0) -> FileRecord:
    return FileRecord(file_id, kind, 0o600, 1, 2, b"u", b"g", 3, size, 0, b"", ((b"user.a", bytes(xattrs)),))


def reference(number: int) -> Reference:
    return Reference((number // 40 + 1).to_bytes(32, "big"), number % 40, number.to_bytes(32, "big"))


def test_nothing_added_gives_no_parts() -> None:
    builder = LayerBuilder()
    assert not builder
    assert builder.parts() == []


def test_a_file_of_30_gib_is_split_over_parts_and_tiles() -> None:
    extents = [Extent(MAX_BLOB, None if number % 9 == 8 else reference(number)) for number in range(30_000)]
    extents.append(Extent(17, reference(30_000)))
    size = 30_000 * MAX_BLOB + 17
    builder = LayerBuilder()
    builder.add_entry(b"video", 1)
    builder.add_file(record(1, size=size))
    builder.add_content(1, size, extents)
    parts = builder.parts()
    assert len(parts) == 2
    assert all(len(part) <= MAX_BLOB for part in parts)
    layer = join([decode_part(part, OWN) for part in parts])
    assert len(layer.contents) > 2
    assert list(resolve_tree([layer]).extents(1)) == extents


def test_a_long_section_is_split_and_only_its_oldest_piece_is_a_reset() -> None:
    # Ten thousand runs, each hidden in part by the one before: the order over the pieces decides.
    runs = [make_run([(number + 1, 256)], reference(number)) for number in range(20_000)]
    section = Section(1, RESET, 4096, 20_255, bytes(32), tuple(runs))
    builder = LayerBuilder()
    builder.add_section(section)
    parts = builder.parts()
    layers = [decode_part(part, OWN) for part in parts]
    pieces = join(layers).sections
    assert len(pieces) > 1
    assert [piece.flags for piece in pieces] == [0] * (len(pieces) - 1) + [RESET]
    assert {(piece.page_count, piece.digest) for piece in pieces} == {(20_255, bytes(32))}
    assert resolve_database(pieces) == resolve_database([section])
    assert [run for piece in pieces for run in piece.runs] == runs


def test_a_section_without_runs_is_kept() -> None:
    builder = LayerBuilder()
    builder.add_section(Section(1, RESET, 512, 0, bytes(32)))
    (layer,) = [decode_part(part, OWN) for part in builder.parts()]
    assert layer.sections == (Section(1, RESET, 512, 0, bytes(32)),)


def test_own_pack_and_other_packs_come_back() -> None:
    references = [Reference(None, 5, b"1" * 32), Reference(b"q" * 32, 6, b"2" * 32), Reference(b"r" * 32, 7, b"3" * 32)]
    builder = LayerBuilder()
    builder.add_content(1, 3, [Extent(1, ref) for ref in references])
    (part,) = builder.parts()
    found = [extent.reference for extent in decode_part(part, OWN).contents[0].extents]
    assert found == [Reference(OWN, 5, b"1" * 32), *references[1:]]


def test_the_order_of_adding_does_not_show(seed: int) -> None:
    def built(order: random.Random | None) -> list[bytes]:
        numbers = list(range(1, 200))
        if order is not None:
            order.shuffle(numbers)
        builder = LayerBuilder()
        for number in numbers:
            builder.add_entry(b"%d" % number, number)
            builder.add_file(record(number))
            builder.add_content(number, 9, [Extent(9, reference(number))])
            builder.add_section(Section(number, 0, 512, 1, bytes(32), (make_run([(1, 1)], reference(number)),)))
        return builder.parts(9000)

    assert built(random.Random(seed)) == built(None)


@pytest.mark.parametrize("limit", [2000, 2001, 2017, 2500, 4096])
def test_parts_keep_to_the_limit(limit: int, seed: int) -> None:
    chance = random.Random(seed)
    builder = LayerBuilder()
    for number in range(1, 150):
        builder.add_entry(bytes(chance.choices(range(48, 58), k=chance.randint(1, 200))), number)
        builder.add_file(record(number, xattrs=chance.randint(0, 900)))
        count = chance.randint(0, 60)
        blobs = [Reference(chance.randbytes(32), 65534, chance.randbytes(32)) for _ in range(count)]
        builder.add_content(number, count * MAX_BLOB, [Extent(MAX_BLOB, ref) for ref in blobs])
        runs = [make_run([(4_000_000_000 + number, 2048)], ref) for ref in blobs]
        builder.add_section(Section(number, 0, 512, 4_294_967_294, bytes(32), tuple(runs)))
    parts = builder.parts(limit)
    assert max(len(part) for part in parts) <= limit
    assert sum(len(part) for part in parts) / len(parts) > limit / 3


def test_a_record_that_fits_no_part_is_refused() -> None:
    builder = LayerBuilder()
    builder.add_file(record(1, xattrs=MAX_BLOB))
    with pytest.raises(RecordTooLong):
        builder.parts()


@pytest.mark.parametrize(
    "ref",
    [
        Reference(b"short", 0, bytes(32)),
        Reference(None, 0, b"short"),
        Reference(None, 65535, bytes(32)),
        Reference(None, -1, bytes(32)),
    ],
)
def test_a_reference_of_another_shape_is_not_written(ref: Reference) -> None:
    content, database = LayerBuilder(), LayerBuilder()
    content.add_content(1, 1, [Extent(1, ref)])
    database.add_section(Section(1, 0, 512, 1, bytes(32), (make_run([(1, 1)], ref),)))
    for builder in (content, database):
        with pytest.raises(Malformed):
            builder.parts()


@pytest.mark.parametrize(
    ("page_size", "ranges", "groups"),
    [
        (65536, [(1, 40)], [[(1, 16)], [(17, 16)], [(33, 8)]]),
        (65536, [(1, 15), (20, 2), (30, 1)], [[(1, 15), (20, 1)], [(21, 1), (30, 1)]]),
        (4096, [(1, 256), (257, 1)], [[(1, 256)], [(257, 1)]]),
        (512, [], []),
    ],
)
def test_ranges_are_cut_into_blobs(
    page_size: int, ranges: list[tuple[int, int]], groups: list[list[tuple[int, int]]]
) -> None:
    assert split_ranges(ranges, page_size) == groups
