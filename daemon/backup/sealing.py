"""Blobs to packs: ids and compression on every core, one append path per pack, packs finished in the background."""

from __future__ import annotations

import collections
import contextlib
import enum
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeAlias

from chatkeep.daemon.state import KnownBlob
from chatkeep.daemon.vault.blob import BlobKind, IdKeys, compress
from chatkeep.daemon.vault.layers import Reference
from chatkeep.daemon.vault.pack import PackWriter, SealedPack

_Prepared: TypeAlias = tuple[KnownBlob | None, bytes, int, bytes]  # a copy that exists, or id, codec and payload

# Blobs read but not yet appended. Each is up to 1 MiB of plaintext and as much again compressed: this bounds memory.
WINDOW = 8


class Lane(enum.Enum):
    """Packs hold what lives equally long, so that thinning frees whole packs."""

    FRESH = "fresh"  # changed pages and the snapshot's own layer: gone after the first fold
    BASE = "base"  # aligned full runs: stay for months
    MEDIA = "media"  # chunks of files: stay as long as the file
    FOLDED = "folded"  # merged layers: gone after the next fold


class Ticket:
    """A pack that is being written; its hash is known once it is finished."""

    def __init__(self) -> None:
        self.sealed: SealedPack | None = None


class Blob:
    """A blob on its way into a pack: `reference()` holds once the sealer was drained and the pack finished."""

    __slots__ = ("id", "known", "raw_size", "slot", "ticket")

    def __init__(self, raw_size: int) -> None:
        self.raw_size = raw_size
        self.ticket: Ticket | None = None
        self.known: Reference | None = None  # it is in the vault already
        self.slot = -1
        self.id = b""

    def reference(self) -> Reference:
        """Where the blob is: pack None stands for a pack that is still open."""
        if self.known is not None:
            return self.known
        assert self.ticket is not None, "the sealer was not drained"
        sealed = self.ticket.sealed
        return Reference(None if sealed is None else sealed.sha256, self.slot, self.id)


class PackFactory(Protocol):
    """Makes the writer of a new pack at a path."""

    def __call__(self, path: Path) -> PackWriter: ...


