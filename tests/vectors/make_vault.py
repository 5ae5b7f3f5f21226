"""Makes the frozen vault: `python -m tests.vectors.make_vault [FOLDER]`.

`vault.json` holds a small vault of a released format as a whole: its objects, its secrets, what every snapshot in it
must come out as, and damages of its objects with the codes of the errors that a reader answers them with. Three epochs,
a recovery key and a passphrase, two devices that write and one that was removed, folded layers, a checkpoint with a
pruned snapshot; files with holes, hard and symbolic links, attributes, renames, a database that grew and shrank.

Sealing draws at random, so a vault made again is another one. One of a released version is never made again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.methods import SlotMethod
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock
from tests.support.hostile_vault import HostileVault, seeds_of
from tests.support.memory_provider import MemoryProvider
from tests.support.sources import database, fill
from tests.support.trees import Thing, describe
from tests.support.vaults import passphrase, recovery

FILE = Path(__file__).parent / "v1" / "vault.json"
FALLOUT = {"snapshots-missing", "missing-object", "unreadable"}
"""What is found because of something else; it is the answer only where nothing else is said."""

Damage = Mapping[str, Any]


class VectorVault(HostileVault):
    """The vault of attacks, with more kinds of files in it."""

    def _source(self, name: str) -> None:
        super()._source(name)
        source = self.directory / f"source-{name}"
        with open(source / "sparse", "wb") as file:
            file.write(b"begin")
            file.seek(3 << 20)
            file.write(b"end")
        (source / "empty").touch()
        (source / "turn-0").write_bytes(b"renamed each time")
        os.setxattr(source / "turn-0", "user.chat", b"\0value")
        (source / os.fsdecode(b"\xff odd")).mkdir(0o700)
        os.symlink("/nowhere", source / "dangling")
        os.chmod(source / "note.txt", 0o400)
        fill(source / "messages.db", 300)

    def back_up(self, name: str, stream: str = "chat") -> None:
        source = self.directory / f"source-{name}"
        (turn,) = source.glob("turn-*")
        turn.rename(source / f"turn-{int(turn.name[5:]) + 1}")
        if turn.name in ("turn-2", "turn-3"):  # it shrinks, and grows again in the next
            with database(source / "messages.db") as db:
                db.execute("DELETE FROM message WHERE id > 100")
                db.execute("VACUUM")
        super().back_up(name, stream)


def row(thing: Thing) -> list[Any]:
    """One path's truth as JSON."""
    xattrs = [[name.decode(), value.hex()] for name, value in thing.xattrs]
    links = [os.fsdecode(path).encode("utf-8", "surrogateescape").hex() for path in thing.links]
    return [thing.kind, thing.mode, thing.mtime_ns, thing.size, thing.content, xattrs, links]


def tree_of(target: Path) -> dict[str, list[Any]]:
    """Everything below a directory, by its path in hex."""
    return {path.hex(): row(thing) for path, thing in describe(target, leave_out=()).items()}


def storage(objects: Mapping[str, bytes]) -> MemoryProvider:
    """These objects."""
    provider = MemoryProvider()
    provider.objects = dict(objects)
    return provider


def damaged(objects: Mapping[str, bytes], damage: Damage) -> dict[str, bytes]:
    """The vault with one damage. `flip`: one bit of the byte there; `cut`: what is left; `gone`: the object is missing;
    `renamed`: it stands under the name that fits its new content, as whoever owns storage would have it."""
    changed = dict(objects)
    raw = bytearray(changed.pop(damage["object"]))
    for other in damage.get("without", ()):
        del changed[other]
    if damage.get("gone"):
        return changed
    if "cut" in damage:
        del raw[damage["cut"] :]
    else:
        raw[damage["flip"]] ^= 1
    name = damage["object"]
    if damage.get("renamed"):
        name = name[:-64] + hashlib.sha256(raw).hexdigest()
    return changed | {name: bytes(raw)}


def probe(objects: Mapping[str, bytes], method: SlotMethod) -> list[str]:
    """The codes of what a reader says of a vault: of the error it stops with, or of its findings."""
    codes = set()
    try:
        vault = unlock(storage(objects), method)
        reader = VaultReader([storage(objects)], vault)
        codes |= {finding.code for finding in vault.findings}
        for stream in reader.streams():
            try:
                chain = reader.chain(stream)
                list(reader.snapshots(chain))
                codes |= {finding.code for finding in chain.findings}
            except ChatkeepError as exc:
                codes.add(exc.code)
        codes |= {finding.code for finding in reader.findings}
    except ChatkeepError as exc:
        return [exc.code]
    return sorted(codes)


