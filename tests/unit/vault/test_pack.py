"""The writer: what a pack holds, one use of a nonce, faults of the disk, the self-check."""

from __future__ import annotations

import collections
import errno
import hashlib
import io
import os
import random
import stat
import threading
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatkeep.daemon.vault import pack, seal
from chatkeep.daemon.vault.blob import BlobKind
from chatkeep.daemon.vault.errors import PackBroken, SelfCheckFailed
from chatkeep.daemon.vault.labels import MAX_BLOB, PACK_FOOTER, PACK_TARGET
from tests.support.packs import IDS, PRIVATE, add, contents, make_pack, open_pack, writer


def test_what_was_added_reads_back(tmp_path: Path) -> None:
    blobs = contents(seed=1, count=40)
    blobs.append((BlobKind.CHUNK, random.Random(2).randbytes(MAX_BLOB)))
    blobs.append((BlobKind.PAGES, bytes(MAX_BLOB)))
    sealed = make_pack(tmp_path / "pack", blobs)
    raw = sealed.path.read_bytes()
    assert sealed.sha256 == hashlib.sha256(raw).digest()
    assert (sealed.size, sealed.count, sealed.footer) == (len(raw), len(blobs), raw[-PACK_FOOTER:])
    reader = open_pack(raw)
    assert reader.count == len(blobs)
    for slot, (kind, content) in enumerate(blobs):
        assert reader.read(slot, kind, IDS.id(kind, content), IDS) == content
    reader.verify(IDS)


def test_the_file_is_private_and_never_replaced(tmp_path: Path) -> None:
    sealed = make_pack(tmp_path / "pack", contents(1, 1))
    assert stat.S_IMODE(sealed.path.stat().st_mode) == 0o600
    with pytest.raises(PackBroken) as caught:
        writer(sealed.path)
    assert caught.value.params["errno"] == errno.EEXIST
    assert sealed.path.read_bytes()[-PACK_FOOTER:] == sealed.footer


def test_full_at_the_first_blob_that_reaches_the_target(tmp_path: Path) -> None:
    noise = random.Random(4).randbytes(MAX_BLOB)
    writing = writer(tmp_path / "pack")
    while not writing.full:
        assert writing.size < PACK_TARGET
        add(writing, BlobKind.CHUNK, noise, level=None)
    assert writing.count == 16
    writing.abort()
    assert not writing_exists(writing, tmp_path)


def writing_exists(writing: pack.PackWriter, folder: Path) -> bool:
    writing.abort()  # twice is once
    return any(folder.iterdir())


def test_equal_sizes_whatever_the_number_of_blobs(tmp_path: Path) -> None:
    one = make_pack(tmp_path / "one", [(BlobKind.CHUNK, random.Random(5).randbytes(20_000))])
    many = make_pack(tmp_path / "many", [(BlobKind.CHUNK, random.Random(n).randbytes(100)) for n in range(150)])
    assert one.size == many.size == 32 << 10


def test_nothing_in_a_pack_looks_like_anything(tmp_path: Path) -> None:
    """Blobs of zeros, a small directory, a long pad: all must come out as noise, the footer's fixed fields apart."""
    raw = make_pack(tmp_path / "pack", [(BlobKind.PAGES, bytes(900))] * 3).path.read_bytes()
    sealed = raw[8:-PACK_FOOTER]
    for part in (sealed[-4096:], sealed[:4096], sealed):
        counts = collections.Counter(part)
        expected = len(part) / 256
        # Pearson's chi-square, 255 degrees of freedom: mean 255, deviation 22.6. Eight of those never happen by chance.
        chi = sum((counts[value] - expected) ** 2 / expected for value in range(256))
        assert 255 - 8 * 22.6 < chi < 255 + 8 * 22.6
    assert not any(raw.count(bytes([value]) * 8) for value in range(256))


class Recorder:
    """AESGCM that remembers every (key, nonce) it sealed under."""

    sealed: list[tuple[bytes, bytes]]
    lock = threading.Lock()

    def __init__(self, key: bytes) -> None:
        self._key = bytes(key)
        self._real = AESGCM(self._key)

    def _note(self, nonce: bytes) -> None:
        assert len(nonce) == 12
        with self.lock:
            self.sealed.append((self._key, bytes(nonce)))

    def encrypt(self, nonce: bytes, *args: Any) -> bytes:
        self._note(nonce)
        return self._real.encrypt(nonce, *args)

    def encrypt_into(self, nonce: bytes, *args: Any) -> int:
        self._note(nonce)
        return self._real.encrypt_into(nonce, *args)

    def decrypt(self, nonce: bytes, *args: Any) -> bytes:
        return self._real.decrypt(nonce, *args)

    def decrypt_into(self, nonce: bytes, *args: Any) -> int:
        return self._real.decrypt_into(nonce, *args)