class Sealer:
    """Seals the blobs of one snapshot. One thread calls it; compression and finishing run beside that thread."""

    def __init__(
        self,
        staging: Path,
        new_pack: PackFactory,
        ids: IdKeys,
        copies: Callable[[bytes], Sequence[KnownBlob]] | None = None,
    ) -> None:
        """`copies`: what of a blob is in the vault already, by its id; None while nothing is known to be."""
        self._staging = staging
        self._new_pack = new_pack
        self._ids = ids
        self._copies = copies
        self.reused: list[KnownBlob] = []
        self._taken: set[KnownBlob] = set()
        self._taking = threading.Lock()
        self._workers = ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1), thread_name_prefix="seal")
        self._finisher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="finish")
        self._window: collections.deque[tuple[Lane, Blob, BlobKind, Future[_Prepared]]] = collections.deque()
        self._open: dict[Lane, tuple[PackWriter, Ticket]] = {}
        self._finishing: list[tuple[int, Ticket, Future[SealedPack]]] = []  # the size before padding
        self.packs: list[SealedPack] = []
        self.new_plaintext = 0
        self._closed = 0
        self._waiting = 0

    @property
    def size(self) -> int:
        """Bytes of packs so far: finished, finishing, open, and an upper bound for what is in the window.

        Asked for every piece of every file, so it is kept, not counted.
        """
        return self._closed + self._waiting + sum(writer.size for writer, _ in self._open.values())

    def submit(self, lane: Lane, kind: BlobKind, data: bytes, level: int | None) -> Blob:
        """Take one blob of 1 byte to 1 MiB. `level` is the Zstandard level, None for "stored as it is"."""
        blob = Blob(len(data))
        self.new_plaintext += len(data)
        self._waiting += len(data)
        self._window.append((lane, blob, kind, self._workers.submit(self._prepare, kind, data, level)))
        while len(self._window) > WINDOW:
            self._append_oldest()
        return blob

    def drain(self) -> None:
        """Append everything submitted."""
        while self._window:
            self._append_oldest()

    def close(self, *lanes: Lane) -> None:
        """Drain, finish the open packs of `lanes` and everything that is finishing: their hashes are then known."""
        self.drain()
        for lane in lanes:
            self._finish(lane)
        for size, ticket, future in self._finishing:
            ticket.sealed = future.result()
            self._closed += ticket.sealed.size - size
            self.packs.append(ticket.sealed)
        self._finishing.clear()

    def abort(self) -> None:
        """Give up: open packs are dropped with their keys, files of finished ones removed."""
        self._window.clear()
        # Each step whether or not another one failed: a key that nobody drops stays in memory.
        with contextlib.ExitStack() as steps:
            steps.callback(self._remove_finished)
            steps.callback(self._finisher.shutdown)
            for writer, _ in self._open.values():
                steps.callback(writer.abort)
            steps.callback(self._workers.shutdown, cancel_futures=True)

    def _remove_finished(self) -> None:
        finished = [f.result().path for _, _, f in self._finishing if f.exception() is None]
        for path in [*finished, *(pack.path for pack in self.packs)]:
            path.unlink(missing_ok=True)

    def shutdown(self) -> None:
        """End the threads after the last `close`."""
        left = len(self._open) + len(self._window) + len(self._finishing)
        assert left == 0, "blobs would be lost"
        self._workers.shutdown()
        self._finisher.shutdown()

    def append_layer(self, lane: Lane, parts: list[bytes], level: int | None) -> list[Blob]:
        """Append the parts of a layer to the pack of `lane`, all to one: they may name it as "this pack"."""
        self.drain()
        blobs = []
        for part in parts:
            blob = Blob(len(part))
            blob.id, codec, payload = self._sealed_form(BlobKind.LAYER, part, level)
            writer, blob.ticket = self._writer(lane)
            blob.slot = writer.add(BlobKind.LAYER, blob.id, codec, payload, blob.raw_size)
            blobs.append(blob)
        return blobs

    def _append_oldest(self) -> None:
        lane, blob, kind, future = self._window.popleft()
        self._waiting -= blob.raw_size
        known, blob.id, codec, payload = future.result()
        if known is not None:
            self.reused.append(known)
            blob.known = Reference(known.pack, known.slot, known.blob)
            self.new_plaintext -= blob.raw_size
            return
        writer, blob.ticket = self._writer(lane)
        blob.slot = writer.add(kind, blob.id, codec, payload, blob.raw_size)
        if writer.full:
            self._finish(lane)

    def _writer(self, lane: Lane) -> tuple[PackWriter, Ticket]:
        if lane not in self._open:
            self._open[lane] = (self._new_pack(self._staging / secrets.token_hex(16)), Ticket())
        return self._open[lane]

    def _finish(self, lane: Lane) -> None:
        writer, ticket = self._open.pop(lane, (None, None))
        if writer is not None and ticket is not None:
            self._closed += writer.size
            self._finishing.append((writer.size, ticket, self._finisher.submit(writer.finish, self._ids)))

    def _prepare(self, kind: BlobKind, data: bytes, level: int | None) -> _Prepared:
        if self._copies is not None and kind is not BlobKind.LAYER:
            known = self._take(self._ids.id(kind, data), self._copies)
            if known is not None:
                return known, known.blob, 0, b""
        return None, *self._sealed_form(kind, data, level)

    def _take(self, blob: bytes, copies: Callable[[bytes], Sequence[KnownBlob]]) -> KnownBlob | None:
        """A copy that nothing in this snapshot refers to yet. A second file with the same content is sealed, or storage
        could tell that it was there already."""
        with self._taking:
            known = next((one for one in copies(blob) if one not in self._taken), None)
            if known is not None:
                self._taken.add(known)
            return known

    def _sealed_form(self, kind: BlobKind, data: bytes, level: int | None) -> tuple[bytes, int, bytes]:
        codec, payload = compress(kind, data, level)
        return self._ids.id(kind, data), codec, payload
