"""A folder that a client synchronises: iCloud Drive, Dropbox, Nextcloud, Syncthing and their like.

The layout is that of `folder`. What differs is that somebody else works in it:

- **Handed over is not acknowledged.** When `put` returns, the object is durable on this machine, and the client has
  it to upload. Whether and when it did cannot be seen from here, and is never claimed (`Capabilities.acknowledges`).
- **A temporary file lies beside its object** under a name that clients leave out (`synced_names.TEMPORARY`), not in
  `.tmp`: clients do upload folders whose name begins with a dot, and a file that comes out of one is moved there too,
  or deleted and sent again. So the client first sees a file when it is whole and under its name. It is renamed, never
  linked: for a moment a link is two files, and two uploads. Nor does it share a file with the outbox (`adopt`): the
  client may replace its bytes in place.
- **An object may be away**: the client took the bytes off this disk and left a stand-in, or has not fetched them yet.
  That is `Unavailable`, and never `ObjectNotFound`.
- **Conflict copies** are never objects. But where the object itself is gone or damaged, a copy of it with the right
  bytes is as good: those of a name that ends in its SHA-256 are compared with that, others are taken only if the object
  is gone and all copies agree. `delete` removes them too, or the object would come back by them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import plistlib
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatkeep.providers import base, durable, synced_names
from chatkeep.providers.folder import STALE_AFTER, FolderProvider, Verb
from chatkeep.providers.synced_names import Kind

_REMEMBERED = 4096  # files whose digest is kept, so that a pack that is read in parts is hashed once
_STAND_IN_LIMIT = 65_536  # bytes of a stand-in that are read
_BLOCK = 4096  # bytes that are looked at to tell zeros from an object
_STEP = 1 << 20
_SHARD = re.compile(r"[0-9a-f]{2}")
_EMPTY: Final = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class Strays:
    """What a client made of the folder, for people.

    Attributes:
        copies: conflict copies, as paths from the folder down. They do no harm and cost room.
        away: names of objects that are not on this disk now.
    """

    copies: tuple[str, ...]
    away: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What was found in a folder: the component that it stands for (later the object), how, and where it is."""

    name: str
    kind: Kind
    path: Path
    folder: bool


