"""Makes the frozen vectors of the vault format: `python -m tests.vectors.make [FOLDER]`.

Each vector is an object (`.bin`) and what it means (`.json`): the keys that open it, what is in it, and a list of
damages with the code of the error that a reader must answer each with. Keys are fixed; what sealing draws at random is
not, so running this again makes other bytes of the same meaning. Vectors of a released version are never made again:
readers of all time must open them. Existing files are therefore left alone.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.secret import SecretBytes
from chatkeep.daemon.vault import pack_layout
from chatkeep.daemon.vault.blob import BlobKind, BlobRef, IdKeys, compress
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import create_record, vault_id_of
from chatkeep.daemon.vault.labels import PACK_CAPSULE, PACK_FOOTER
from chatkeep.daemon.vault.manifest import GROUP, Manifest, NewPack, StackLayer, Statistics, seal_manifest
from chatkeep.daemon.vault.names import PackName
from chatkeep.daemon.vault.pack import PackWriter
from chatkeep.daemon.vault.pack_reader import PackReader

FOLDER = Path(__file__).parent / "v1"

ROOT = bytes(range(0x20))
DEVICE_SEED = bytes(range(0x20, 0x40))
ID_KEY = bytes(range(0x40, 0x60))
DEVICE = bytes(range(0x60, 0x70))
STREAM = bytes(range(0x70, 0x80))


class Writer:
    """The vault and the device of the vectors."""

    def __init__(self) -> None:
        self.keys = EpochKeys(RootSecret(bytearray(ROOT)))
        self.vault_id = vault_id_of(self.keys.sign.public)
        record = create_record(self.keys, self.vault_id)
        self.credential = WriterCredential(
            record.pin,
            record.public,
            record.checkpoint,
            DEVICE,
            SecretBytes(bytearray(DEVICE_SEED)),
            SecretBytes(bytearray(ID_KEY)),
        )
        self.ids = IdKeys(ID_KEY)

    def meaning(self) -> dict[str, Any]:
        """What every vector says of its keys."""
        return {
            "root_secret": ROOT.hex(),
            "hybrid_public_sha256": hashlib.sha256(self.credential.public.raw).hexdigest(),
            "vault": self.vault_id.hex(),
            "epoch": 1,
            "device": DEVICE.hex(),
            "device_seed": DEVICE_SEED.hex(),
            "device_key": self.credential.device_key.public.raw.hex(),
            "id_key": ID_KEY.hex(),
        }

    def new_pack(self, path: Path) -> PackWriter:
        """A writer of this device."""
        return PackWriter(path, self.credential.public, self.vault_id, 1, DEVICE)


def blobs() -> list[tuple[BlobKind, bytes, int | None]]:
    """Every kind, both codecs, an empty one, and two of one length."""
    rng = random.Random(1)
    page = b"SQLite format 3\0" + bytes(496)
    return [
        (BlobKind.CHUNK, rng.randbytes(300), 1),
        (BlobKind.CHUNK, rng.randbytes(300), 1),
        (BlobKind.CHUNK, b"Good morning! " * 50, 1),
        (BlobKind.PAGES, page * 3, 1),
        (BlobKind.PAGES, page, None),
        (BlobKind.LAYER, b"\x96\x01\xc4\0\x90\x90\x90\x90", 1),
        (BlobKind.CHUNK, b"", 1),
    ]


def make_pack(writer: Writer, folder: Path) -> None:
    """`pack`: a sound pack and damages of it."""
    with tempfile.TemporaryDirectory() as scratch:
        pack = writer.new_pack(Path(scratch) / "pack")
        for kind, content, level in blobs():
            pack.add(kind, writer.ids.id(kind, content), *compress(kind, content, level), len(content))
        sealed = pack.finish(writer.ids)
        raw = sealed.path.read_bytes()
    layout = opened(writer, raw)
    private = writer.keys.open
    write(
        folder / "pack",
        raw,
        writer.meaning()
        | {
            "pack_key": private.open(layout.footer.capsule, layout.footer.public.capsule_info)[:32].hex(),
            "directory": {"offset": layout.place.offset, "length": layout.place.length, "count": layout.place.blobs},
            "blobs": [
                {
                    "kind": kind.name.lower(),
                    "id": writer.ids.id(kind, content).hex(),
                    "record": [entry.offset, entry.length],
                    "content": content.hex(),
                }
                for (kind, content, _), entry in zip(blobs(), layout.entries, strict=True)
            ],
            "damages": pack_damages(layout, len(raw)),
        },
    )


def pack_damages(layout: pack_layout.Layout, size: int) -> list[dict[str, Any]]:
    """What a reader must say after opening the pack, reading every blob and verifying the whole, in this order."""
    first, second = layout.entries[:2]
    public = size - PACK_FOOTER + PACK_CAPSULE
    return [
        flip("the header", 0, "malformed"),
        flip("the first record", first.offset, "authentication-failed"),
        flip("the tag of the second record", second.offset + second.length - 1, "authentication-failed"),
        {
            "what": "two records exchanged",
            "swap": [[first.offset, first.length], [second.offset, second.length]],
            "expect": "authentication-failed",
        },
        flip("the pad", layout.pad_offset, "authentication-failed"),
        flip("the end of the pad", layout.place.offset - 1, "authentication-failed"),
        flip("the directory", layout.place.offset, "authentication-failed"),
        flip("the capsule's ML-KEM half", size - PACK_FOOTER, "authentication-failed"),
        flip("the capsule's X25519 half", public - 80, "authentication-failed"),
        flip("the capsule's content", public - 1, "authentication-failed"),
        flip("the vault id", public, "wrong-vault"),
        flip("the epoch", public + 18, "unknown-key"),
        flip("the key id", public + 20, "unknown-key"),
        flip("the device id", public + 36, "malformed"),
        flip("the commitment", public + 52, "different-key"),
        flip("the end mark", size - 8, "malformed"),
        flip("the version", size - 1, "unsupported-version"),
        {"what": "the last byte is missing", "cut": size - 1, "expect": "malformed"},
        {"what": "the footer is missing", "cut": size - PACK_FOOTER, "expect": "malformed"},
        {"what": "nothing is left", "cut": 0, "expect": "malformed"},
        {"what": "a byte is added", "zeros": 1, "expect": "malformed"},
        {"what": "another name", "rename": bytes(32).hex(), "expect": "object-mismatch"},
    ]


def make_lying_packs(writer: Writer, folder: Path) -> None:
    """Packs that anyone with the public key can make: every tag is right, and the one blob in each is not."""
    content = b"Good night! " * 50
    _, frame = compress(BlobKind.CHUNK, content, 1)
    _, bomb = compress(BlobKind.CHUNK, bytes(1 << 20), 1)
    wanted = writer.ids.id(BlobKind.CHUNK, content)
    lies = {
        "other-content": (BlobKind.CHUNK, 0, b"x" * 600, 600, "authentication-failed"),
        "other-kind": (BlobKind.LAYER, 1, frame, 600, "authentication-failed"),
        "reserved-codec": (BlobKind.CHUNK, 2, frame, 600, "malformed"),
        "shorter-than-said": (BlobKind.CHUNK, 1, frame, 601, "malformed"),
        "bomb": (BlobKind.CHUNK, 1, bomb, 600, "malformed"),
        "two-frames": (BlobKind.CHUNK, 1, frame * 2, 600, "malformed"),
    }
    for name, (kind, codec, payload, raw_len, code) in lies.items():
        with tempfile.TemporaryDirectory() as scratch, mock.patch.object(PackWriter, "_check", return_value=b""):
            pack = writer.new_pack(Path(scratch) / "pack")
            pack.add(kind, wanted, codec, payload, raw_len)
            raw = pack.finish(writer.ids).path.read_bytes()
        asked = {"kind": "chunk", "slot": 0, "id": wanted.hex(), "content": content.hex()}
        write(folder / f"pack-lie-{name}", raw, writer.meaning() | {"wanted": asked, "expect": code})


def make_manifest(writer: Writer, folder: Path) -> None:
    """`manifest`: a sound manifest and damages of it."""
    body = Manifest(
        time=1_700_000_000_000_000_001,
        clock=1_700_000_000_000_000_000,
        source_name="chat",
        source_path=b"/home/ana/.local/share/chat",
        host="caf\u00e9",
        id_key=ID_KEY,
        epoch_record=writer.credential.pin.sha256,
        flags=GROUP,
        stack=(
            StackLayer(0, 3, 3, (BlobRef(b"\xaa" * 32, 5, b"\xbb" * 32),)),
            StackLayer(2, 1, 2, (BlobRef(b"\xcc" * 32, 0, b"\xdd" * 32), BlobRef(b"\xcc" * 32, 65534, b"\xee" * 32))),
        ),
        packs=(NewPack(b"\xaa" * 32, 32768),),
        databases=2,
        pending=1,
        busy=0,
        set_digest=b"\xff" * 32,
        statistics=Statistics(10, 1 << 40, 65536, 4096, 32768),
    )
    raw = seal_manifest(body, STREAM, 3, b"\x99" * 32, writer.credential)
    write(
        folder / "manifest",
        raw,
        writer.meaning()
        | {
            "manifest_key": writer.keys.open.open(raw[132:1300], b"chatkeep/v1/manifest\0" + raw[:132]).hex(),
            "stream": STREAM.hex(),
            "seq": 3,
            "prev": "99" * 32,
            "body": plain(body),
            "damages": manifest_damages(len(raw)),
        },
    )


def plain(body: Manifest) -> list[Any]:
    """The body as JSON has it: bytes in hex."""

    def value(one: Any) -> Any:
        if isinstance(one, bytes):
            return one.hex()
        if isinstance(one, (tuple, list)):
            return [value(each) for each in one]
        fields = getattr(one, "__struct_fields__", None)
        return one if fields is None else [value(getattr(one, field)) for field in fields]

    made = value(body)
    assert isinstance(made, list)
    return made


def manifest_damages(size: int) -> list[dict[str, Any]]:
    """What a reader must say. `signed`: the device signs the damaged bytes again, as a thief of its key can."""
    fields = [("version", 7, "unsupported-version"), ("vault id", 8, "wrong-vault"), ("epoch", 26, "unknown-key")]
    fields += [("key id", 28, "unknown-key"), ("device id", 44, "malformed"), ("stream id", 60, "malformed")]
    fields += [("sequence number", 83, "malformed"), ("previous hash", 84, "authentication-failed")]
    fields += [("reserved bytes", 131, "malformed"), ("capsule", 132, "authentication-failed")]
    fields += [("commitment", 1300, "different-key"), ("body", 1332, "authentication-failed")]
    signed = [flip(f"the {what}", at, code) | {"signed": True} for what, at, code in fields]
    return [
        *signed,
        flip("the body, not signed again", 1332, "authentication-failed"),
        flip("the signature", size - 1, "authentication-failed"),
        {"what": "the last byte is missing", "cut": size - 1, "expect": "malformed"},
        {"what": "nothing is left", "cut": 0, "expect": "malformed"},
        {"what": "zeros are added", "zeros": 8192, "expect": "authentication-failed"},
        {"what": "another name", "rename": bytes(32).hex(), "expect": "object-mismatch"},
    ]


def flip(what: str, at: int, code: str) -> dict[str, Any]:
    """One bit changed."""
    return {"what": what, "flip": at, "expect": code}


def opened(writer: Writer, raw: bytes) -> pack_layout.Layout:
    """Where the parts of a pack are."""

    def fetch(offset: int, length: int | None) -> bytes:
        return raw[offset:] if length is None else raw[offset : offset + length]

    name = PackName(DEVICE, hashlib.sha256(raw).digest())
    return PackReader(fetch, name, writer.vault_id, lambda *_: writer.keys.open)._layout


def write(path: Path, raw: bytes, meaning: dict[str, Any]) -> None:
    """Writes both files, unless they are there."""
    if path.with_suffix(".bin").exists():
        sys.stdout.write(f"{path.name} is there and stays\n")
        return
    meaning = {"format": 1, "sha256": hashlib.sha256(raw).hexdigest()} | meaning
    path.with_suffix(".bin").write_bytes(raw)
    path.with_suffix(".json").write_text(json.dumps(meaning, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main(folder: Path) -> None:
    """Makes what is not there."""
    folder.mkdir(exist_ok=True)
    writer = Writer()
    make_pack(writer, folder)
    make_lying_packs(writer, folder)
    make_manifest(writer, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