def places(raw: bytes, name: str) -> Iterator[tuple[str, int]]:
    """Where an object is damaged: each value of a text, each field of a binary object."""
    if name.startswith(("slots/", "epochs/", "devices/")):
        yield from ((f"value of {match[1].decode()}", match.end()) for match in re.finditer(rb'"(\w+)":"?', raw))
        yield "key id of the signature", raw.rindex(b"sig ") + 4
        yield "signature", raw.rindex(b" ") + 9
        yield "line end", len(raw) - 1
    elif "/c/" in name:
        fields = {
            "mark": 0,
            "version": 7,
            "vault": 8,
            "epoch": 27,
            "key id": 28,
            "device": 44,
            "number": 67,
            "previous": 68,
        }
        fields |= {"time": 107, "count of streams": 111, "stream": 112, "through": 135, "head": 136, "kept": 171}
        yield from (fields | {"end": len(raw) - 65, "signature": len(raw) - 64}).items()
    else:
        fields = {"mark": 0, "version": 7, "vault": 8, "epoch": 27, "key id": 28, "device": 44, "stream": 60, "seq": 83}
        fields |= {"previous": 84, "reserved": 131, "capsule": 132, "commitment": 1300, "body": 1332}
        yield from (fields | {"signature": len(raw) - 64}).items()


def targets(made: VectorVault) -> dict[str, tuple[str, list[str]]]:
    """The objects that are damaged: kind, and the objects to leave out so that no other does its work."""
    slots = {made.slot: made.second_slot, made.second_slot: made.slot}
    found = {
        f"slots/{slot.hex()}.json": (kind, [f"slots/{slots[slot].hex()}.json"])
        for slot, kind in ((made.slot, "recovery slot"), (made.second_slot, "passphrase slot"))
    }
    names = sorted(made.objects)
    found |= {name: (f"epoch {int(name[7:15])}", []) for name in names if name.startswith("epochs/")}
    for device, credential in made.devices.items():
        found[f"devices/{credential.device_id.hex()}.json"] = (f"device {device}", [])
    found[str(made.checkpoints[-1])] = ("checkpoint", [])  # what an older one says nobody asks
    newest = str(made.manifests("ana")[-1])
    return found | {newest: ("manifest", [])}


def damages(made: VectorVault) -> Iterator[dict[str, Any]]:
    """Every damage with what is said of it."""
    usual = set(probe(made.objects, recovery()))
    for name, (kind, without) in targets(made).items():
        raw, method = made.objects[name], passphrase() if kind == "passphrase slot" else recovery()
        tried: list[dict[str, Any]] = [{"what": what, "flip": at} for what, at in places(raw, name)]
        tried += [{"what": "half is missing", "cut": len(raw) // 2}, {"what": "it is missing", "gone": True}]
        if not name.startswith(("slots/", "devices/")):
            tried += [one | {"renamed": True} for one in tried if "flip" in one]
        for one in tried:
            damage = {"kind": kind, "object": name, **one} | ({"without": without} if without else {})
            codes = set(probe(damaged(made.objects, damage), method)) - usual
            assert codes, damage
            yield damage | {"expect": sorted(codes - FALLOUT or codes)}


def make(folder: Path) -> dict[str, Any]:
    """The frozen vault as JSON has it."""
    made = VectorVault(folder / "vault")
    reader = VaultReader([made.provider], made.opened)
    snapshots: list[dict[str, Any]] = []
    for stream in reader.streams():
        for snapshot in reader.snapshots(reader.chain(stream)):
            target = folder / f"out-{len(snapshots)}"
            restore(reader, snapshot, plan(reader, snapshot), os.fsencode(target))
            where = {"device": stream.device_id.hex(), "stream": stream.stream_id.hex(), "seq": snapshot.header.seq}
            snapshots.append(where | {"paths": tree_of(target)})
    return {
        "format": 1,
        "vault": made.vault_id.hex(),
        "roots": [bytes(keys.root.view()).hex() for keys in made.epochs.keys],
        "recovery": "7777777" * 8,
        "passphrase": "correct horse",
        "devices": {
            name: {
                "id": one.device_id.hex(),
                "seed": seeds_of(one)[0].hex(),
                "id_key": seeds_of(one)[1].hex(),
                "credential": bytes(one.encode()).hex(),
            }
            for name, one in made.devices.items()
        },
        "pruned": str(made.pruned),
        "usual": probe(made.objects, recovery()),
        "snapshots": snapshots,
        "damages": list(damages(made)),
        "objects": {name: base64.b64encode(raw).decode() for name, raw in sorted(made.objects.items())},
    }


def main(file: Path) -> None:
    """Makes the file, unless it is there."""
    if file.exists():
        sys.stdout.write(f"{file.name} is there and stays\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        file.write_text(json.dumps(make(Path(folder)), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "vault.json" if len(sys.argv) > 1 else FILE)