class SyncedFolder(FolderProvider):
    """Objects as files in a folder that a client synchronises. See `base.Provider` for the verbs, `FolderProvider` for
    the arguments.
    """

    def __init__(self, name: str, root: Path, *, create: bool = False) -> None:
        super().__init__(name, root, create=create)
        self._cleared: set[Path] = set()  # folders whose old temporary files this process removed
        self._digests: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._digests_lock = threading.Lock()

    def put(self, name: str, body: bytes) -> None:
        path = self._path(name)
        with self._edge("put", name):
            if self._stands(name, path, body):
                return
            self._staging()
            self._make_folders(path.parent)
            self._clear(path.parent)
            temporary = durable.write_temporary(path.parent, body, ends=synced_names.TEMPORARY)
            try:
                self._exclusive = durable.publish_exclusively(temporary, path)
            except FileExistsError:  # another writer was faster, or the client brought it back
                if not self._stands(name, path, body):
                    durable.publish(temporary, path)
            finally:
                durable.discard(temporary)

    def adopt(self, name: str, path: Path) -> bool:
        """Never: see the module."""
        del name, path
        return False

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise ValueError("length")
        path = self._path(name)
        with self._edge("get", name), self._found(name, path) as (descriptor, found):
            start = max(0, found.st_size + offset) if offset < 0 else min(offset, found.st_size)
            wanted = found.st_size - start if length is None else min(length, found.st_size - start)
            body = durable.read_range(descriptor, start, wanted)
        if len(body) != wanted:
            # A client that takes a file off the disk, or puts another version there, may cut it under us.
            raise base.Unavailable(provider=self.name, object=name, reason="changed")
        return body

    def stat(self, name: str) -> base.ObjectStat:
        path = self._path(name)
        with self._edge("get", name):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found = os.stat(path, follow_symlinks=False)
                if not _is_away(name, path):
                    self._must_be_file(name, found)
                    return base.ObjectStat(name, found.st_size, found.st_mtime)
            with self._found(name, path) as (_, found):
                return base.ObjectStat(name, found.st_size, found.st_mtime)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        self._must_be_in_use()
        return self._listing(prefix)

    def delete(self, name: str) -> None:
        super().delete(name)
        path = self._path(name)
        with self._edge("delete", name):
            rivals = [path.with_name(stand_in) for stand_in in synced_names.stand_ins(path.name)]
            # Of a name that says its hash only the right copies: others are never taken for it, and may be a person's.
            rivals += [copy for copy in self._copies(name) if self._fits(name, copy)]
            for rival in rivals:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    os.unlink(rival)
                    durable.fsync_directory(rival.parent)

    def probe(self) -> base.Capabilities:
        return dataclasses.replace(super().probe(), acknowledges=False)

    def strays(self) -> Strays:
        """What the client made of the folder. Looks at names only; a large folder takes a while.

        Raises:
            ProviderError: the folder cannot be read.
        """
        self._must_be_in_use()
        found = list(self._entries(self._root, "", "", copied=False))
        copies = sorted(os.fspath(each.path.relative_to(self._root)) for each in found if each.kind is Kind.COPY)
        here = {each.name for each in found if each.kind is Kind.ITSELF}
        away = {each.name for each in found if each.kind is Kind.AWAY} - here
        return Strays(tuple(copies), tuple(sorted(away)))

    def _stands(self, name: str, path: Path, body: bytes) -> bool:
        """Whether these bytes are stored already. False: the name is free, or what has it is a stand-in that these
        bytes may replace, since the name says that they are the right ones.

        Raises:
            ObjectConflict: other bytes are.
            Unavailable: something is, and is not here to be compared.
        """
        if os.path.lexists(path):
            if not _is_away(name, path):
                self._compare(name, path, body)
                return True
            if _named_by(name, body):
                return False
        elif not (stand_in := self._stand_in(path)):
            return False
        elif stand_in.parent == path.parent and _size_told(stand_in) in (None, len(body)) and _named_by(name, body):
            return True  # only what was uploaded is taken off the disk, and the name says that it was these bytes
        raise base.Unavailable(provider=self.name, object=name, reason="away")

    def _clear(self, folder: Path) -> None:
        """Removes what killed writers left in a folder, once in a process."""
        with self._lock:
            due = folder not in self._cleared
            self._cleared.add(folder)
        if due:
            with contextlib.suppress(OSError):  # what stays costs room only
                durable.sweep_temporaries(folder, STALE_AFTER, time.time(), synced_names.TEMPORARY)

    @contextlib.contextmanager
    def _found(self, name: str, path: Path) -> Iterator[tuple[int, os.stat_result]]:
        """Descriptor and facts of the file that has the object's bytes: its own, or a conflict copy."""
        with contextlib.ExitStack() as opened:
            descriptor = self._chosen(name, path, opened)
            yield descriptor, os.fstat(descriptor)

    def _chosen(self, name: str, path: Path, opened: contextlib.ExitStack) -> int:
        own, away, lost = None, False, None
        try:
            own = opened.enter_context(_opened(path))
            self._must_be_file(name, os.fstat(own))
            away = _is_away(name, path)
            if not away and base.named_sha256(name) in (None, self._digest(own)):
                return own
        except OSError as problem:  # gone, or unreadable: a copy may do
            lost = problem
        if own is None or base.named_sha256(name) is not None:
            for copy in self._rivals(name):
                return opened.enter_context(_opened(copy))
        if lost is not None:
            raise lost
        if away or own is None:
            raise base.Unavailable(provider=self.name, object=name, reason="away")
        return own  # not the bytes that the name says, as a damaged disk has them: who reads checks

    def _rivals(self, name: str) -> Iterator[Path]:
        """Conflict copies that have the object's bytes. See the module for which."""
        copies = [copy for copy in self._copies(name) if self._fits(name, copy)]
        if base.named_sha256(name) is not None or len({self._digest_of(copy) for copy in copies}) == 1:
            yield from copies

    def _fits(self, name: str, copy: Path) -> bool:
        """Whether a copy may have the object's bytes; certain only for a name that says its hash."""
        wanted = base.named_sha256(name)
        try:
            return not _is_away(name, copy) and wanted in (None, self._digest_of(copy))
        except OSError:  # it went meanwhile
            return False

    def _copies(self, name: str) -> Iterator[Path]:
        """The conflict copies of an object: of its file, or in a conflict copy of a folder above it."""
        *above, last = self._path(name).relative_to(self._root).parts
        folders = [(self._root, False)]
        for part in above:
            folders = [
                (found.path, copied or found.kind is Kind.COPY)
                for folder, copied in folders
                for found in _named(folder, part)
                if found.folder
            ]
        for folder, copied in folders:
            for found in _named(folder, last):
                if not found.folder and (copied or found.kind is Kind.COPY):
                    yield found.path

    def _stand_in(self, path: Path) -> Path | None:
        """What a client put in place of the file, or of a folder above it."""
        while path != self._root:
            for each in synced_names.stand_ins(path.name):
                if os.path.lexists(path.with_name(each)):
                    return path.with_name(each)
            path = path.parent
        return None

    def _digest_of(self, path: Path) -> str | None:
        """SHA-256 of a file in hex; None when it cannot be read."""
        try:
            with _opened(path) as descriptor:
                return self._digest(descriptor) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        except OSError:
            return None

    def _digest(self, descriptor: int) -> str:
        found = os.fstat(descriptor)
        # The time of the last change of anything (ctime) cannot be set back, so a file that is the same by these is.
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        with self._digests_lock:
            known = self._digests.get(key)
        if known is not None:
            return known
        digest, offset = hashlib.sha256(), 0
        while part := os.pread(descriptor, _STEP, offset):
            digest.update(part)
            offset += len(part)
        with self._digests_lock:
            self._digests[key] = digest.hexdigest()
            while len(self._digests) > _REMEMBERED:
                self._digests.popitem(last=False)
        return digest.hexdigest()

    def _listing(self, prefix: str) -> Iterator[base.ObjectStat]:
        given: set[str] = set()
        aside: dict[str, list[Path]] = {}
        for entry in self._entries(self._root, "", prefix, copied=False):
            listed = self._own(entry) if entry.kind is Kind.ITSELF else None
            if listed is None:
                aside.setdefault(entry.name, []).append(entry.path)
            else:
                given.add(entry.name)
                yield listed
        unknown = 0
        for name in aside.keys() - given:
            try:
                yield self.stat(name)  # by a copy
            except base.Unavailable:
                sizes = [size for each in aside[name] if (size := _size_told(each)) is not None]
                unknown += not sizes
                if sizes:
                    yield base.ObjectStat(name, sizes[0], None)
            except (base.ObjectNotFound, base.ObjectDamaged):
                pass  # copies, and none of them right
        if unknown:  # said last, so that what is known is listed: an object that is away is not one that is missing
            raise base.Unavailable(provider=self.name, reason="away", objects=unknown)

    def _own(self, entry: _Entry) -> base.ObjectStat | None:
        """The object of a file under its own name; None when it is away or went meanwhile."""
        with self._edge("list"), contextlib.suppress(FileNotFoundError):
            if not _is_away(entry.name, entry.path):
                found = os.stat(entry.path, follow_symlinks=False)
                return base.ObjectStat(entry.name, found.st_size, found.st_mtime)
        return None

    def _entries(self, folder: Path, logical: str, prefix: str, *, copied: bool) -> Iterator[_Entry]:
        """Everything below a folder that stands for an object. `logical` is what names in it begin with; `copied`: it
        is in a conflict copy of a folder."""
        with self._edge("list"):
            found = list(_readable(folder))
        for entry in found:
            name = logical + entry.name
            if entry.folder and entry.kind is not Kind.AWAY:
                shard = f"/{logical}".endswith("/p/") and _SHARD.fullmatch(entry.name)
                begins = name if shard else f"{name}/"
                if begins.startswith(prefix) or prefix.startswith(begins):
                    inner = copied or entry.kind is Kind.COPY
                    yield from self._entries(entry.path, logical if shard else begins, prefix, copied=inner)
            elif name.startswith(prefix) and self._belongs(name, entry, copied):
                kind = Kind.COPY if copied and entry.kind is Kind.ITSELF else entry.kind
                yield dataclasses.replace(entry, name=name, kind=kind)

    def _belongs(self, name: str, entry: _Entry, copied: bool) -> bool:
        """Whether an object of that name would lie there: a pack outside its shard is not one."""
        place = self._place(name) if base.is_name(name) else None
        return place is not None and place.name == entry.name and (copied or place.parent == entry.path.parent)

    def _absent(self, number: int | None, verb: Verb, name: str | None) -> type[base.ProviderError]:
        kind = super()._absent(number, verb, name)
        if kind is base.ObjectNotFound and name is not None and self._stand_in(self._path(name)):
            return base.Unavailable
        return kind


