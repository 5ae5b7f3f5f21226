"""Digests of pages: the table on disk, the overlay over it, the digest of a whole database."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import blake3
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.capture.digests import (
    DIGEST_SIZE,
    UNKNOWN,
    DigestTable,
    Overlay,
    differing,
    lock_page,
    page_digests,
    page_table_digest,
)
from chatkeep.daemon.capture.errors import TableIncomplete

GENERATION = b"generation of 16"
SEED = 0x0123456789ABCDEF
KEY = bytes(range(32))


class Listed:
    """Digests in a list: what the table and the overlay are compared with."""

    page_size = 4096

    def __init__(self, entries: list[bytes]) -> None:
        self.entries = entries

    @property
    def count(self) -> int:
        return len(self.entries)

    def read(self, first: int, pages: int) -> bytes:
        found = self.entries[first - 1 : first - 1 + pages]
        return b"".join(found) + bytes(DIGEST_SIZE * (pages - len(found)))


def some(number: int) -> bytes:
    return number.to_bytes(DIGEST_SIZE, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table"


def test_a_page_digest_is_the_canonical_xxh3_128_with_the_seed() -> None:
    pages = os.urandom(3 * 512)
    expected = [
        xxhash.xxh3_128(pages[at : at + 512], seed=SEED).intdigest().to_bytes(16, "big") for at in (0, 512, 1024)
    ]
    assert page_digests(pages, 512, SEED) == b"".join(expected)
    assert page_digests(pages, 512, SEED) != page_digests(pages, 512, SEED + 1)
    # Two values of the specification's own reference implementation: empty input, and the seed's effect on it.
    assert xxhash.xxh3_128_digest(b"", 0).hex() == "99aa06d3014798d86001c324468d497f"


def test_half_a_page_has_no_digest() -> None:
    with pytest.raises(ValueError):
        page_digests(bytes(5000), 4096, SEED)


def test_what_was_applied_is_read_again_also_by_the_next_process(path: Path) -> None:
    with DigestTable(path, 4096, GENERATION) as table:
        assert table.count == 0
        table.apply([(1, some(1) + some(2)), (4, some(4))])
        table.sync()
    with DigestTable(path, 4096, GENERATION) as table:
        assert table.count == 4
        assert table.read(1, 4) == some(1) + some(2) + UNKNOWN + some(4)
        assert table.read(4, 3) == some(4) + UNKNOWN * 2
        assert table.read(9, 1) == UNKNOWN


@pytest.mark.parametrize(
    ("page_size", "generation"), [(8192, GENERATION), (4096, b"another of 16 b.")], ids=["page size", "generation"]
)
def test_a_table_of_another_life_begins_empty(path: Path, page_size: int, generation: bytes) -> None:
    with DigestTable(path, 4096, GENERATION) as table:
        table.apply([(1, some(1))])
    with DigestTable(path, page_size, generation) as table:
        assert table.count == 0
        assert table.read(1, 1) == UNKNOWN
    assert path.stat().st_size == 32


@pytest.mark.parametrize("damage", [b"", b"CKDIGT\0\2" + bytes(60), os.urandom(20)], ids=["empty", "version", "noise"])
def test_a_damaged_header_makes_the_table_empty(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with DigestTable(path, 4096, GENERATION) as table:
        assert table.count == 0
        table.apply([(1, some(1))])
    assert path.read_bytes() == b"CKDIGT\0\1" + GENERATION + struct.pack(">I4x", 4096) + some(1)


@pytest.mark.parametrize("takes", [1, 12, 20])
def test_a_header_is_written_whole_however_little_a_write_takes(
    path: Path, takes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def little(descriptor: int, piece: memoryview, at: int) -> int:
        calls.append(at)
        return real(descriptor, piece[:takes], at)

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", little)
    with DigestTable(path, 4096, GENERATION) as table:
        assert table.count == 0
        table.apply([(1, b"d" * DIGEST_SIZE)])
    assert len(calls) > 2, "no write was short"
    with DigestTable(path, 4096, GENERATION) as table:
        assert table.read(1, 1) == b"d" * DIGEST_SIZE


def test_a_part_of_an_entry_is_none(path: Path) -> None:
    with DigestTable(path, 4096, GENERATION) as table:
        table.apply([(1, some(1) + some(2))])
    os.truncate(path, 32 + 16 + 9)
    with DigestTable(path, 4096, GENERATION) as table:
        assert table.count == 1
        table.apply([(2, some(2))])
        assert table.read(1, 2) == some(1) + some(2)


def test_pages_that_come_back_after_a_shrink_are_unknown(path: Path) -> None:
    with DigestTable(path, 4096, GENERATION) as table:
        table.apply([(1, some(1) * 10)])
        table.truncate(5)
        table.apply([(8, some(8))])
        assert table.read(1, 8) == some(1) * 5 + UNKNOWN * 2 + some(8)


def test_a_redo_applied_twice_is_applied_once(path: Path) -> None:
    redo = (5, [(2, some(22)), (7, some(77) * 3)])
    images = []
    with DigestTable(path, 4096, GENERATION) as table:
        table.apply([(1, some(1) * 8)])
        for _ in range(3):
            table.truncate(redo[0])
            table.apply(redo[1])
            images.append((table.count, table.read(1, 12)))
    assert images[0] == images[1] == images[2]


def test_differing_names_the_pages() -> None:
    assert differing(some(1) + some(2) + some(3), some(1) + some(9), 10) == [11, 12]
    assert differing(some(1), some(1), 10) == []


OVERLAY_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 40), st.integers(1, 12)),
        st.tuples(st.just("truncate"), st.integers(0, 40), st.just(0)),
    ),
    max_size=25,
)


@given(st.integers(0, 30), OVERLAY_STEPS)
def test_an_overlay_is_what_the_table_becomes(known: int, steps: list[tuple[str, int, int]]) -> None:
    under = Listed([some(1000 + page) for page in range(known)])
    overlay, model = Overlay(under), list(under.entries)
    for number, (what, page, count) in enumerate(steps, start=1):
        if what == "truncate":
            overlay.truncate(page)
            del model[page:]
        else:
            digests = [some(number * 100 + at) for at in range(count)]
            overlay.put(page, b"".join(digests))
            model += [UNKNOWN] * (page + count - 1 - len(model))
            model[page - 1 : page - 1 + count] = digests
        assert overlay.count == len(model)
        assert overlay.read(1, 60) == Listed(model).read(1, 60)
        assert overlay.read(7, 5) == Listed(model).read(7, 5)
    table = list(under.entries)[: overlay.reach]
    for first, run in overlay.runs():
        pages = [run[at : at + DIGEST_SIZE] for at in range(0, len(run), DIGEST_SIZE)]
        table += [UNKNOWN] * (first + len(pages) - 1 - len(table))
        table[first - 1 : first - 1 + len(pages)] = pages
    # Unknown entries at the end are the only difference the redo may leave.
    assert Listed(table).read(1, 60) == Listed(model).read(1, 60)
    assert b"".join(overlay.chunks(50)) == Listed(model).read(1, 50)


def test_the_digest_of_a_database_is_the_formula_of_the_format_page() -> None:
    digests = [some(page) for page in range(1, 6)]
    expected = blake3.blake3(struct.pack(">IQ", 4096, 5) + b"".join(digests), key=KEY).digest()
    assert page_table_digest([b"".join(digests[:2]), b"".join(digests[2:])], 4096, 5, KEY, SEED) == expected


@pytest.mark.parametrize("entry", [UNKNOWN, some(77)], ids=["unknown", "stale"])
def test_the_lock_page_counts_as_zeros(entry: bytes) -> None:
    hole = lock_page(65536)
    digests = [some(page) for page in range(1, hole + 2)]
    digests[hole - 1] = page_digests(bytes(65536), 65536, SEED)
    expected = blake3.blake3(struct.pack(">IQ", 65536, hole + 1) + b"".join(digests), key=KEY).digest()
    digests[hole - 1] = entry
    pieces = [b"".join(digests[at : at + 4096]) for at in range(0, hole + 1, 4096)]
    assert page_table_digest(pieces, 65536, hole + 1, KEY, SEED) == expected


def test_no_digest_vouches_for_a_page_that_was_not_read() -> None:
    digests = some(1) + some(2) + UNKNOWN + some(4)
    with pytest.raises(TableIncomplete) as caught:
        page_table_digest([digests[:32], digests[32:]], 4096, 4, KEY, SEED)
    assert caught.value.params == {"page": 3}


def test_zero_bytes_across_two_digests_are_no_gap() -> None:
    digests = b"\1" + bytes(15) + bytes(15) + b"\1"
    assert page_table_digest([digests], 4096, 2, KEY, SEED)


def test_too_few_digests_are_refused() -> None:
    with pytest.raises(ValueError):
        page_table_digest([some(1)], 4096, 2, KEY, SEED)


@pytest.mark.parametrize(("page_size", "page"), [(512, 2097153), (4096, 262145), (65536, 16385)])
def test_the_lock_page_holds_byte_2_to_the_30(page_size: int, page: int) -> None:
    assert lock_page(page_size) == page
    assert (page - 1) * page_size <= 1 << 30 < page * page_size
