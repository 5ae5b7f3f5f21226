"""Blobs: kinds, ids and compression (docs/format.md, sections 9 and 12). Pure.

The id of a blob is computed over its plaintext, with a key that only the device and who unlocked the vault have, so
ids tell storage nothing. A reader always computes it again over what it decompressed: with the signature of the
manifest this is what integrity rests on, not the tags of the sealing, which anyone with the public key can make.
"""

from __future__ import annotations

import enum
import threading
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
import zstandard
from blake3 import blake3

from chatkeep.daemon.keys.secret import Buffer, Sensitive
from chatkeep.daemon.vault.errors import AuthenticationFailed, Malformed
from chatkeep.daemon.vault.labels import (
    CONTEXT_DATABASE_SET,
    CONTEXT_ID,
    CONTEXT_PAGE_SEED,
    CONTEXT_PAGE_TABLE,
    HASH_SIZE,
    KEY_SIZE,
    MAX_BLOB,
    MAX_BLOBS,
)

AnyBytes = TypeVar("AnyBytes", bytes, bytearray, memoryview)

Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_SIZE, max_length=HASH_SIZE)]

RAW: Final = 0
ZSTD: Final = 1
WORTH_IT: Final = 0.97
"""Compressed only when it comes out below this share: restoring a raw blob costs nothing, decompressing does."""
PROBED: Final = 128 << 10
"""Bytes from which samples decide first."""
SAMPLE: Final = 4 << 10
SAMPLES: Final = 8


class BlobKind(enum.IntEnum):
    """What a blob holds. Part of the id's key, so that a file that looks like a layer cannot be taken for one."""

    CHUNK = 1
    PAGES = 2
    LAYER = 3


class BlobRef(NamedTuple):
    """Where a blob is and what it must be: hash of the pack, position in it from 0, id."""

    pack: Hash
    slot: Annotated[int, msgspec.Meta(ge=0, lt=MAX_BLOBS)]
    id: Hash


class IdKeys(Sensitive):
    """The keys that one device's id key gives. Thread-safe; never shown."""

    __slots__ = ("_kinds", "page_seed", "page_table_key", "set_key")

    def __init__(self, id_key: Buffer) -> None:
        if len(id_key) != KEY_SIZE:
            raise AssertionError("an id key has 32 bytes")
        self._kinds = {kind: _derive(CONTEXT_ID + kind.name.lower(), id_key) for kind in BlobKind}
        self.page_seed = int.from_bytes(_derive(CONTEXT_PAGE_SEED, id_key)[:8], "big")
        self.page_table_key = _derive(CONTEXT_PAGE_TABLE, id_key)
        self.set_key = _derive(CONTEXT_DATABASE_SET, id_key)

    def id(self, kind: BlobKind, content: Buffer) -> bytes:
        """The id (32 bytes) of a blob of this kind with this plaintext."""
        return blake3(content, key=self._kinds[kind]).digest()

    def check(self, kind: BlobKind, content: Buffer, expected: bytes) -> None:
        """Raises `AuthenticationFailed` unless the blob has the expected id."""
        if self.id(kind, content) != expected:
            raise AuthenticationFailed(what="blob", reason="id")


def _derive(context: str, id_key: Buffer) -> bytes:
    return blake3(id_key, derive_key_context=context).digest()


class _Codecs(threading.local):
    """One compressor per level and one decompressor for each thread: their contexts must not be used by two at once."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor()


_codecs: Final = _Codecs()


def compress(
    kind: BlobKind,  # noqa: ARG001 - reserved: a delta codec will depend on it
    content: AnyBytes,
    level: int | None,
) -> tuple[int, bytes | AnyBytes]:
    """Codec and payload for a blob. `level` is Zstandard's, None stores it raw.

    Raw too when compression saves less than 3 %, so the payload is never longer than the content; it is then `content`
    itself, not a copy. At most 1 MiB.
    """
    if len(content) > MAX_BLOB:
        raise AssertionError("a blob has at most 1 MiB")
    if level is None or not content:
        return RAW, content
    compressor = _compressor(level)
    if len(content) >= PROBED and not _shrinks(compressor, content):
        return RAW, content
    payload = compressor.compress(content)
    return (ZSTD, payload) if len(payload) <= len(content) * WORTH_IT else (RAW, content)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    compressor = _codecs.compressors.get(level)
    if compressor is None:
        # The id covers the content, so zstd's own checksum would be work for nothing.
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
        _codecs.compressors[level] = compressor
    return compressor


def _shrinks(compressor: zstandard.ZstdCompressor, content: bytes | bytearray | memoryview) -> bool:
    """Whether samples from all over the content do: a tenth of the time that trying a whole photo in vain takes."""
    view = memoryview(content)
    step = (len(view) - SAMPLE) // (SAMPLES - 1)
    sample = b"".join([view[at : at + SAMPLE] for at in range(0, len(view) - SAMPLE + 1, step)])
    return len(compressor.compress(sample)) <= len(sample) * WORTH_IT


def decompress(codec: int, payload: AnyBytes, raw_len: int) -> bytes | AnyBytes:
    """The plaintext, of exactly `raw_len` bytes. For raw it is `payload` itself, not a copy.

    Allocates no more than `raw_len`, whatever the payload says: a frame that announces another size is refused before
    it is decompressed. Raises `Malformed`.
    """
    if not 0 <= raw_len <= MAX_BLOB:
        raise Malformed(what="blob", reason="length")
    if codec == RAW:
        if len(payload) != raw_len:
            raise Malformed(what="blob", reason="length")
        return payload
    if codec != ZSTD:
        raise Malformed(what="blob", reason="codec", codec=codec)
    # An empty frame makes the library return before it looks at what follows; a writer stores nothing raw.
    if raw_len == 0:
        raise Malformed(what="blob", reason="length")
    try:
        if zstandard.frame_content_size(payload) != raw_len:
            raise Malformed(what="blob", reason="length")
        content = _codecs.decompressor.decompress(payload, max_output_size=raw_len, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise Malformed(what="blob", reason="compression") from exc
    if len(content) != raw_len:
        raise Malformed(what="blob", reason="length")
    return content