def _readable(folder: Path) -> Iterator[_Entry]:
    """The entries of a folder that are ours; none when it is gone. Links and pipes are nobody's."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = synced_names.read(entry.name)
                inner = entry.is_dir(follow_symlinks=False)
                if found is not None and (inner or entry.is_file(follow_symlinks=False)):
                    yield _Entry(found[0], found[1], folder / entry.name, inner)
    except (FileNotFoundError, NotADirectoryError):
        return


def _named(folder: Path, name: str) -> list[_Entry]:
    """The entries of a folder that stand for that component and are here."""
    return [entry for entry in _readable(folder) if entry.name == name and entry.kind is not Kind.AWAY]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _named_by(name: str, body: bytes) -> bool:
    """Whether the name ends in the hash of these very bytes."""
    return base.named_sha256(name) == hashlib.sha256(body).hexdigest()


def _is_away(name: str, path: Path) -> bool:
    """Whether a file is there and its bytes are not: as clients leave it that keep the size, or nothing at all.

    Sealed bytes are never zeros, so a file of zeros that has no block of its own on the disk is not the object. (With
    blocks it is damage, as a power cut leaves it.) One of no bytes is not that of a name that says another hash.

    Raises:
        OSError: as the system said.
    """
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        return False
    if found.st_size == 0:
        return base.named_sha256(name) not in (None, _EMPTY)
    if found.st_blocks:
        return False
    with _opened(path) as descriptor:  # what was not written out yet has no block either, but is not zeros
        return not any(os.pread(descriptor, _BLOCK, 0))


def _size_told(stand_in: Path) -> int | None:
    """The size that a stand-in of iCloud Drive, a property list, tells of its file; None where none is told."""
    try:
        told = plistlib.loads(durable.read_bounded(stand_in, _STAND_IN_LIMIT)).get("NSURLFileSizeKey")
    except Exception:  # a parser of an old format, over a file that somebody else wrote
        return None
    return told if isinstance(told, int) and told >= 0 else None
