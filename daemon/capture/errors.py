"""What can be wrong with the watched directory.

CaptureError
  SourceMissing       nothing is at the path
  SourceUnreadable    it is there and this user may not read it, or reading failed
  SourceBusy          an application held it for too long, or it changed while it was read
  DatabaseReplaced    another file took the database's path since it was opened
  PageSizeChanged     the database's pages have another size than the digests on record
  NotProven           what changed since the scan cannot be known: scan again, or scan under the pin
  TooManyDirty        the dirty pages do not fit the buffer that was prepared before the pin
  TableIncomplete     a page of the image has no digest: the table cannot vouch for the image
  DatabaseDamaged     it is called a database and its files contradict each other
  EntryVanished       below the source: gone since it was found, or something of another kind now
  EntryUnreadable     below the source: this user may not read one entry, or the disk cannot deliver it
  UnsupportedSource   nothing that can be captured (a device, no locks on this file system, ...)
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError, Disposition


class CaptureError(ChatkeepError):
    """Root of the branch."""

    code = "capture"


class EntryVanished(CaptureError):
    """Nothing, or something of another kind, is at the path since the walk. Params: path."""

    code = "entry-vanished"
    disposition = Disposition.RETRY


class EntryUnreadable(CaptureError):
    """One file, or one attribute of it, cannot be read. Params: path, errno."""

    code = "entry-unreadable"
    disposition = Disposition.NEEDS_USER


class SourceMissing(CaptureError):
    """Nothing is at the path. Params: path."""

    code = "source-missing"
    disposition = Disposition.NEEDS_USER


class SourceUnreadable(CaptureError):
    """The operating system refused to open or read it. Params: path, errno."""

    code = "source-unreadable"
    disposition = Disposition.NEEDS_USER


class SourceBusy(CaptureError):
    """Held by an application for longer than we wait, or changed under the reader. Params: path, reason.

    What was read must be thrown away; the set of dirty pages stays good.
    """

    code = "source-busy"
    disposition = Disposition.RETRY


class DatabaseReplaced(CaptureError):
    """The path names another file than the one that is open. Open it again. Params: path."""

    code = "database-replaced"
    disposition = Disposition.RETRY


class PageSizeChanged(CaptureError):
    """The digest table is of another page size: start an empty one and reset the layers. Params: path, was, now."""

    code = "page-size-changed"
    disposition = Disposition.REBUILD


class NotProven(CaptureError):
    """The dirty set may miss pages: the WAL began anew, or the file changed, since the scan. Params: path, reason."""

    code = "not-proven"
    disposition = Disposition.REBUILD


class TooManyDirty(CaptureError):
    """More dirty pages than the prepared buffer holds: copy some beforehand, unlocked. Params: path, pages, room."""

    code = "too-many-dirty"
    disposition = Disposition.RETRY


class TableIncomplete(CaptureError):
    """A page has no digest on record, so the table does not describe a whole image. Params: page."""

    code = "digest-table-incomplete"
    disposition = Disposition.REBUILD


class DatabaseDamaged(CaptureError):
    """The files of the database contradict each other; they can still be kept as plain files. Params: path, reason."""

    code = "database-damaged"
    disposition = Disposition.NEEDS_USER


class UnsupportedSource(CaptureError):
    """It cannot be captured on this system. Params: path, reason."""

    code = "unsupported-source"
    disposition = Disposition.NEEDS_USER
