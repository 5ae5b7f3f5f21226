from __future__ import annotations

import msgspec
import pytest

from chatkeep.daemon.vault.errors import Malformed, UnsupportedVersion
from chatkeep.daemon.vault.layers import (
    MAX_BLOB,
    MAX_PAGE,
    Entry,
    FileKind,
    FileRecord,
    Layer,
    check_path,
    decode_pages,
    decode_part,
    encode_pages,
    encode_ranges,
    join,
    ranges_of,
)

OWN = b"o" * 32
PACK = b"p" * 32
BLOB = b"b" * 32
NONE: list[object] = []


def part(
    *,
    packs: object = PACK,
    entries: object = NONE,
    files: object = NONE,
    contents: object = NONE,
    sections: object = NONE,
    version: object = 1,
) -> bytes:
    return msgspec.msgpack.encode([version, packs, entries, files, contents, sections])


def extent(length: int, pack: int = 1, slot: int = 0, blob: bytes = BLOB) -> bytes:
    return length.to_bytes(8, "big") + pack.to_bytes(4, "big") + slot.to_bytes(4, "big") + blob


def file(**changes: object) -> list[object]:
    fields: dict[str, object] = {
        "file_id": 1,
        "kind": 1,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "user": b"",
        "group": b"",
        "mtime": -1,
        "size": 0,
        "flags": 0,
        "target": b"",
        "xattrs": [],
    }
    return list((fields | changes).values())


def section(**changes: object) -> list[object]:
    fields: dict[str, object] = {"id": 1, "flags": 0, "size": 4096, "count": 9, "digest": BLOB, "runs": []}
    return list((fields | changes).values())


# --- page numbers


@pytest.mark.parametrize(
    ("pages", "raw"),
    [
        ([], ""),
        ([1], "0001"),
        ([1, 2, 3], "0003"),
        ([2], "0101"),
        ([1, 3], "00010101"),
        ([129, 130, 400], "8001028d0201"),
        ([MAX_PAGE], "fdffffff0f01"),
    ],
)
def test_page_numbers_have_the_documented_form(pages: list[int], raw: str) -> None:
    assert encode_pages(pages).hex() == raw
    assert decode_pages(bytes.fromhex(raw)) == ranges_of(pages)


def test_ranges_that_touch_are_joined() -> None:
    assert encode_ranges([(1, 2), (3, 4), (9, 1)]) == encode_pages([1, 2, 3, 4, 5, 6, 9])


@pytest.mark.parametrize("pages", [[2, 1], [1, 1], [0], [MAX_PAGE + 1], [-1]])
def test_pages_that_do_not_ascend_from_one_are_not_written(pages: list[int]) -> None:
    with pytest.raises(Malformed):
        encode_pages(pages)


@pytest.mark.parametrize(
    "raw",
    [
        "00",
        "80",
        "0080",
        "0000",
        "00010001",
        "800001",
        "008100",
        "ffffffffff01",
        "feffffff0f01",
        "00ffffffff7f",
        "00" * 3,
    ],
)
def test_other_forms_of_page_numbers_are_refused(raw: str) -> None:
    with pytest.raises(Malformed):
        decode_pages(bytes.fromhex(raw))


# --- paths


@pytest.mark.parametrize(
    "path", [b"", b"a", b"a/b", b"..a", b"a/...", b"\xff\xfe", b"n" * 255, b"/".join([b"n" * 255] * 16)]
)
def test_paths_inside_the_source_are_taken(path: bytes) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/a",
        b"a/",
        b"a//b",
        b".",
        b"..",
        b"a/..",
        b"../a",
        b"a/../b",
        b"a/./b",
        b"a\0b",
        b"n" * 256,
        b"a/" * 2048 + b"b",
    ],
)
def test_paths_that_could_leave_the_target_are_refused(path: bytes) -> None:
    with pytest.raises(Malformed):
        check_path(path)
    with pytest.raises(Malformed):
        decode_part(part(entries=[[path, 1]]), OWN)


# --- parts