@pytest.fixture
def sealed_under(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    noted: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(Recorder, "sealed", noted, raising=False)
    monkeypatch.setattr(seal, "AESGCM", Recorder)
    return noted


def test_no_nonce_is_used_twice_by_threads_on_one_writer(
    tmp_path: Path, sealed_under: list[tuple[bytes, bytes]]
) -> None:
    writing = writer(tmp_path / "pack")
    blobs = {n: contents(n, 2)[1] for n in range(120)}
    slots: dict[int, int] = {}
    gate = threading.Barrier(6)

    def work(part: int) -> None:
        gate.wait()
        for n in range(part, 120, 6):
            slots[n] = add(writing, *blobs[n])

    threads = [threading.Thread(target=work, args=(part,)) for part in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sealed = writing.finish(IDS)
    assert sorted(slots.values()) == list(range(120))
    assert len(sealed_under) == len(set(sealed_under)) == 120 + 2  # and pad and directory
    assert len({key for key, _ in sealed_under}) == 1
    reader = open_pack(sealed.path.read_bytes())
    for n, slot in slots.items():
        kind, content = blobs[n]
        assert reader.read(slot, kind, IDS.id(kind, content), IDS) == content


def test_no_nonce_is_used_twice_over_retries_and_packs(tmp_path: Path, sealed_under: list[tuple[bytes, bytes]]) -> None:
    """The same blobs sealed again and again, each time broken at another write: other content meets the same index."""
    fired = 0
    for fail_at in range(12):
        disk = Disk(fail_at=fail_at, error=errno.ENOSPC)
        try:
            writing = writer(tmp_path / "pack", create=disk.create)
            for kind, content in contents(fail_at, 8):
                add(writing, kind, content)
            writing.finish(IDS).path.unlink()
        except PackBroken:
            fired += 1
    assert fired == 12
    make_pack(tmp_path / "pack", contents(1, 8))
    assert len(sealed_under) == len(set(sealed_under)) > 12 * 4


class Disk:
    """Makes files that fail, write a part only, or change what was written before it is read again."""

    def __init__(
        self, fail_at: int | None = None, error: int = 0, short: bool = False, flip: int | None = None
    ) -> None:
        self.fail_at, self.error, self.short, self.flip = fail_at, error, short, flip
        self.writes = 0
        self.fired = 0

    def create(self, path: Path) -> BinaryIO:
        disk = self

        class File(io.FileIO):
            def write(self, piece: Any, /) -> int:
                if disk.writes == disk.fail_at:
                    disk.fired += 1
                    raise OSError(disk.error, os.strerror(disk.error))
                disk.writes += 1
                if disk.short and len(piece) > 1:
                    disk.fired += 1
                    piece = piece[: len(piece) // 2]
                return super().write(piece)

            def close(self) -> None:
                if not self.closed and disk.flip is not None and disk.fired == 0:
                    disk.fired += 1
                    with open(path, "r+b") as file:
                        size = os.fstat(file.fileno()).st_size
                        file.seek(disk.flip % size)
                        byte = file.read(1)[0]
                        file.seek(disk.flip % size)
                        file.write(bytes([byte ^ 1]))
                super().close()

        with pack.create_file(path) as made:
            return File(os.dup(made.fileno()), "w")


# header, three records, pad, directory, footer: seven writes
@pytest.mark.parametrize("fail_at", range(7))
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_pack_is_unusable_after_a_failed_write(tmp_path: Path, fail_at: int, error: int) -> None:
    disk = Disk(fail_at=fail_at, error=error)
    blobs = contents(7, 3)
    broken: list[pack.PackWriter] = []

    def write_all() -> None:
        writing = writer(tmp_path / "pack", create=disk.create)
        broken.append(writing)
        for kind, content in blobs:
            add(writing, kind, content)
        writing.finish(IDS)

    with pytest.raises(PackBroken) as caught:
        write_all()
    assert disk.fired == 1
    assert caught.value.params == {"errno": error}
    assert not (tmp_path / "pack").exists()
    for writing in broken:  # none, if not even the header could be written
        disk.fail_at = None  # the disk is well again: the pack is not
        with pytest.raises(PackBroken):
            add(writing, *blobs[1])
        with pytest.raises(PackBroken):
            writing.finish(IDS)
        assert bytes(writing._key) == bytes(32)
        writing.abort()
    make_pack(tmp_path / "pack", blobs)


def test_a_disk_that_writes_a_part_is_asked_again(tmp_path: Path) -> None:
    disk = Disk(short=True)
    writing = writer(tmp_path / "pack", create=disk.create)
    blobs = contents(8, 5)
    for kind, content in blobs:
        add(writing, kind, content)
    sealed = writing.finish(IDS)
    assert disk.fired > 5
    open_pack(sealed.path.read_bytes(), sealed.sha256).verify(IDS)


def places() -> list[int]:
    """Of one pack of `contents(9, 6)`: header, each record, pad, directory, capsule, public, commitment, end."""
    rng = random.Random(10)
    return [
        0,
        7,
        8,
        30,
        *(rng.randrange(8, 32 << 10) for _ in range(40)),
        *range(-PACK_FOOTER - 40, 0, 60),
        -40,
        -8,
        -1,
    ]


@pytest.mark.parametrize("flip", places())
def test_a_bit_that_flipped_on_the_disk_is_found_before_the_key_is_gone(tmp_path: Path, flip: int) -> None:
    disk = Disk(flip=flip)
    writing = writer(tmp_path / "pack", create=disk.create)
    for kind, content in contents(9, 6):
        add(writing, kind, content)
    with pytest.raises(SelfCheckFailed):
        writing.finish(IDS)
    assert disk.fired == 1
    assert not (tmp_path / "pack").exists()
    assert bytes(writing._key) == bytes(32)


@pytest.mark.parametrize("refused_by", ["nobody", "open", "read"])
def test_the_self_check_reads_the_disk_and_not_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_by: str
) -> None:
    """After the fsync the file is read directly; where that is refused, the cache is told to let go of it first."""
    calls: list[str] = []
    opened, read, synced, advised = os.open, os.readv, os.fsync, os.posix_fadvise

    def opening(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            calls.append("direct")
            if refused_by == "open":
                raise OSError(errno.EINVAL, "no direct reads here")
        return opened(path, flags, *more, **named)

    def reading(fd: int, room: Any) -> int:
        if refused_by == "read" and "advised" not in calls:
            raise OSError(errno.EINVAL, "no direct reads here")
        calls.append("read")
        return read(fd, room)

    def syncing(fd: int) -> None:
        calls.append("fsync")
        synced(fd)

    def advising(*arguments: int) -> None:
        calls.append("advised")
        advised(*arguments)

    for name, fault in {"open": opening, "readv": reading, "fsync": syncing, "posix_fadvise": advising}.items():
        monkeypatch.setattr(os, name, fault)
    make_pack(tmp_path / "pack", contents(1, 3))
    order = list(dict.fromkeys(calls))
    expected = ["fsync", "direct", "read"] if refused_by == "nobody" else ["fsync", "direct", "advised", "read"]
    assert order == expected


def test_a_wrong_id_or_length_is_found_by_the_self_check(tmp_path: Path) -> None:
    """What a fault in memory between compression and sealing would leave behind."""
    for blob_id, raw_len in ((IDS.id(BlobKind.CHUNK, b"other"), 7), (IDS.id(BlobKind.CHUNK, b"content"), 8)):
        writing = writer(tmp_path / "pack")
        writing.add(BlobKind.CHUNK, blob_id, 0, b"content", raw_len)
        with pytest.raises(SelfCheckFailed):
            writing.finish(IDS)


def test_the_key_is_wiped_and_nothing_is_added_after_the_end(tmp_path: Path) -> None:
    writing = writer(tmp_path / "pack")
    add(writing, BlobKind.CHUNK, b"content")
    key = writing._key
    assert bytes(key) != bytes(32)
    sealed = writing.finish(IDS)
    assert bytes(key) == bytes(32)
    for again in (lambda: add(writing, BlobKind.CHUNK, b"more"), lambda: writing.finish(IDS)):
        with pytest.raises(AssertionError):
            again()
    writing.abort()
    assert sealed.path.exists()


def test_no_pack_is_longer_than_a_reader_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "MAX_PACK", 256 << 10)  # a padded size, as 64 MiB is
    noise = random.Random(6).randbytes(256 << 10)
    writing = writer(tmp_path / "pack")
    add(writing, BlobKind.LAYER, noise[:100_000])
    room = writing.room
    with pytest.raises(AssertionError):
        add(writing, BlobKind.LAYER, noise[: room + 1])
    add(writing, BlobKind.LAYER, noise[:room])
    assert writing.room < 0
    sealed = writing.finish(IDS)
    assert sealed.size == 256 << 10
    open_pack(sealed.path.read_bytes(), sealed.sha256).verify(IDS)


def test_the_key_is_wiped_by_abort(tmp_path: Path) -> None:
    writing = writer(tmp_path / "pack")
    writing.abort()
    assert bytes(writing._key) == bytes(32)
    with pytest.raises(PackBroken):
        add(writing, BlobKind.CHUNK, b"content")


def test_a_child_process_cannot_go_on_with_the_pack_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = writer(tmp_path / "pack")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(AssertionError):
            add(writing, BlobKind.CHUNK, b"content")
    writing.abort()


def test_mistakes_of_the_caller_are_refused_and_leave_the_pack_usable(tmp_path: Path) -> None:
    writing = writer(tmp_path / "pack")
    with pytest.raises(AssertionError):
        writing.finish(IDS)
    for blob_id, payload, raw_len in ((bytes(31), b"x", 1), (bytes(32), b"xx", 1), (bytes(32), b"x", MAX_BLOB + 1)):
        with pytest.raises(AssertionError):
            writing.add(BlobKind.CHUNK, blob_id, 0, payload, raw_len)
    assert add(writing, BlobKind.CHUNK, b"content") == 0
    writing.finish(IDS)


def test_a_writer_shows_no_key(tmp_path: Path) -> None:
    writing = writer(tmp_path / "pack")
    assert repr(writing) == "<PackWriter>"
    with pytest.raises(TypeError):
        __import__("copy").copy(writing)
    writing.abort()
    assert PRIVATE.public.raw not in repr(make_pack(tmp_path / "pack", contents(1, 1))).encode()
