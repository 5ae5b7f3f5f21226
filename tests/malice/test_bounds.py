"""What a hostile vault may cost: memory and time in a child with limits, whatever sizes and numbers it claims."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest
import zstandard

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault.blob import BlobKind
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.snapshots import Stream
from chatkeep.daemon.verify.deep import deep
from tests.malice.conftest import Attempts
from tests.support.forging import ForgedBlob, Thief, extent, file_record, hole, part
from tests.support.hostile_vault import HostileVault, check_error
from tests.support.limits import MIB, bounded

STREAM = b"a stream of lies"
Objects = Mapping[str, bytes]


def read_and_restore(vault: HostileVault, objects: Objects, room: Path) -> str:
    """Everything that is done with a snapshot, on forged ones; what came of it."""
    provider = vault.storage(objects)
    said: list[str] = []

    def attempt(act: Callable[[], object]) -> None:
        try:
            act()
            said.append("done")
        except ChatkeepError as exc:
            check_error(exc)
            said.append(exc.code)

    def whole() -> None:
        reader = VaultReader([provider], vault.opened)
        chain = reader.chain(Stream(vault.devices["ben"].device_id, STREAM))
        snapshots = list(reader.snapshots(chain))
        for problem in chain.findings:
            check_error(problem)
            said.append(problem.code)
        for snapshot in snapshots:
            made = plan(reader, snapshot)
            said.extend(problem.code for problem in made.faults)
            restore(reader, snapshot, made, os.fsencode(room / "out"), Choices(salvage=True))

    def deeply() -> None:
        reader = VaultReader([provider], vault.opened)
        for problem in deep(reader).findings:
            check_error(problem)
            said.append(problem.code)

    attempt(whole)
    attempt(deeply)
    return " ".join(said)


def compressed(kind: BlobKind, content: bytes) -> ForgedBlob:
    return ForgedBlob(kind, content, 1, zstandard.ZstdCompressor(level=3).compress(content))


def filled(item: object, most: int = (1 << 20) - 64) -> bytes:
    """A part of a megabyte with as many of these contents (or sections) as fit."""
    one = msgspec.msgpack.encode(item)
    count = (most - 40) // len(one)
    return count.to_bytes(4, "big") + one * count


def many(field: int, item: object, number: int = 0) -> bytes:
    """A part whose list number `field` (entries 0, files 1, contents 2, sections 3) repeats one item. `number` makes it
    another one."""
    lists = [b"\x90"] * 4
    lists[field] = b"\xdd" + filled(item)
    return b"\x96\x01\xc4\x20" + number.to_bytes(32, "big") + b"".join(lists)


def stacked(thief: Thief, refs: list[list[list[object]]], packs: list[object], **fields: object) -> tuple[str, bytes]:
    return thief.manifest(STREAM, 1, bytes(32), thief.body([[0, 1, 1, own] for own in refs], packs, **fields))


def one_part_again_and_again(thief: Thief) -> Objects:
    """One blob of a megabyte, which is sixty thousand records, named by every part of every layer."""
    content = many(2, [7, 0, 0, b""])
    name, raw, sha256 = thief.pack([compressed(BlobKind.LAYER, content)])
    ref = [sha256, 0, thief.ids.id(BlobKind.LAYER, content)]
    return dict([(name, raw), stacked(thief, [[ref] * 50_000], [])])


def cheap_parts(thief: Thief, item: object, field: int, count: int) -> Objects:
    """Parts that differ in a number, a megabyte each, and compress to nothing."""
    blobs = [compressed(BlobKind.LAYER, many(field, item, number)) for number in range(count)]
    name, raw, sha256 = thief.pack(blobs)
    refs = [[sha256, slot, thief.ids.id(BlobKind.LAYER, blob.content)] for slot, blob in enumerate(blobs)]
    return dict([(name, raw), stacked(thief, [refs], [])])


def many_contents(thief: Thief) -> Objects:
    """Contents of nothing: six bytes each in a part, and a hundred in memory."""
    return cheap_parts(thief, [7, 0, 0, b""], 2, 128)


def many_sections(thief: Thief) -> Objects:
    """Sections without runs."""
    return cheap_parts(thief, [7, 0, 512, 0, bytes(32), []], 3, 128)


def many_runs(thief: Thief) -> Objects:
    """Runs of one page."""
    item = [7, 0, 512, 1, bytes(32), [[b"\0\1", 0, 0, bytes(32)]] * 2000]
    return cheap_parts(thief, item, 3, 128)


def many_extents(thief: Thief) -> Objects:
    """Holes of one byte, forty-eight bytes each, that compress well."""
    return cheap_parts(thief, [7, 20_000, 0, hole(1) * 20_000], 2, 256)


def many_files(thief: Thief) -> Objects:
    """File records of one id: twice there, which is told only when all are read."""
    return cheap_parts(thief, file_record(7), 1, 128)


def many_entries(thief: Thief) -> Objects:
    """Entries of one path."""
    return cheap_parts(thief, [b"", None], 0, 128)


def a_database_of_all_pages(thief: Thief) -> Objects:
    """Four thousand million pages claimed, and one there."""
    records = [file_record(1, 3, size=1 << 41)]
    section = [1, 1, 512, (1 << 32) - 2, bytes(32), [[b"\0\1", 0, 0, bytes(32)]]]
    return thief.snapshot(STREAM, part([[b"db", 1]], records, sections=[section]))


def claimed_pages(thief: Thief) -> Objects:
    """As many pages claimed as the database has, by two million runs over the same ones."""
    run = [b"\0\x80\x10", 0, 0, bytes(32)]
    section = [1, 0, 512, (1 << 32) - 2, bytes(32), [run] * 20_000]
    raw = msgspec.msgpack.encode(part([[b"db", 1]], [file_record(1, 3, size=1 << 41)], sections=[section]))
    more = msgspec.msgpack.encode(part(sections=[section]))
    blobs = [compressed(BlobKind.LAYER, raw), *[compressed(BlobKind.LAYER, more)] * 110]
    name, pack, sha256 = thief.pack(blobs)
    refs = [[sha256, slot, thief.ids.id(BlobKind.LAYER, blob.content)] for slot, blob in enumerate(blobs)]
    return dict([(name, pack), stacked(thief, [refs], [])])


def covered_pages(thief: Thief) -> Objects:
    """A database of a thousand million pages whose runs cover every page, of one blob that holds 2048 of them."""
    runs = []
    first, count = 1, (1 << 30) - (1 << 20)
    leb = bytearray()

    def number(value: int) -> bytes:
        leb.clear()
        while value > 0x7F:
            leb.append(value & 0x7F | 0x80)
            value >>= 7
        leb.append(value)
        return bytes(leb)

    blob = compressed(BlobKind.PAGES, bytes(1 << 20))
    own = thief.ids.id(BlobKind.PAGES, blob.content)
    while first <= count:
        runs.append([number(first - 1) + b"\x80\x10", 0, 0, own])
        first += 2048
    per = 19_000
    parts = [part(sections=[[1, 0, 512, count, bytes(32), runs[at : at + per]]]) for at in range(0, len(runs), per)]
    parts[0] = part([[b"db", 1]], [file_record(1, 3, size=count * 512)], sections=parts[0][5])  # type: ignore[arg-type]
    blobs = [blob, *(compressed(BlobKind.LAYER, msgspec.msgpack.encode(one)) for one in parts)]
    for one in blobs:
        assert len(one.content) <= 1 << 20
    name, pack, sha256 = thief.pack(blobs)
    refs = [[sha256, slot, thief.ids.id(BlobKind.LAYER, one.content)] for slot, one in enumerate(blobs)][1:]
    return dict([(name, pack), stacked(thief, [refs], [])])


def a_file_of_four_exbibytes(thief: Thief) -> Objects:
    """All of it holes."""
    return thief.snapshot(STREAM, part([[b"a", 1]], [file_record(1, size=1 << 62)], [[1, 1 << 62, 0, hole(1 << 62)]]))


def a_million_layers(thief: Thief) -> Objects:
    """In the manifest, all the same."""
    return dict([stacked(thief, [[[b"p" * 32, 0, b"i" * 32]]] * 700_000, [])])


def a_hundred_thousand_parts(thief: Thief) -> Objects:
    """In one layer."""
    return dict([stacked(thief, [[[b"p" * 32, 0, b"i" * 32]] * 100_000], [])])


def parts_that_are_not_there(thief: Thief) -> Objects:
    """As many layers and parts as a manifest may have, each in a pack of its own that is not there."""
    refs: list[list[list[object]]] = [
        [[number.to_bytes(4, "big") * 8, slot, b"i" * 32] for slot in range(800)] for number in range(1024)
    ]
    return dict([stacked(thief, refs, [])])


def a_million_packs(thief: Thief) -> Objects:
    """Introduced by one snapshot."""
    packs: list[object] = [[number.to_bytes(4, "big") * 8, 1] for number in range(1_000_000)]
    return dict([stacked(thief, [], packs)])


def the_bomb_itself(thief: Thief) -> Objects:
    """A frame of a gibibyte in a record that says a mebibyte, with a size in the frame that is a lie."""
    payload = bytearray(zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28)))
    blob = ForgedBlob(BlobKind.LAYER, bytes(1 << 20), 1, bytes(payload))
    name, raw, sha256 = thief.pack([blob])
    ref = [sha256, 0, thief.ids.id(BlobKind.LAYER, blob.content)]
    return dict([(name, raw), stacked(thief, [[ref]], [])])


def full_directories(thief: Thief) -> Objects:
    """Packs of 65535 blobs of nothing, each named once: what is kept of them must be bounded."""
    objects: dict[str, bytes] = {}
    entries, files, contents, packs = [], [], [], []
    blobs = [ForgedBlob(BlobKind.CHUNK, bytes([1]), 0)] * 65_535
    for number in range(40):
        name, raw, sha256 = thief.pack(blobs)
        objects[name] = raw
        packs.append(sha256)
        entries.append([b"f%d" % number, number + 1])
        files.append(file_record(number + 1, size=1))
        contents.append([number + 1, 1, 0, extent(1, number + 1, 0, thief.ids.id(BlobKind.CHUNK, bytes([1])))])
    return objects | thief.snapshot(STREAM, part(entries, files, contents, packs=b"".join(packs)))


BOMBS: dict[Callable[[Thief], Objects], str] = {
    one_part_again_and_again: "malformed",
    many_contents: "snapshot-too-large",
    many_sections: "snapshot-too-large",
    many_runs: "snapshot-too-large",
    many_extents: "snapshot-too-large",
    many_files: "snapshot-too-large",
    many_entries: "snapshot-too-large",
    a_database_of_all_pages: "unresolvable",
    claimed_pages: "snapshot-too-large",
    covered_pages: "unresolvable",
    a_file_of_four_exbibytes: "",
    a_million_layers: "malformed",
    a_hundred_thousand_parts: "malformed",
    parts_that_are_not_there: "unreadable",
    a_million_packs: "malformed",
    the_bomb_itself: "malformed",
    full_directories: "done",
}


QUICK = (
    one_part_again_and_again,
    many_entries,
    a_database_of_all_pages,
    a_file_of_four_exbibytes,
    a_hundred_thousand_parts,
    the_bomb_itself,
)


@pytest.mark.parametrize(
    "bomb",
    [pytest.param(bomb, marks=() if bomb in QUICK else pytest.mark.long, id=bomb.__name__) for bomb in BOMBS],
)
def test_bombs(
    vault: HostileVault,
    attempts: Attempts,
    tmp_path: Path,
    bomb: Callable[[Thief], Objects],
    report: Callable[[str], None],
) -> None:
    """The child has a gibibyte of address space; what merely asks for more is refused by name, not by the system."""
    for objects in attempts.all([bomb(Thief(vault.devices["ben"]))]):
        act = functools.partial(read_and_restore, vault, objects, tmp_path)
        used = bounded(act, memory=700 * MIB, seconds=60, space=1024 * MIB)
        report(
            f"{bomb.__name__}: {sum(map(len, objects.values())):,} bytes stored; {used.memory / MIB:.0f} MiB, "
            f"{used.seconds:.1f} s: {' '.join(dict.fromkeys(used.said.split()))}"
        )
        assert BOMBS[bomb] in used.said.split() or not BOMBS[bomb], used.said[:500]
