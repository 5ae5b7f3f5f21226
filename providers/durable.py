"""Writing a file so that it is there whole or not at all, also after a power cut. The only place that does it.

The order is always the same, and each step is there for a cut at that instant:

1. a temporary file with a name nobody reads, on the same file system: a half-written file is never seen under its name,
   and the rename of step 4 cannot turn into a copy;
2. all the bytes: `write` may take fewer than given, and a full disk may show only at the last of them;
3. `fsync` of the file. Without it the new name can reach the disk before the bytes do, and a cut leaves a file of the
   right name and length full of zeros. A failed fsync is final for that file: the kernel may drop the dirty pages and
   report success the next time, so the file is given up, never synced again;
4. the name: a rename, which replaces in one step, or a link, which refuses to;
5. `fsync` of the directory. Without it the file is safe and its name is not: what the caller then records as stored is
   gone after a cut.

Functions here raise plain `OSError`: what a full disk means differs between a provider and this device's own records,
and their callers translate it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path

Bytes = bytes | bytearray | memoryview

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
_NO_SUCH_RENAME = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_TEMPORARY = (".new-", "")
_AT_FDCWD = -100  # <fcntl.h>
_RENAME_NOREPLACE = 1  # <linux/fs.h>


def write_durably(path: Path, parts: Bytes | Iterable[Bytes], mode: int = 0o600) -> None:
    """Writes a whole file, in place of what had the name before.

    On return the file survives a power cut. Failed or killed at any instant, the old file is intact (or the new one is
    whole); a temporary file beside it may be left by a kill, and `sweep_temporaries` removes it.

    Raises:
        OSError: as the system said; the file is as it was.
    """
    temporary = write_temporary(path.parent, parts, mode)
    try:
        publish(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def create_durably(path: Path, parts: Bytes | Iterable[Bytes], mode: int = 0o600, staging: Path | None = None) -> bool:
    """Writes a whole file under a name that must be free, staged in `staging` (same file system; default: beside it).

    Returns whether the system itself guaranteed that nothing was replaced. False on a file system that has neither hard
    links nor an exclusive rename: there, two writers of one name within the same instant leave one of the two files.

    Raises:
        FileExistsError: the name is taken; that file is untouched.
        OSError: as the system said.
    """
    temporary = write_temporary(path.parent if staging is None else staging, parts, mode)
    try:
        exclusive = _take_name(temporary, path)
        fsync_directory(path.parent)
    finally:
        discard(temporary)
    return exclusive


def write_temporary(
    directory: Path, parts: Bytes | Iterable[Bytes], mode: int = 0o600, ends: tuple[str, str] = _TEMPORARY
) -> Path:
    """Writes and syncs a file of a random name, and returns its path (steps 1 to 3).

    Args:
        directory: on the file system of the file's final place.
        parts: the bytes.
        mode: of the file.
        ends: how the random name begins and ends, for a folder where somebody else looks at names.

    Raises:
        OSError: as the system said; no file is left.
    """
    temporary = directory / os.urandom(12).hex().join(ends)
    # O_EXCL: never into a file, or through a symbolic link, that somebody else put there.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            # Says that the writer lives, for as long as it does: sweep_temporaries leaves locked files alone.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for part in (parts,) if isinstance(parts, Bytes) else parts:
                _write_all(descriptor, part)
            os.fsync(descriptor)
        finally:
            # Not suppressed: network file systems report a full quota here. Closed before the file gets its name,
            # because some shares refuse to rename an open file.
            os.close(descriptor)
    except BaseException:
        discard(temporary)
        raise
    return temporary


def publish(temporary: Path, path: Path) -> None:
    """Gives a file that was already synced its name, in place of what had it, and makes the name durable (steps 4, 5).

    Raises:
        OSError: as the system said. When the directory could not be synced the file already has its name.
    """
    os.rename(temporary, path)
    fsync_directory(path.parent)


def publish_exclusively(temporary: Path, path: Path) -> bool:
    """Gives a file that was already synced a name that must be free, and makes the name durable; never by a link.

    Returns whether the system itself guaranteed that nothing was replaced: see `create_durably`.

    Raises:
        FileExistsError: the name is taken; that file is untouched, and the temporary one still there.
        OSError: as the system said.
    """
    exclusive = _rename_to_free(temporary, path)
    fsync_directory(path.parent)
    return exclusive


def discard(path: Path) -> None:
    """Removes a temporary file if it can. What stays behind costs room until it is swept, and is never read."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Makes one directory, or finds it there, and makes its own name durable in its parent.

    Synced also when it was there: another writer may have made it an instant ago and not have synced it yet, and a file
    below it is only as durable as every name above it.

    Raises:
        OSError: as the system said: FileNotFoundError when the parent is missing.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
    fsync_directory(path.parent)


