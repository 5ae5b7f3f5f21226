"""Signatures: what says that nothing changed, and when it may not be believed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.capture.position import FileVersion, IndexMark, Signature, WalPoint

NOW = 1_800_000_000_123_456_789
SECOND = 1_000_000_000
OLD = NOW - 10 * SECOND
FILE = FileVersion(1, 2, 4096, OLD, OLD)
QUIET = Signature(NOW, FILE, FILE._replace(ino=3), None, IndexMark(5, 6, b"saltsalt"))

versions = st.builds(
    FileVersion,
    *[st.integers(0, 2**64 - 1)] * 2,
    *[st.integers(-(2**63), 2**63 - 1)] * 3,
)
numbers = st.integers(0, 2**32 - 1)
salts = st.binary(min_size=8, max_size=8)
signatures = st.builds(
    Signature,
    st.integers(-(2**63), 2**63 - 1),
    versions,
    st.none() | versions,
    st.none() | versions,
    st.none() | st.builds(IndexMark, numbers, numbers, salts),
    st.none()
    | st.builds(WalPoint, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), salts, numbers, salts, st.booleans()),
)


@given(signatures)
def test_a_signature_survives_its_bytes(signature: Signature) -> None:
    assert Signature.decode(signature.encode()) == signature


@given(signatures, st.data())
def test_damaged_bytes_are_no_signature_or_another(signature: Signature, data: st.DataObject) -> None:
    raw = signature.encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    assert Signature.decode(raw[:cut]) is None
    assert Signature.decode(raw + b"\0") is None
    assert Signature.decode(b"\2" + raw[1:]) is None


def test_the_same_and_old_enough_is_unchanged() -> None:
    assert not replace(QUIET, taken_ns=NOW + 50 * SECOND).changed_since(QUIET)


@pytest.mark.parametrize(
    "change",
    [
        {"db": FILE._replace(ino=9)},
        {"db": FILE._replace(size=8192)},
        {"db": FILE._replace(mtime_ns=OLD + 1)},
        {"db": FILE._replace(ctime_ns=OLD + 1)},
        {"wal": None},
        {"wal": FILE._replace(ino=3, size=1)},
        {"journal": FILE},
        {"index": None},
        {"index": IndexMark(6, 6, b"saltsalt")},
        {"index": IndexMark(5, 7, b"saltsalt")},
        {"index": IndexMark(5, 6, b"SALTsalt")},
    ],
    ids=str,
)
def test_any_difference_is_a_change(change: dict[str, object]) -> None:
    assert replace(QUIET, **change).changed_since(QUIET)  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["db", "wal"])
@pytest.mark.parametrize("age", [0, SECOND, 2 * SECOND - 1, -SECOND])
def test_what_was_written_just_before_the_look_is_not_believed(which: str, age: int) -> None:
    fresh = getattr(QUIET, which)._replace(mtime_ns=NOW - age)
    young = replace(QUIET, **{which: fresh})
    assert young.changed_since(young)


def test_the_point_is_not_part_of_the_comparison() -> None:
    point = WalPoint(1, 3, b"saltsalt", 6, b"anchored", flushed=False)
    assert not replace(QUIET, point=point).changed_since(QUIET)


@pytest.mark.parametrize(
    ("mtime", "age", "settled"),
    [
        (OLD, 20_000_000, True),
        (OLD, 19_999_999, False),
        (OLD, -1, False),
        # Whole seconds, as a coarse file system has them: two of them have to pass.
        (OLD - OLD % SECOND, 2 * SECOND - 1, False),
        (OLD - OLD % SECOND, 2 * SECOND, True),
    ],
)
def test_settled_when_every_later_write_shows(mtime: int, age: int, settled: bool) -> None:
    version = FILE._replace(mtime_ns=mtime, ctime_ns=mtime)
    assert version.settled(mtime + age) is settled


def test_a_young_ctime_is_as_unsettled_as_a_young_mtime() -> None:
    assert not FILE._replace(ctime_ns=NOW).settled(NOW + 1)


def test_generations_are_named_by_file_and_salts() -> None:
    point = WalPoint(1, 3, b"saltsalt", 6, b"anchored", flushed=False)
    assert point.same_generation(point._replace(mx_frame=9, anchor=b"elsewher", flushed=True))
    assert not point.same_generation(point._replace(salts=b"SALTsalt"))
    assert not point.same_generation(point._replace(ino=4))
    fresh = point._replace(salts=bytes(8))
    assert not fresh.same_generation(fresh), "a log without a commit has no name yet"
