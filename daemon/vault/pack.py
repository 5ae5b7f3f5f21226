"""Writing packs (docs/format.md, section 10).

A pack is written once, by one writer, with one random key that exists in this process' memory and in the capsule, and
nowhere else. It is never continued: after a failed write, a crash or a fork nobody can tell which nonces were used.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.hybrid import HybridPublic
from chatkeep.daemon.keys.secret import Buffer, Sensitive, random_secret, wipe
from chatkeep.daemon.vault.blob import BlobKind, IdKeys
from chatkeep.daemon.vault.errors import PackBroken, SelfCheckFailed
from chatkeep.daemon.vault.from_disk import FromDisk
from chatkeep.daemon.vault.labels import (
    DIRECTORY_ENTRY,
    HASH_SIZE,
    KEY_SIZE,
    KIND_DIRECTORY,
    KIND_PAD,
    MAX_BLOB,
    MAX_BLOBS,
    MAX_PACK,
    PACK,
    PACK_MAGIC,
    PACK_TARGET,
    TAG_SIZE,
)
from chatkeep.daemon.vault.pack_layout import (
    MAX_RECORD,
    RECORD_OVERHEAD,
    Entry,
    Footer,
    Layout,
    Place,
    Public,
    check_whole,
    encode_directory,
    unpadded_size,
)
from chatkeep.daemon.vault.padding import padded_pack_size
from chatkeep.daemon.vault.seal import RecordCipher, derive


@dataclass(frozen=True, slots=True)
class SealedPack:
    """A finished pack in the outbox: durable, and proven to open from the disk's bytes.

    Attributes:
        sha256: of the object; its name.
        size: of the object, bytes.
        path: the file. Its directory entry is not durable yet: whoever renames the file syncs the directory.
        count: blobs in it.
        footer: its last 1276 bytes. The capsule in it is all that could not be proven here, where no key can open it;
            with these bytes kept, the next unlock proves it without a download (`pack_reader.prove_footer`).
    """

    sha256: bytes
    size: int
    path: Path
    count: int
    footer: bytes = field(repr=False)


class _State(enum.Enum):
    OPEN = enum.auto()
    FINISHED = enum.auto()
    BROKEN = enum.auto()


def create_file(path: Path) -> BinaryIO:
    """A new file for this process alone, unbuffered: what `write` took has reached the kernel."""
    # O_EXCL: a file that is there may be another writer's pack.
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    return io.FileIO(os.open(path, flags, 0o600), "w")


class PackWriter(Sensitive):
    """Seals blobs into one new pack.

    Threads may call it; they take turns. A turn gives out the record's index, which is its nonce, and writes the
    record: were these apart, two threads could seal under one nonce.

    Args:
        path: a file that does not exist, in the outbox' temporary directory.
        public: hybrid key of the pinned epoch.
        vault_id, epoch, device_id: what the pack is bound to.
        create: makes the file; a seam for faults.

    Raises:
        PackBroken: the file could not be made.
    """

    def __init__(
        self,
        path: Path,
        public: HybridPublic,
        vault_id: bytes,
        epoch: int,
        device_id: bytes,
        *,
        create: Callable[[Path], BinaryIO] = create_file,
    ) -> None:
        self._path: Final = path
        self._recipient: Final = public
        self._public: Final = Public(vault_id, epoch, public.key_id, device_id)
        self._lock: Final = threading.Lock()
        self._entries: Final[list[Entry]] = []
        self._key: Final = random_secret(KEY_SIZE)
        aead, self._commit = derive(PACK, self._key, vault_id, epoch)
        self._cipher: RecordCipher | None = RecordCipher(aead, self._public.record_context)
        # One record is built here and sealed there, again and again: no megabyte is allocated per blob.
        self._plain: Final = memoryview(bytearray(1 + MAX_BLOB))
        self._sealed: Final = memoryview(bytearray(MAX_RECORD))
        self._size = 0
        self._state = _State.OPEN
        self._process: Final = os.getpid()
        self._file: BinaryIO | None = None
        try:
            self._file = create(path)
            self._write(memoryview(PACK_MAGIC))
        except BaseException as exc:
            self._break(exc)

    @property
    def size(self) -> int:
        """Bytes written so far; the finished pack also has pad, directory and footer."""
        return self._size

    @property
    def count(self) -> int:
        """Blobs added so far; the next one gets this slot."""
        return len(self._entries)

    @property
    def full(self) -> bool:
        """Whether to finish: 16 MiB are reached, or the most blobs a pack can have."""
        return self._size >= PACK_TARGET or len(self._entries) >= MAX_BLOBS

    @property
    def room(self) -> int:
        """The longest payload that may still be added, in bytes; negative when none may."""
        count = len(self._entries)
        if count >= MAX_BLOBS:
            return -1
        # 64 MiB is a padded size, so what is not longer unpadded is not longer padded.
        return MAX_PACK - unpadded_size(self._size + RECORD_OVERHEAD, count + 1)

    def add(self, kind: BlobKind, blob_id: bytes, codec: int, payload: Buffer, raw_len: int) -> int:
        """Seals one blob, as `compress` and `IdKeys.id` made it; returns its slot.

        Raises:
            PackBroken: the write failed, now or before. The file is gone; start another pack.
        """
        length = len(payload)
        if length > raw_len or raw_len > MAX_BLOB or len(blob_id) != HASH_SIZE:
            raise AssertionError("not a blob")
        with self._lock:
            cipher = self._require_open()
            slot = len(self._entries)
            if length > self.room:
                raise AssertionError("no room in the pack")
            try:
                plain, sealed = self._plain[: 1 + length], self._sealed[: RECORD_OVERHEAD + length]
                plain[0] = codec
                plain[1:] = payload
                cipher.seal_into(slot, kind, plain, sealed)
                self._entries.append(Entry(kind, self._size, len(sealed), raw_len, blob_id))
                self._write(sealed)
            except BaseException as exc:
                self._break(exc)
            return slot

    def finish(self, ids: IdKeys) -> SealedPack:
        """Writes pad, directory and footer, makes the file durable, and proves that it reads back.

        The file is read again, from the disk as far as the system lets us ask for that; every record is opened and
        decompressed and its id computed with `ids`, the key of the device. Only then is the key forgotten: until here
        the blobs could have been sealed again.

        Raises:
            PackBroken: a write failed, now or before, or the file could not be read.
            SelfCheckFailed: what was read is not what was sealed. The file is gone.
        """
        with self._lock:
            cipher = self._require_open()
            if not self._entries:
                raise AssertionError("a pack without blobs")
            try:
                layout = self._close_pack(cipher)
                digest = self._check(layout, ids)
            except BaseException as exc:
                self._break(exc)
            self._forget(_State.FINISHED)
            return SealedPack(digest, layout.size, self._path, len(layout.entries), layout.footer.encode())

    def abort(self) -> None:
        """Gives the pack up: wipes the key and removes the file. Nothing happens once it is finished. Twice is once."""
        with self._lock:
            if self._state is _State.OPEN:
                self._drop()

    def _close_pack(self, cipher: RecordCipher) -> Layout:
        count = len(self._entries)
        unpadded = unpadded_size(self._size, count)
        pad = bytes(padded_pack_size(unpadded) - unpadded)
        self._seal_and_write(cipher, count, KIND_PAD, pad)
        place = Place(self._size, count * DIRECTORY_ENTRY + TAG_SIZE, count)
        self._seal_and_write(cipher, count + 1, KIND_DIRECTORY, encode_directory(self._entries))
        footer = Footer(self._seal_capsule(place), self._public, self._commit)
        self._write(memoryview(footer.encode()))
        file = self._require_file()
        # The hash of this file goes into a committed manifest: it must be on the disk before, and be read from there.
        os.fsync(file.fileno())
        file.close()
        return Layout(footer, place, self._entries, cipher)

    def _seal_capsule(self, place: Place) -> bytes:
        content = self._key + place.encode()
        try:
            return self._recipient.seal(content, self._public.capsule_info)
        finally:
            wipe(content)

    def _check(self, layout: Layout, ids: IdKeys) -> bytes:
        # From the disk: a bit that flipped on the way there is found now, while the blobs can still be sealed again.
        with FromDisk(self._path) as file:
            try:
                return check_whole(file.take, layout, ids)
            except ChatkeepError as exc:
                raise SelfCheckFailed(what="pack", reason=exc.code, **_plain(exc)) from exc

    def _seal_and_write(self, cipher: RecordCipher, index: int, kind: int, plain: bytes) -> None:
        sealed = memoryview(bytearray(len(plain) + TAG_SIZE))
        cipher.seal_into(index, kind, plain, sealed)
        self._write(sealed)

    def _write(self, piece: memoryview) -> None:
        file = self._require_file()
        self._size += len(piece)
        while piece:
            written = file.write(piece)
            piece = piece[written:]

    def _require_open(self) -> RecordCipher:
        if self._state is _State.BROKEN:
            raise PackBroken
        if self._cipher is None:
            raise AssertionError("the pack is finished")
        if os.getpid() != self._process:
            # Both sides of a fork have the key, and both would seal under the next index.
            raise AssertionError("a pack is not continued in a child process")
        return self._cipher

    def _require_file(self) -> BinaryIO:
        if self._file is None:
            raise AssertionError("no file")
        return self._file

    def _break(self, exc: BaseException) -> NoReturn:
        self._drop()
        if isinstance(exc, OSError):
            raise PackBroken(errno=exc.errno) from exc
        raise exc

    def _drop(self) -> None:
        self._forget(_State.BROKEN)
        if self._file is not None:
            # Half a pack is of no use to anyone. That it cannot be removed must not hide why it is dropped.
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _forget(self, state: _State) -> None:
        self._state = state
        self._cipher = None
        wipe(self._key)


def _plain(exc: ChatkeepError) -> dict[str, object]:
    return {f"found_{key}": value for key, value in exc.params.items() if isinstance(value, (int, str))}
