"""Makes the frozen values: `python -m tests.vectors.make_values [FOLDER]`, from fixed keys, nothing at random.

`values.json` holds what is no object of its own: recovery keys and their slips, ids of blobs, digests, padded sizes,
and parts of layers with damages. What is in it is never made again once a version is released.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.capture.digests import page_digests, page_table_digest
from chatkeep.daemon.keys.errors import RecoveryTypo
from chatkeep.daemon.keys.recovery import RecoveryKey, parse
from chatkeep.daemon.vault.blob import BlobKind, IdKeys
from chatkeep.daemon.vault.layer_build import LayerBuilder
from chatkeep.daemon.vault.layers import (
    PENDING,
    RESET,
    Extent,
    FileKind,
    FileRecord,
    Reference,
    Section,
    decode_part,
    make_run,
)
from chatkeep.daemon.vault.padding import padded_manifest_size, padded_pack_size
from tests.vectors.make import ID_KEY

FILE = Path(__file__).parent / "v1" / "values.json"
SIZES = (9, 32768, 32769, 1 << 20, (1 << 20) + 1, 16 << 20, (16 << 20) + 1, 20_000_001, 64 << 20)
OWN = b"\x0f" * 32


def recovery_keys() -> list[dict[str, Any]]:
    """Keys and the slips in each: a digit, two neighbours exchanged, two lines exchanged."""
    chance = random.Random(1)
    made = []
    for _ in range(4):
        slips: list[dict[str, Any]] = []
        key = RecoveryKey(bytearray(b"".join(b"%d" % chance.randrange(10) for _ in range(56))))
        lines = [line.replace(" ", "") for line in key.lines]
        for line, at in ((1, 0), (3, 6), (5, 7), (8, 3)):
            row = lines[line - 1]
            wrong = row[:at] + str((int(row[at]) + chance.randrange(1, 10)) % 10) + row[at + 1 :]
            slips.append({"line": line, "text": "\n".join([*lines[: line - 1], wrong, *lines[line:]])})
        for line, row in enumerate(lines, 1):
            for at in [n for n in range(7) if row[n] != row[n + 1]][:1]:
                wrong = row[:at] + row[at + 1] + row[at] + row[at + 2 :]
                slips.append({"line": line, "text": "\n".join([*lines[: line - 1], wrong, *lines[line:]])})
        made.append({"lines": key.lines, "secret": bytes(key.secret()).decode(), "slips": slips})
        for slip in slips:
            assert line_of(slip["text"]) == slip["line"]
    return made


def line_of(text: str) -> int | None:
    """The line that the product calls wrong; None if all are right."""
    try:
        parse(text)
    except RecoveryTypo as exc:
        return int(exc.params["line"])  # type: ignore[call-overload, no-any-return]
    return None


def pages_of(size: int, count: int) -> bytes:
    """A database image of this many pages."""
    return random.Random(size).randbytes(size * count)


def digests() -> list[dict[str, Any]]:
    """Page digests and page-table digests for every size of page."""
    ids, made = IdKeys(ID_KEY), []
    for size in (512, 1024, 4096, 65536):
        table = page_digests(pages_of(size, 3), size, ids.page_seed)
        digest = page_table_digest([table], size, 3, ids.page_table_key, ids.page_seed)
        made.append({"page_size": size, "pages": 3, "digests": table.hex(), "table": digest.hex()})
    return made


def parts() -> Iterator[tuple[str, bytes]]:
    """A part with every kind of record, and one with nothing."""
    build = LayerBuilder()
    usual: dict[str, Any] = {"mode": 0o644, "uid": 1000, "gid": 1000, "user": b"ana", "group": b"", "flags": 0}
    other, own = Reference(b"\xa1" * 32, 7, b"\xb1" * 32), Reference(OWN, 2, b"\xb2" * 32)
    for number, path in enumerate((b"", b"d/\xff", b"link", b"m.db"), 1):
        build.add_entry(path, number)
    build.add_entry(b"again", 2)
    build.add_entry(b"gone", None)
    build.add_file(FileRecord(file_id=1, kind=FileKind.DIRECTORY, mtime=-1, size=0, **usual))
    xattrs = ((b"user.a", b"\0"),)
    build.add_file(FileRecord(file_id=2, kind=FileKind.FILE, mtime=1, size=1 << 40, **usual | {"xattrs": xattrs}))
    build.add_file(FileRecord(file_id=3, kind=FileKind.SYMLINK, mtime=2, size=0, **usual | {"target": b"../x"}))
    build.add_file(FileRecord(file_id=4, kind=FileKind.DATABASE, mtime=3, size=4096, **usual | {"flags": PENDING}))
    build.add_content(2, 5 << 20, [Extent(1 << 20, other), Extent(3 << 20, None), Extent(1 << 20, own)])
    runs = (make_run([(1, 3), (200, 20)], own), make_run([(4, 1)], other))
    build.add_section(Section(4, RESET, 4096, 300, b"\xd1" * 32, runs))
    (full,) = build.parts()
    yield "full", full
    yield "empty", msgspec.msgpack.encode([1, b"", [], [], [], []])


def refused(raw: bytes) -> str | None:
    """The code that the product answers a part with; None if it takes it."""
    try:
        decode_part(raw, OWN)
    except ChatkeepError as exc:
        return exc.code
    return None


def wrong_parts(full: bytes) -> Iterator[tuple[str, bytes]]:
    """Parts that break a rule of the format, each one rule."""
    body = msgspec.msgpack.decode(full)

    def with_path(path: bytes) -> bytes:
        return changed(2, [[path, 2]])

    def changed(place: int, value: Any) -> bytes:
        return msgspec.msgpack.encode([*body[:place], value, *body[place + 1 :]])

    yield "another version", changed(0, 2)
    yield "packs that are no hashes", changed(1, body[1] + b"x")
    yield "a field missing", msgspec.msgpack.encode(body[:-1])
    yield "a field too many", msgspec.msgpack.encode([*body, []])
    yield "something after the end", full + b"\0"
    yield "cut short", full[:-1]
    yield "a map", msgspec.msgpack.encode(dict(enumerate(body)))
    for path in (b"/etc", b"a/../b", b"..", b".", b"a//b", b"a/", b"a/./b"):
        yield f"the path {path.decode()}", with_path(path)
    yield "a file without fields", changed(3, [[2]])
    yield "an extent cut short", changed(4, [[2, 1, 0, body[4][0][3][:-1]]])
    yield "an extent in no pack", changed(4, [[2, 1, 0, b"\0" * 7 + b"\1" + b"\0\0\0\x09" + bytes(36)]])
    run = body[5][0][5][0]
    for what, pages in (("not in shortest form", b"\x80\x00\x01"), ("without an end", b"\x00\x81")):
        yield f"pages {what}", changed(5, [[*body[5][0][:5], [[pages, *run[1:]]]]])
    yield "a run in no pack", changed(5, [[*body[5][0][:5], [[run[0], 9, *run[2:]]]]])


def plain(value: Any) -> Any:
    """As JSON has it: bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def damage(cases: Iterable[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """Each with its code; all must have one."""
    made = [{"what": what, "raw": raw.hex(), "expect": refused(raw)} for what, raw in cases]
    assert all(one["expect"] for one in made), made
    return made


def make() -> dict[str, Any]:
    """All values."""
    ids = IdKeys(ID_KEY)
    found = dict(parts())
    contents = [b"", b"Good morning!", bytes(1000), hashlib.shake_128(b"x").digest(1 << 20)]
    return {
        "format": 1,
        "id_key": ID_KEY.hex(),
        "recovery_keys": recovery_keys(),
        "ids": [
            {"kind": kind.name.lower(), "sha256": hashlib.sha256(raw).hexdigest(), "id": ids.id(kind, raw).hex()}
            for kind in BlobKind
            for raw in contents
        ],
        "page_seed": ids.page_seed,
        "digests": digests(),
        "padded_packs": [[size, padded_pack_size(size)] for size in SIZES],
        "padded_manifests": [[size, padded_manifest_size(size)] for size in (1, 8192, 8193, 100_000)],
        "parts": [
            {"name": name, "raw": raw.hex(), "means": plain(msgspec.msgpack.decode(raw))} for name, raw in found.items()
        ],
        "wrong_parts": damage(wrong_parts(found["full"])),
    }


def main(file: Path) -> None:
    """Makes the file, unless it is there."""
    if file.exists():
        sys.stdout.write(f"{file.name} is there and stays\n")
        return
    file.write_text(json.dumps(make(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "values.json" if len(sys.argv) > 1 else FILE)
