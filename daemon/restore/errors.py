"""What can go wrong at the place a restore writes to, or with what it was asked for.

RestoreError
  PathNotInSnapshot      a path that was asked for is not in the snapshot
  NotAFile               a directory or a link where a file's bytes were asked for
  NothingToRestore       the snapshot, or what was chosen of it, holds nothing that can be written
  TargetExists           something is where the restore would write
  TargetInUse            an application has a database open that would be replaced, or another restore runs there
  TargetInsideSource     the target lies inside the directory that is backed up
  TargetUnwritable       the system refused a write at the target
  NoSpace                the target is full, or would be
  UnsafePath             the target's tree leads out of the target
  ProofFailed            what was written is not what was captured
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from chatkeep.config.errors import ChatkeepError, Disposition


class RestoreError(ChatkeepError):
    """A restore could not be made. What was there before it is as it was, unless the error says otherwise."""

    code = "restore-error"


class PathNotInSnapshot(RestoreError):
    """Parameters: path, and nearest: the path in the snapshot that it may have been meant to be, or None."""

    code = "path-not-in-snapshot"
    disposition = Disposition.NEEDS_USER


class NotAFile(RestoreError):
    """It has no bytes to show. Parameters: path, kind."""

    code = "not-a-file"
    disposition = Disposition.NEEDS_USER


class NothingToRestore(RestoreError):
    """Nothing of what was asked for can be written. Parameters: pending, damaged (how many)."""

    code = "nothing-to-restore"
    disposition = Disposition.NEEDS_USER


class TargetExists(RestoreError):
    """Something stands where the restore would write. Parameters: path, reason (not-empty, exists, kind, collision)."""

    code = "target-exists"
    disposition = Disposition.NEEDS_USER


class TargetInUse(RestoreError):
    """Replacing it now would damage it. Parameters: path, reason (database, restore)."""

    code = "target-in-use"
    disposition = Disposition.NEEDS_USER


class TargetInsideSource(RestoreError):
    """What is restored would be backed up again, inside what it came from. Parameters: path, source."""

    code = "target-inside-source"
    disposition = Disposition.NEEDS_USER


class TargetUnwritable(RestoreError):
    """Parameters: path, errno."""

    code = "target-unwritable"
    disposition = Disposition.NEEDS_USER


class NoSpace(RestoreError):
    """Parameters: path, errno or needed and free (bytes)."""

    code = "no-space"
    disposition = Disposition.NEEDS_USER


class UnsafePath(RestoreError):
    """A component of the path is a symbolic link, or the path leads upwards. Nothing was written through it."""

    code = "unsafe-path"


class ProofFailed(RestoreError):
    """What was written differs from what was captured. Parameters: path, what (database, file)."""

    code = "proof-failed"


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
# EXDEV is what openat2 says about a path that leaves the directory it was given.
_UNSAFE = {errno.ELOOP, errno.EXDEV}


@contextlib.contextmanager
def writing(path: bytes) -> Iterator[None]:
    """Turns an OSError about `path`, which is relative to the target, into the error of this branch."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _NO_SPACE:
            raise NoSpace(path=path, errno=exc.errno) from exc
        if exc.errno in _UNSAFE:
            raise UnsafePath(path=path, errno=exc.errno) from exc
        raise TargetUnwritable(path=path, errno=exc.errno) from exc