def test_references_are_resolved_and_index_zero_is_the_pack_of_the_part() -> None:
    raw = part(
        contents=[[1, 20, 0, extent(5, 1, 65534) + extent(15, 0xFFFFFFFF, 0, bytes(32))]],
        sections=[section(runs=[[encode_pages([1, 2]), 0, 3, BLOB]])],
    )
    layer = decode_part(raw, OWN)
    first, hole = layer.contents[0].extents
    assert first.reference is not None
    assert (first.reference.pack, first.reference.slot, first.reference.id) == (PACK, 65534, BLOB)
    assert (hole.length, hole.reference) == (15, None)
    run = layer.sections[0].runs[0]
    assert (run.count, run.reference.pack) == (2, OWN)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("empty", b""),
        ("field missing", msgspec.msgpack.encode([1, b"", [], [], []])),
        ("field left over", msgspec.msgpack.encode([1, b"", [], [], [], [], []])),
        ("trailing bytes", part() + b"\0"),
        ("too long", part(packs=bytes(MAX_BLOB))),
        ("packs cut", part(packs=PACK[:-1])),
        ("file id zero", part(entries=[[b"a", 0]])),
        ("file id text", part(entries=[[b"a", "1"]])),
        ("file id too large for u64", part(entries=[[b"a", -1]])),
        ("path is text", part(entries=[["a", 1]])),
        ("kind", part(files=[file(kind=4)])),
        ("mode", part(files=[file(mode=0o10000)])),
        ("uid", part(files=[file(uid=1 << 32)])),
        ("mtime", part(files=[file(mtime=(1 << 63))])),
        ("size", part(files=[file(size=1 << 63)])),
        ("size of a directory", part(files=[file(kind=0, size=1)])),
        ("flags", part(files=[file(flags=16)])),
        ("target of a file", part(files=[file(target=b"x")])),
        ("link without target", part(files=[file(kind=2)])),
        ("NUL in a target", part(files=[file(kind=2, target=b"a\0")])),
        ("xattr without name", part(files=[file(xattrs=[[b"", b"v"]])])),
        ("xattr without value", part(files=[file(xattrs=[[b"user.a"]])])),
        ("extents cut", part(contents=[[1, 5, 0, extent(5)[:-1]]])),
        ("extent of nothing", part(contents=[[1, 5, 0, extent(0)]])),
        ("extent too long", part(contents=[[1, 1 << 30, 0, extent(MAX_BLOB + 1)]])),
        ("content beyond its size", part(contents=[[1, 5, 1, extent(5)]])),
        ("holes beyond every size", part(contents=[[1, 5, 0, extent((1 << 64) - 1, 0xFFFFFFFF, 0, bytes(32))]])),
        ("hole with an id", part(contents=[[1, 5, 0, extent(5, 0xFFFFFFFF)]])),
        ("hole with a slot", part(contents=[[1, 5, 0, extent(5, 0xFFFFFFFF, 1, bytes(32))]])),
        ("pack index", part(contents=[[1, 5, 0, extent(5, 2)]])),
        ("slot", part(contents=[[1, 5, 0, extent(5, 1, 65535)]])),
        ("page size", part(sections=[section(size=1000)])),
        ("page size small", part(sections=[section(size=256)])),
        ("page size large", part(sections=[section(size=131072)])),
        ("page count", part(sections=[section(count=MAX_PAGE + 1)])),
        ("digest", part(sections=[section(digest=b"x")])),
        ("section flags", part(sections=[section(flags=2)])),
        ("run of nothing", part(sections=[section(runs=[[b"", 1, 0, BLOB]])])),
        ("run too long", part(sections=[section(runs=[[encode_ranges([(1, 257)]), 1, 0, BLOB]])])),
        ("run's pack", part(sections=[section(runs=[[encode_pages([1]), 2, 0, BLOB]])])),
        ("run's slot", part(sections=[section(runs=[[encode_pages([1]), 1, 65535, BLOB]])])),
        ("run's id", part(sections=[section(runs=[[encode_pages([1]), 1, 0, BLOB[:-1]]])])),
        ("a list that is not there", b"\x96\x01\xc4\x00\xdd\xff\xff\xff\xff"),
    ],
)
def test_what_breaks_a_bound_is_refused(name: str, raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode_part(raw, OWN)


def test_the_bounds_themselves_are_taken() -> None:
    decode_part(
        part(
            entries=[[b"a", (1 << 64) - 1], [b"gone", None]],
            files=[file(mode=0o7777, size=(1 << 63) - 1, flags=15, uid=(1 << 32) - 1, mtime=-(1 << 63) + 1)],
            contents=[[1, MAX_BLOB + 1, 1, extent(MAX_BLOB)]],
            sections=[
                section(size=65536, count=MAX_PAGE, flags=1, runs=[[encode_ranges([(MAX_PAGE - 15, 16)]), 1, 0, BLOB]]),
                section(size=512, runs=[[encode_ranges([(1, 2048)]), 1, 0, BLOB]]),
            ],
        ),
        OWN,
    )


@pytest.mark.parametrize("fields", [[], [b"", [], [], [], []], ["anything"]])
def test_a_later_version_is_named_as_such(fields: list[object]) -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        decode_part(msgspec.msgpack.encode([2, *fields]), OWN)
    assert caught.value.params["version"] == 2


def test_a_layer_that_says_a_thing_twice_is_refused() -> None:
    record = FileRecord(1, FileKind.FILE, 0, 0, 0, b"", b"", 0, 0, 0)
    with pytest.raises(Malformed):
        join([Layer(entries=(Entry(b"a", 1),)), Layer(entries=(Entry(b"a", None),))])
    with pytest.raises(Malformed):
        join([Layer(files=(record,)), Layer(files=(record,))])
