"""Keys, contents and small packs for tests of the vault."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.vault.blob import BlobKind, IdKeys, compress
from chatkeep.daemon.vault.errors import UnknownKey
from chatkeep.daemon.vault.names import PackName
from chatkeep.daemon.vault.pack import PackWriter, SealedPack, create_file
from chatkeep.daemon.vault.pack_reader import PackReader

VAULT = b"vault-of-a-test!"
DEVICE = b"device-of-a-test"
EPOCH = 1
PRIVATE = HybridPrivate.from_seed(bytes(range(32)))
IDS = IdKeys(bytes(range(100, 132)))


def opener(epoch: int, key_id: bytes) -> HybridPrivate:
    """Has the key of epoch 1 of the test vault and no other."""
    if (epoch, key_id) != (EPOCH, PRIVATE.public.key_id):
        raise UnknownKey(what="key", epoch=epoch, key=key_id.hex())
    return PRIVATE


def writer(path: Path, create: Callable[[Path], BinaryIO] = create_file) -> PackWriter:
    """A writer of the test device."""
    return PackWriter(path, PRIVATE.public, VAULT, EPOCH, DEVICE, create=create)


def add(pack: PackWriter, kind: BlobKind, content: bytes, level: int | None = 1) -> int:
    """Compresses, names and adds one blob."""
    codec, payload = compress(kind, content, level)
    return pack.add(kind, IDS.id(kind, content), codec, payload, len(content))


def contents(seed: int, count: int, most: int = 3000) -> list[tuple[BlobKind, bytes]]:
    """Blobs of every kind: text that compresses, noise that does not, an empty one."""
    rng = random.Random(seed)
    made: list[tuple[BlobKind, bytes]] = [(BlobKind.CHUNK, b"")]
    while len(made) < count:
        size = rng.randrange(1, most)
        content = rng.randbytes(size) if rng.random() < 0.5 else (rng.randbytes(7) * size)[:size]
        made.append((rng.choice(list(BlobKind)), content))
    return made[:count]


def make_pack(path: Path, blobs: Sequence[tuple[BlobKind, bytes]]) -> SealedPack:
    """A finished pack with these blobs."""
    pack = writer(path)
    for kind, content in blobs:
        add(pack, kind, content)
    return pack.finish(IDS)


class Bytes:
    """Fetches ranges of some bytes, as a provider would, and remembers them."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.asked: list[tuple[int, int | None]] = []

    def __call__(self, offset: int, length: int | None) -> bytes:
        self.asked.append((offset, length))
        start = max(0, len(self.raw) + offset) if offset < 0 else offset
        return self.raw[start:] if length is None else self.raw[start : start + length]


def open_pack(raw: bytes, sha256: bytes | None = None) -> PackReader:
    """A reader of these bytes, under the name they hash to unless another is given."""
    name = PackName(DEVICE, sha256 or hashlib.sha256(raw).digest())
    return PackReader(Bytes(raw), name, VAULT, opener)
