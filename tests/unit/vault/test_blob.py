import random
import subprocess
import sys
import threading

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.vault import blob
from chatkeep.daemon.vault.blob import RAW, ZSTD, BlobKind, IdKeys, compress, decompress
from chatkeep.daemon.vault.errors import AuthenticationFailed, Malformed
from chatkeep.daemon.vault.labels import MAX_BLOB

KEYS = IdKeys(bytes(range(32)))


@given(st.binary(max_size=3000), st.integers(1, 40), st.sampled_from([None, 1, 3]))
def test_what_was_compressed_decompresses(piece: bytes, times: int, level: int | None) -> None:
    content = piece * times
    codec, payload = compress(BlobKind.CHUNK, content, level)
    assert len(payload) <= len(content)
    assert decompress(codec, payload, len(content)) == content


def test_raw_unless_three_percent_are_saved() -> None:
    rng = random.Random(1)
    noise = rng.randbytes(100_000)
    assert compress(BlobKind.PAGES, noise, 1) == (RAW, noise)
    assert compress(BlobKind.PAGES, bytes(100_000), None)[0] == RAW
    barely = noise + bytes(2_000)  # compresses by about 2 %
    assert len(zstandard.ZstdCompressor(level=1).compress(barely)) < len(barely)
    assert compress(BlobKind.PAGES, barely, 1)[0] == RAW
    assert compress(BlobKind.PAGES, noise + bytes(6_000), 1)[0] == ZSTD


def test_raw_is_the_content_itself() -> None:
    content = bytearray(random.Random(2).randbytes(5000))
    assert compress(BlobKind.CHUNK, content, 1)[1] is content
    assert decompress(RAW, content, 5000) is content


def test_a_blob_above_the_limit_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        compress(BlobKind.CHUNK, bytes(MAX_BLOB + 1), 1)


def frame(content: bytes, write_content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_content_size=write_content_size).compress(content)


@pytest.mark.parametrize(
    ("codec", "payload", "raw_len"),
    [
        (RAW, b"abc", 2),
        (RAW, b"abc", 4),
        (RAW, b"", -1),
        (RAW, bytes(MAX_BLOB + 1), MAX_BLOB + 1),
        (2, b"abc", 3),  # reserved: delta
        (255, b"abc", 3),
        (ZSTD, frame(b"a" * 1000), 999),
        (ZSTD, frame(b"a" * 1000), 1001),
        (ZSTD, frame(b"a" * 1000)[:-1], 1000),
        (ZSTD, frame(b"a" * 1000) + b"x", 1000),
        (ZSTD, frame(b"a" * 1000) * 2, 1000),
        (ZSTD, frame(b"a" * 1000) * 2, 2000),
        (ZSTD, b"\x50\x2a\x4d\x18\0\0\0\0" + frame(b"a" * 1000), 1000),  # a skippable frame first
        (ZSTD, frame(b"a" * 1000, write_content_size=False), 1000),
        (ZSTD, frame(b"") + b"trail", 0),
        (ZSTD, b"", 0),
        (ZSTD, b"not zstd", 1000),
    ],
)
def test_what_no_writer_makes_is_refused(codec: int, payload: bytes, raw_len: int) -> None:
    with pytest.raises(Malformed):
        decompress(codec, payload, raw_len)


BOMB = """
import resource, sys, zstandard
from chatkeep.daemon.vault.blob import decompress
from chatkeep.daemon.vault.errors import Malformed
from chatkeep.daemon.vault.labels import MAX_BLOB
bomb = sys.stdin.buffer.read()
decompress(1, zstandard.ZstdCompressor().compress(bytes(MAX_BLOB)), MAX_BLOB)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decompress(1, bomb, MAX_BLOB)
except Malformed:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("honest_size", [True, False])
def test_a_bomb_is_refused_in_bounded_memory(honest_size: bool) -> None:
    bomb = bytearray(zstandard.ZstdCompressor(level=1).compress(bytes(256 << 20)))
    if not honest_size:  # the four size bytes of the frame header (flag 2) say 1 MiB; its blocks hold 256 MiB
        assert bomb[4] >> 6 == 2
        at = 5 if bomb[4] & 0x20 else 6
        assert int.from_bytes(bomb[at : at + 4], "little") == 256 << 20
        bomb[at : at + 4] = MAX_BLOB.to_bytes(4, "little")
    ran = subprocess.run([sys.executable, "-c", BOMB], input=bytes(bomb), capture_output=True, check=True)
    assert int(ran.stdout) < 16 << 10  # KiB: refused, and far from 256 MiB


def test_ids_depend_on_kind_key_and_content() -> None:
    content = b"content"
    seen = {KEYS.id(kind, content) for kind in BlobKind}
    seen |= {KEYS.id(BlobKind.CHUNK, b"contents"), IdKeys(bytes(32)).id(BlobKind.CHUNK, content)}
    assert len(seen) == 5


def test_ids_and_keys_are_those_of_the_format_page() -> None:
    key = bytes(range(32))
    derived = blake3(key, derive_key_context="chatkeep v1 id pages").digest()
    assert KEYS.id(BlobKind.PAGES, b"x") == blake3(b"x", key=derived).digest()
    assert KEYS.page_seed == int.from_bytes(blake3(key, derive_key_context="chatkeep v1 page seed").digest()[:8], "big")
    assert KEYS.page_table_key == blake3(key, derive_key_context="chatkeep v1 page table").digest()
    assert KEYS.set_key == blake3(key, derive_key_context="chatkeep v1 database set").digest()


def test_check_refuses_another_content_and_another_kind() -> None:
    expected = KEYS.id(BlobKind.LAYER, b"x")
    KEYS.check(BlobKind.LAYER, memoryview(b"x"), expected)
    for kind, content in ((BlobKind.LAYER, b"y"), (BlobKind.CHUNK, b"x")):
        with pytest.raises(AuthenticationFailed):
            KEYS.check(kind, content, expected)


def test_the_key_is_not_shown() -> None:
    assert repr(IdKeys(b"secretsecretsecretsecretsecretse")) == "<IdKeys>"
    with pytest.raises(AssertionError):
        IdKeys(bytes(31))


def test_threads_do_not_share_a_compressor() -> None:
    contents = [random.Random(seed).randbytes(500) * 200 for seed in range(8)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(20):
            codec, payload = compress(BlobKind.CHUNK, contents[seed], 1)
            if codec != ZSTD or decompress(codec, payload, len(contents[seed])) != contents[seed]:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_samples_spare_a_photo_and_find_text_between(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.Random(1).randbytes(1 << 20)
    tried: list[int] = []
    real = zstandard.ZstdCompressor.compress

    class Counting:
        def __init__(self, **more: object) -> None:
            self._inner = zstandard.ZstdCompressor(level=1, write_content_size=True, write_checksum=False)

        def compress(self, content: bytes) -> bytes:
            tried.append(len(content))
            return real(self._inner, content)

    monkeypatch.setattr(blob._codecs, "compressors", {1: Counting()})
    assert compress(BlobKind.CHUNK, noise, 1) == (RAW, noise)
    assert tried == [8 * 4096], "the whole photo was tried"
    half = noise[: 1 << 19] + b"text " * 100_000
    codec, payload = compress(BlobKind.CHUNK, half, 1)
    assert (codec, decompress(codec, payload, len(half))) == (ZSTD, half)
