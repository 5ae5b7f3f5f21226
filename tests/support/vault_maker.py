"""Vaults with snapshots in them, built straight from packs, layers and manifests: no state, no daemon, no source."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import blake3

from chatkeep.daemon.capture.digests import page_digests, page_table_digest
from chatkeep.daemon.vault.blob import BlobKind, BlobRef, IdKeys, compress
from chatkeep.daemon.vault.layer_build import LayerBuilder, split_ranges
from chatkeep.daemon.vault.layers import (
    MAX_BLOB,
    PENDING,
    RESET,
    Extent,
    FileKind,
    FileRecord,
    Reference,
    Section,
    make_run,
    ranges_of,
)
from chatkeep.daemon.vault.manifest import NewPack, StackLayer, seal_manifest
from chatkeep.daemon.vault.names import ManifestName, PackName
from chatkeep.daemon.vault.pack import PackWriter
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.snapshots import Stream
from tests.support.manifests import Keys, make_manifest, make_vault, named
from tests.support.memory_provider import MemoryProvider

MTIME = 1_600_000_000_123_456_789
STREAM = b"stream-of-a-test"


@dataclasses.dataclass(frozen=True)
class Waiting:
    """A blob that has no place yet."""

    kind: BlobKind
    content: bytes


class VaultMaker:
    """One source's snapshots at one provider. What is said between two commits becomes one snapshot."""

    def __init__(self, directory: Path, *, blobs_per_pack: int = 5, level: int | None = 1) -> None:
        self.provider = MemoryProvider()
        self.vault = make_vault()
        self.ids = IdKeys(bytes(self.vault.credential.id_key.view()))
        self.paths: dict[bytes, int] = {}
        self.images: dict[int, tuple[int, bytes]] = {}
        self.snapshots: list[Snapshot] = []
        self.pack_names: list[PackName] = []
        self._directory, self._blobs_per_pack, self._level = directory, blobs_per_pack, level
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self._stack: list[StackLayer] = []
        self._prev = bytes(32)
        self._records: dict[int, FileRecord] = {}
        self._begin()

    def _begin(self) -> None:
        self._builder = LayerBuilder()
        self._contents: dict[int, list[int | Waiting]] = {}
        self._sections: dict[int, tuple[Section, list[tuple[list[tuple[int, int]], Waiting]]]] = {}

    # -- what a snapshot says

    def record(self, path: bytes, kind: FileKind, **fields: Any) -> int:
        """A path and its record; a path that is known keeps its file id."""
        file_id = self.paths.setdefault(path, 0) or next(self._ids)
        self.paths[path] = file_id
        usual: dict[str, Any] = {"mode": 0o644, "uid": 1000, "gid": 1000, "user": b"", "group": b"", "mtime": MTIME}
        record = FileRecord(**({"file_id": file_id, "kind": kind, "size": 0, "flags": 0} | usual | fields))
        self._builder.add_entry(path, file_id)
        self._builder.add_file(record)
        self._records[file_id] = record
        return file_id

    def directory(self, path: bytes, **fields: Any) -> int:
        """A directory, 0755."""
        return self.record(path, FileKind.DIRECTORY, **({"mode": 0o755} | fields))

    def file(self, path: bytes, *pieces: bytes | int, **fields: Any) -> int:
        """A file of pieces of content (at most 1 MiB each) and of holes (their lengths)."""
        size = sum(piece if isinstance(piece, int) else len(piece) for piece in pieces)
        file_id = self.record(path, FileKind.FILE, **({"size": size} | fields))
        self._contents[file_id] = [
            piece if isinstance(piece, int) else Waiting(BlobKind.CHUNK, piece) for piece in pieces if piece
        ]
        return file_id

    def symlink(self, path: bytes, target: bytes, **fields: Any) -> int:
        """A symbolic link."""
        return self.record(path, FileKind.SYMLINK, target=target, mode=0o777, **fields)

    def link(self, path: bytes, file_id: int) -> None:
        """Another name of a file."""
        self.paths[path] = file_id
        self._builder.add_entry(path, file_id)

    def remove(self, path: bytes) -> None:
        """The path is gone."""
        del self.paths[path]
        self._builder.add_entry(path, None)

    def database(self, path: bytes, image: bytes, page_size: int = 4096, **fields: Any) -> int:
        """A database: all pages the first time and after `reset`, then those that changed."""
        known = self.paths.get(path, 0)
        old_size, old = self.images.get(known, (0, b""))
        reset = old_size != page_size
        file_id = self.record(path, FileKind.DATABASE, **({"size": len(image)} | fields))
        count = len(image) // page_size
        pages = [image[at : at + page_size] for at in range(0, len(image), page_size)]
        dirty = [
            number
            for number, page in enumerate(pages, 1)
            if reset or old[(number - 1) * page_size : number * page_size] != page
        ]
        runs = [
            (group, Waiting(BlobKind.PAGES, b"".join(b"".join(pages[f - 1 : f - 1 + n]) for f, n in group)))
            for group in split_ranges(ranges_of(dirty), page_size)
        ]
        keys = self.ids
        table = page_table_digest(
            [page_digests(image, page_size, keys.page_seed)], page_size, count, keys.page_table_key, keys.page_seed
        )
        section = Section(file_id, RESET if reset else 0, page_size, count, table)
        self._sections[file_id] = (section, runs)
        self.images[file_id] = (page_size, image)
        return file_id

    # -- making it

    def commit(self, **fields: Any) -> Snapshot:
        """Seal everything said since the last commit and put it to the provider."""
        waiting = [piece for own in self._contents.values() for piece in own if isinstance(piece, Waiting)]
        waiting += [blob for _, runs in self._sections.values() for _, blob in runs]
        places = self._seal(list(dict.fromkeys(waiting)))
        for file_id, pieces in self._contents.items():
            extents = [
                Extent(piece, None) if isinstance(piece, int) else Extent(len(piece.content), places[piece])
                for piece in pieces
            ]
            self._builder.add_content(file_id, sum(extent.length for extent in extents), extents)
        for section, runs in self._sections.values():
            made = tuple(make_run(group, places[blob]) for group, blob in runs)
            self._builder.add_section(
                Section(section.file_id, section.flags, section.page_size, section.page_count, section.digest, made)
            )
        parts = [Waiting(BlobKind.LAYER, part) for part in self._builder.parts()]
        own = self._seal(parts)
        refs = tuple(BlobRef(own[part].pack or b"", own[part].slot, own[part].id) for part in parts)
        seq = len(self.snapshots) + 1
        if refs:
            self._stack.insert(0, StackLayer(0, seq, seq, refs))
        self._begin()
        return self._put_manifest(seq, fields)

    def _put_manifest(self, seq: int, fields: dict[str, Any]) -> Snapshot:
        databases = self._databases()
        total = blake3.blake3(key=self.ids.set_key)
        for file_id, digest in sorted(databases.items()):
            total.update(file_id.to_bytes(8, "big") + digest)
        usual: dict[str, Any] = {
            "time": seq,
            "clock": seq,
            "flags": 0,
            "stack": tuple(self._stack),
            "packs": tuple(NewPack(name.sha256, len(self.provider.objects[str(name)])) for name in self.pack_names),
            "databases": len(databases),
            "set_digest": total.digest(),
        }
        manifest = make_manifest(self.vault, **(usual | fields))
        raw = seal_manifest(manifest, STREAM, seq, self._prev, self.vault.credential)
        name = named(self.vault, STREAM, seq, raw)
        self.provider.put(str(name), raw)
        self._prev = name.sha256
        (snapshot,) = [own for own in self._all() if own.name == name]
        self.snapshots.append(snapshot)
        return snapshot

    def _databases(self) -> dict[int, bytes]:
        keys = self.ids
        found = {}
        for file_id in set(self.paths.values()):
            if file_id in self.images and self._records[file_id].kind is FileKind.DATABASE:
                size, image = self.images[file_id]
                digests = [page_digests(image, size, keys.page_seed)]
                found[file_id] = page_table_digest(
                    digests, size, len(image) // size, keys.page_table_key, keys.page_seed
                )
        return found

    def _seal(self, blobs: list[Waiting]) -> dict[Waiting, Reference]:
        places: dict[Waiting, Reference] = {}
        known = self.vault.credential
        for start in range(0, len(blobs), self._blobs_per_pack):
            path = self._directory / f"pack-{next(self._numbers)}"
            writer = PackWriter(path, known.public, known.vault_id, known.epoch, known.device_id)
            group = blobs[start : start + self._blobs_per_pack]
            for blob in group:
                codec, payload = compress(blob.kind, blob.content, self._level)
                writer.add(blob.kind, self.ids.id(blob.kind, blob.content), codec, payload, len(blob.content))
            sealed = writer.finish(self.ids)
            for slot, blob in enumerate(group):
                places[blob] = Reference(sealed.sha256, slot, self.ids.id(blob.kind, blob.content))
            name = PackName(known.device_id, sealed.sha256)
            self.provider.put(str(name), path.read_bytes())
            path.unlink()
            self.pack_names.append(name)
        return places

    # -- reading it

    def reader(self) -> VaultReader:
        """A reader that has fetched nothing yet."""
        return VaultReader([self.provider], Keys(self.vault))

    def _all(self) -> list[Snapshot]:
        reader = self.reader()
        return list(reader.snapshots(reader.chain(Stream(self.vault.credential.device_id, STREAM))))

    def damage(self, name: PackName | ManifestName, place: int = 100) -> None:
        """Flip a bit of an object."""
        raw = bytearray(self.provider.objects[str(name)])
        raw[place] ^= 1
        self.provider.objects[str(name)] = bytes(raw)


def pending(maker: VaultMaker, path: bytes) -> int:
    """A file that was seen and has no content yet."""
    return maker.record(path, FileKind.FILE, size=123, flags=PENDING)


def chunks(content: bytes) -> list[bytes]:
    """The content in pieces of 1 MiB."""
    return [content[at : at + MAX_BLOB] for at in range(0, len(content), MAX_BLOB)]
