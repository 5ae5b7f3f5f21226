"""A folder as a provider: a disk, a mounted share.

Objects are files named as they are, except that packs are spread over 256 folders by the first two digits of their hash
(`.../p/<hash>` lies at `.../p/<2>/<hash>`): some file systems and many file browsers slow down in folders of 100,000.
`.tmp` in the root holds what is being written.

**A mount point without its medium is an empty folder: writing into it would fill the wrong disk and report success.**
The root is therefore only ever created by `create=True`, and a root without `.tmp` and without any object's folder is
`StorageMissing`, for reading too: it must not pass for an empty vault. (The second mark is for a copy of a vault, made
by a tool that leaves out hidden files.)

A folder in which the client of a sync service works as well is a `synced.SyncedFolder`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from chatkeep.config.storages import FolderOptions
from chatkeep.providers import base, durable
from chatkeep.providers.probing import observe
from chatkeep.providers.registry import Opening, ProviderType

STALE_AFTER = 86400.0
"""Age in seconds from which a temporary file without a living writer is removed. Generous because the age is by the
clock of whoever serves the share."""

_TEMPORARY = ".tmp"
_SHARDED = re.compile(r"(?P<folder>(?:.+/)?p/)(?P<hash>(?P<shard>[0-9a-f]{2})[0-9a-f]{62})")
_INSIDE_SHARD = re.compile(r"(?:.+/)?p/[0-9a-f]{2}/.+")
_SHARD = re.compile(r"[0-9a-f]{2}")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NOT_A_NAME_HERE = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.EILSEQ})
# The medium was pulled out, or the process that served the mount died: waiting does not bring it back, a person does.
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESHUTDOWN, errno.ENOMEDIUM})
# How a device or a checksumming file system says that these very bytes are lost; ELOOP is a symbolic link in place of
# the object, which is not followed.
_LOST = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ELOOP})
# Another file system, one without hard links, too many of them, a name that was taken a moment ago.
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EEXIST, errno.ENOSYS})


Verb = Literal["open", "put", "get", "delete", "list"]


class FolderProvider:
    """Objects as files below a root. See `base.Provider` for the verbs.

    Args:
        name: the configured name.
        root: the folder. Nothing is touched until a verb is called, so that a medium that is not there now may come.
        create: make the root (not its parents) and mark it as one; what `init` does, once.

    Raises:
        StorageMissing: `create` and the root's parent does not exist.
        PermissionRefused, QuotaExceeded: `create` and the root cannot be made.
    """

    def __init__(self, name: str, root: Path, *, create: bool = False) -> None:
        self.name = name
        self._root = Path(os.path.abspath(root))
        self._lock = threading.Lock()
        self._made: set[Path] = set()  # folders whose names this process knows to be durable
        self._swept = False
        self._exclusive = True
        if create:
            with self._edge("open"):
                durable.make_directory(self._root)
                durable.make_directory(self._root / _TEMPORARY)

    def put(self, name: str, body: bytes) -> None:
        path = self._path(name)
        with self._edge("put", name):
            if os.path.lexists(path):
                self._compare(name, path, body)
                return
            staging = self._staging()
            self._make_folders(path.parent)
            try:
                self._exclusive = durable.create_durably(path, body, staging=staging)
            except FileExistsError:  # another writer was faster
                self._compare(name, path, body)

    def adopt(self, name: str, path: Path) -> bool:
        """See `base.Adopts`: a hard link, where file and root are on one file system that has them."""
        target = self._path(name)
        with self._edge("put", name):
            if os.path.lexists(target):
                return False
            self._staging()
            self._make_folders(target.parent)
            try:
                os.link(path, target, follow_symlinks=False)
            except OSError as problem:
                if problem.errno in _CANNOT_LINK:
                    return False
                raise
            # Another provider on this file system shares the file already: two copies that are one are no two copies.
            if os.stat(target, follow_symlinks=False).st_nlink > 2:
                os.unlink(target)
                return False
            durable.fsync_directory(target.parent)
        return True

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise ValueError("length")
        path = self._path(name)
        with self._edge("get", name), self._opened(name, path) as (descriptor, size):
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            wanted = size - start if length is None else min(length, size - start)
            body = durable.read_range(descriptor, start, wanted)
        if len(body) != wanted:  # the file shrank under us: objects do not
            raise base.ObjectDamaged(provider=self.name, object=name, expected=wanted, found=len(body))
        return body

    def stat(self, name: str) -> base.ObjectStat:
        path = self._path(name)
        with self._edge("get", name):
            found = os.stat(path, follow_symlinks=False)
        self._must_be_file(name, found)
        return base.ObjectStat(name, found.st_size, found.st_mtime)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        self._must_be_in_use()
        return self._walk(self._root, "", prefix)

    def delete(self, name: str) -> None:
        path = self._path(name)
        # EISDIR: that name is a folder, so no object of that name exists.
        with contextlib.suppress(base.ObjectNotFound), self._edge("delete", name):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(path)
            # Also when there was nothing: an earlier delete may have been cut off before this line.
            durable.fsync_directory(path.parent)

    def probe(self) -> base.Capabilities:
        seen = observe(self)
        with self._edge("open"):
            room = os.statvfs(self._root)
        return dataclasses.replace(
            seen, exclusive_create=self._exclusive, free_bytes=room.f_bavail * (room.f_frsize or room.f_bsize)
        )

    def close(self) -> None:
        pass  # nothing is held between two calls

    def _path(self, name: str) -> Path:
        place = self._place(base.validate_name(name))
        if place is None:
            raise base.InvalidName(provider=self.name, object=name)
        return place

    def _place(self, name: str) -> Path | None:
        """Where the object lies; None for a name inside a shard, which would share its file with the pack there."""
        if _INSIDE_SHARD.fullmatch(name):
            return None
        sharded = _SHARDED.fullmatch(name)
        return self._root / (f"{sharded['folder']}{sharded['shard']}/{sharded['hash']}" if sharded else name)

    def _in_use(self) -> bool:
        """Whether the root is one of ours and not the empty place where it is usually mounted."""
        try:
            if os.path.isdir(self._root / _TEMPORARY):
                return True
            with os.scandir(self._root) as entries:
                return any(base.is_name(entry.name) and entry.is_dir() for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _must_be_in_use(self) -> None:
        with self._edge("open"):
            if not self._in_use():
                raise base.StorageMissing(provider=self.name, path=str(self._root))

    def _staging(self) -> Path:
        """The folder of temporary files; removes what killed writers left there, once in a process."""
        staging = self._root / _TEMPORARY
        if not os.path.isdir(staging):
            self._must_be_in_use()
            durable.make_directory(staging)
        with self._lock:
            due, self._swept = not self._swept, True
        if due:
            with contextlib.suppress(OSError):  # what stays costs room only
                durable.sweep_temporaries(staging, STALE_AFTER, time.time())
        return staging

    def _make_folders(self, folder: Path) -> None:
        """Makes the folders between root and object. Each is synced into its parent once in this process, even if it
        was there: whoever made it may have died before syncing it."""
        missing = []
        while folder != self._root and not (folder in self._made and os.path.isdir(folder)):
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            durable.make_directory(each)
            self._made.add(each)

    def _compare(self, name: str, path: Path, body: bytes) -> None:
        """The name is taken: done if by these bytes, once they are durable; their writer may have died before that."""
        try:
            with self._edge("get", name), self._opened(name, path) as (descriptor, size):
                if size != len(body) or durable.read_range(descriptor, 0, size) != body:
                    raise base.ObjectConflict(provider=self.name, object=name, size=size)
                os.fsync(descriptor)
        except base.ObjectNotFound as problem:  # a folder of that name, or a file that was deleted a moment ago
            kind = base.InvalidName if os.path.isdir(path) else base.Unavailable
            raise kind(provider=self.name, object=name) from problem
        self._make_folders(path.parent)
        durable.fsync_directory(path.parent)

    @contextlib.contextmanager
    def _opened(self, name: str, path: Path) -> Iterator[tuple[int, int]]:
        """Descriptor and size of the object's file."""
        # Never through a symbolic link, and never waiting for the writer of a pipe: the folder may be shared.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            self._must_be_file(name, found)
            yield descriptor, found.st_size
        finally:
            os.close(descriptor)

    def _must_be_file(self, name: str, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            raise base.ObjectNotFound(provider=self.name, object=name)
        if not stat.S_ISREG(found.st_mode):
            raise base.ObjectDamaged(provider=self.name, object=name, reason="not-a-file")

    def _walk(self, folder: Path, logical: str, prefix: str) -> Iterator[base.ObjectStat]:
        """`logical` is what the names in this folder begin with; a shard's folder adds nothing to it."""
        with self._edge("list"):
            try:
                with os.scandir(folder) as entries:
                    found = [entry for entry in entries if base.is_name(logical + entry.name)]
            except FileNotFoundError:  # deleted meanwhile: a listing may be old
                return
        for entry in found:
            name = logical + entry.name
            if entry.is_dir(follow_symlinks=False):
                shard = f"/{logical}".endswith("/p/") and _SHARD.fullmatch(entry.name)
                begins = name if shard else f"{name}/"
                if begins.startswith(prefix) or prefix.startswith(begins):
                    yield from self._walk(folder / entry.name, logical if shard else begins, prefix)
            elif name.startswith(prefix) and (listed := self._listed(folder, entry, name)):
                yield listed

    def _listed(self, folder: Path, entry: os.DirEntry[str], name: str) -> base.ObjectStat | None:
        """None for links, pipes, files in the wrong place, and what was deleted meanwhile."""
        with self._edge("list"), contextlib.suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False) and self._place(name) == folder / entry.name:
                found = entry.stat(follow_symlinks=False)
                return base.ObjectStat(name, found.st_size, found.st_mtime)
        return None

    @contextlib.contextmanager
    def _edge(self, verb: Verb, name: str | None = None) -> Iterator[None]:
        """Translates what the system says. Nothing else in this file does."""
        try:
            yield
        except OSError as problem:
            about = {} if name is None else {"object": name}
            raise self._kind(problem.errno, verb, name)(provider=self.name, errno=problem.errno, **about) from problem

    def _kind(self, number: int | None, verb: Verb, name: str | None) -> type[base.ProviderError]:
        if number in (errno.ENOENT, errno.ENOTDIR):
            return self._absent(number, verb, name)
        if number in _LOST and verb == "get":
            return base.ObjectDamaged
        for numbers, kind in (
            (_FULL, base.QuotaExceeded),
            (_REFUSED, base.PermissionRefused),
            (_GONE, base.StorageMissing),
            (_NOT_A_NAME_HERE, base.InvalidName),
        ):
            if number in numbers:
                return kind
        return base.Unavailable

    def _absent(self, number: int | None, verb: Verb, name: str | None) -> type[base.ProviderError]:
        """What a missing file means: the medium is away, a sync client holds the object elsewhere, or there is none."""
        try:
            if name is None or not self._in_use():
                return base.StorageMissing
        except OSError:
            return base.Unavailable
        if verb == "put":  # a folder that was removed under us can be made again; one that is a file cannot
            return base.InvalidName if number == errno.ENOTDIR else base.Unavailable
        path = self._path(name)
        # iCloud Drive leaves `.<name>.icloud` where it took a file off the disk: it exists, and is not here now.
        if os.path.lexists(path.with_name(f".{path.name}.icloud")):
            return base.Unavailable
        return base.ObjectNotFound


def _open(opening: Opening) -> base.Provider:
    if opening.options.synced:
        from chatkeep.providers.synced import SyncedFolder

        return SyncedFolder(opening.name, opening.options.path, create=opening.create)
    return FolderProvider(opening.name, opening.options.path, create=opening.create)


TYPE = ProviderType(FolderOptions, _open)