def make_directories(path: Path, mode: int = 0o700) -> None:
    """Makes a directory and those above it that are missing, each durable in its parent, as `make_directory` does.

    Raises:
        OSError: as the system said.
    """
    missing = [path]
    while not (above := missing[-1].parent).exists():
        missing.append(above)
    for each in reversed(missing):
        make_directory(each, mode)


def fsync_directory(path: Path) -> None:
    """Makes the names in a directory durable.

    Raises:
        OSError: as the system said. File systems that cannot sync a directory (some network ones) are let pass: they
            answer EINVAL or EOPNOTSUPP, and have no step of their own that would be missed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit: int) -> bytes:
    """Returns a whole regular file of at most `limit` bytes.

    Bounded, because what is read may have been put there by somebody else. Opened without waiting, because it may be a
    pipe that nobody writes to.

    Raises:
        OSError: as the system said; with errno EFBIG when the file is longer, EINVAL when it is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fspath(path))
        # The size only spares memory; it is not trusted, since the file may grow. One byte beyond tells that it did.
        found = read_range(descriptor, 0, min(about.st_size, limit) + 1)
        if about.st_size < len(found) <= limit:
            found = read_range(descriptor, 0, limit + 1)
    finally:
        os.close(descriptor)
    if len(found) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
    return found


def read_range(descriptor: int, offset: int, length: int) -> bytes:
    """Returns `length` bytes from `offset`, fewer only at the end of the file."""
    first = os.pread(descriptor, length, offset)
    if len(first) in (0, length):
        return first  # the usual case, without another copy
    found = bytearray(first)
    while len(found) < length and (more := os.pread(descriptor, length - len(found), offset + len(found))):
        found += more
    return bytes(found)


def sweep_temporaries(directory: Path, older_than: float, now: float, ends: tuple[str, str] = _TEMPORARY) -> int:
    """Removes the temporary files that killed writers left in a directory; returns how many.

    A file goes when it is older than `older_than` seconds at `now` (seconds since 1970) and no living writer holds its
    lock. The age comes first: on a file system without locks it is all there is, and no write lasts a day. `ends` is as
    it was written with.

    Raises:
        OSError: the directory could not be read. A single file that cannot be removed is left.
    """
    removed = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                old = now - entry.stat(follow_symlinks=False).st_mtime > older_than
                if entry.name.startswith(ends[0]) and entry.name.endswith(ends[1]) and old and not _is_held(entry.path):
                    os.unlink(entry.path)
                    removed += 1
    return removed


def _write_all(descriptor: int, part: Bytes) -> None:
    rest = memoryview(part).cast("B")
    while rest:
        written = os.write(descriptor, rest)
        if written == 0:  # would go round for ever
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[written:]


def _take_name(temporary: Path, path: Path) -> bool:
    """Step 4 without replacing: a link; where there are none an exclusive rename; where there is none a look first."""
    try:
        os.link(temporary, path, follow_symlinks=False)
        return True
    except OSError as problem:
        if problem.errno not in _NO_HARD_LINKS:
            raise
    return _rename_to_free(temporary, path)


def _rename_to_free(temporary: Path, path: Path) -> bool:
    if _rename_exclusively(temporary, path):
        return True
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
    os.rename(temporary, path)
    return False


def _rename_exclusively(temporary: Path, path: Path) -> bool:
    """renameat2(RENAME_NOREPLACE), which Python does not offer; False where the file system does not know it."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    source, target = (ctypes.c_char_p(os.fsencode(name)) for name in (temporary, path))
    if call(_AT_FDCWD, source, _AT_FDCWD, target, ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_SUCH_RENAME:
        return False
    raise OSError(number, os.strerror(number), os.fspath(temporary), None, os.fspath(path))


def _is_held(path: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
