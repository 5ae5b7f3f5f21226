"""Which file of Drive is an object: ids that are remembered, lookups by the list, and the folder they all stand in.

What is guaranteed of it is on the page of `gdrive`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from chatkeep.providers import base
from chatkeep.providers.gdrive_files import DriveFiles, IdTaken, NotThere
from chatkeep.providers.gdrive_names import by_name, the_folder
from chatkeep.providers.gdrive_replies import FOLDER, DriveFile, is_id
from chatkeep.providers.memo import Memo

FRESH: Final = 60.0
"""Seconds for which what Drive said of a file is not asked again: its bytes never change, but a person may trash it."""
BATCH: Final = 50
"""Ids fetched in one request. What is left of them when a process ends costs nothing."""
REMEMBERED: Final = 50_000
"""Files whose description is kept in memory, about 30 MB; then it begins anew."""


class Ids:
    """Ids that files may be created with. Any thread may call it."""

    def __init__(self, files: DriveFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._spare: list[str] = []

    def new(self) -> str:
        """One that was not given before."""
        with self._lock:
            if self._spare:
                return self._spare.pop()
        fetched = self._files.generate_ids(BATCH)
        with self._lock:
            self._spare.extend(fetched)
            return self._spare.pop()


class Folder:
    """The folder in My Drive that holds the vault."""

    def __init__(
        self, files: DriveFiles, ids: Ids, memo: Memo, title: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._files = files
        self._ids = ids
        self._memo = memo
        self._title = title
        self._clock = clock
        self._seen: tuple[float, str] | None = None

    def id(self) -> str:
        """Its id. Drive was asked within the last minute whether it is there.

        Raises:
            StorageMissing: there is none, it is in the trash, or another client made it. An empty place must not pass
                for an empty vault.
        """
        seen = self._seen
        if seen is not None and self._clock() - seen[0] < FRESH:
            return seen[1]
        self._seen = None
        remembered = _remembered(self._memo, "folder:")
        if remembered is not None and self._is_there(remembered):
            self._seen = (self._clock(), remembered)
            return remembered
        found = self._by_name()
        if found is None or not self._is_there(found):
            raise self.missing()
        if remembered is None:
            found = self._memo.add("folder:", found.encode()).decode("ascii", "replace")
        else:
            self._memo.set("folder:", found.encode())
        self._seen = (self._clock(), found)
        return found

    def make(self) -> None:
        """Makes it where there is none. Repeated after a kill or a lost reply it makes no second one."""
        try:
            self.id()
            return
        except base.StorageMissing:
            pass
        first = _remembered(self._memo, "folder:") or self._ids.new()
        if not self._make(first):
            self._make(self._ids.new())  # that one was deleted or trashed: its id is used up
        self.id()

    def missing(self) -> base.StorageMissing:
        """The error for it."""
        self._seen = None
        return base.StorageMissing(provider=self._files.provider, path=f"My Drive/{self._title}")

    def _make(self, ident: str) -> bool:
        self._memo.set("folder:", ident.encode())
        try:
            self._files.create({"id": ident, "name": self._title, "mimeType": FOLDER, "parents": ["root"]}, None)
        except IdTaken:
            return self._is_there(ident)
        except NotThere:
            raise self.missing() from None
        return True

    def _is_there(self, ident: str) -> bool:
        try:
            found = self._files.stat(ident)
        except NotThere:
            return False
        return found.folder and not found.trashed

    def _by_name(self) -> str | None:
        found = [each for page in self._files.search(the_folder(self._title)) for each in page if each.folder]
        return min(found, key=lambda each: each.order).id if found else None


def _remembered(memo: Memo, key: str) -> str | None:
    """An id out of the memo. What is none is removed: an id that is added would not take its place."""
    raw = memo.get(key)
    ident = None if raw is None else raw.decode("ascii", "replace")
    if ident is not None and not is_id(ident):
        memo.delete(key)
        return None
    return ident


class Objects:
    """The files of objects by the objects' names. Any thread may call it."""

    def __init__(
        self, files: DriveFiles, memo: Memo, folder: Folder, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._files = files
        self._memo = memo
        self._folder = folder
        self._clock = clock
        self._known: dict[str, tuple[float, DriveFile]] = {}
        # Ids never come back. Without this, who read a file's description before it was deleted could put it down as
        # known after that.
        self._gone: set[str] = set()

    def file(self, name: str, *, fresh: bool = False) -> DriveFile:
        """The file that is the object, as it is now (`fresh`) or was at most `FRESH` seconds ago.

        Raises:
            ObjectNotFound: there is none.
        """
        known = self._known.get(name)
        if not fresh and known is not None and self._clock() - known[0] < FRESH:
            return known[1]
        ident = self.remembered(name)
        file = None if ident is None else self.standing(ident)
        if file is None:
            # Also where an id was remembered: it may be one that was never made, or that another machine deleted.
            self._known.pop(name, None)
            oldest = min(self.listed(name), key=lambda each: each.order, default=None)
            file = None if oldest is None or oldest.id == ident else self.standing(oldest.id)
        if file is None:
            raise self.absent(name)
        self.keep(name, file)
        return file

    def remembered(self, name: str) -> str | None:
        """The id that this machine chose or found."""
        return _remembered(self._memo, f"id:{name}")

    def chosen(self, name: str, new: Callable[[], str]) -> tuple[str, bool]:
        """The id under which an object that is not remembered is to be made: the oldest file's that the list shows, or
        a new one. Durable on return, and one for all who ask. Also whether it is new, so that nothing can stand there.
        """
        oldest = min(self.listed(name), key=lambda each: each.order, default=None)
        proposed = new() if oldest is None else oldest.id
        ident = self._memo.add(f"id:{name}", proposed.encode()).decode("ascii", "replace")
        return ident, oldest is None and ident == proposed

    def listed(self, name: str) -> list[DriveFile]:
        """The files of the name, as the list knows it, without those that are known to be gone."""
        return [
            each
            for page in self.pages(by_name(self._folder.id(), name))
            for each in page
            if each.name == name and not each.trashed and not each.folder and each.id not in self._gone
        ]

    def pages(self, query: str, order: str | None = None) -> Iterator[list[DriveFile]]:
        """`DriveFiles.search`; a folder that is not there any more is StorageMissing."""
        try:
            yield from self._files.search(query, order)
        except NotThere:
            raise self._folder.missing() from None

    def standing(self, ident: str) -> DriveFile | None:
        """The file of an id; None where there is none, or in the trash."""
        try:
            found = self._files.stat(ident)
        except NotThere:
            return None
        return None if found.trashed else found

    def keep(self, name: str, file: DriveFile) -> None:
        """This file is the object."""
        if file.id in self._gone:
            return
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[name] = (self._clock(), file)
        # Not at every read: each `set` waits for the disk.
        if self.remembered(name) != file.id:
            self._memo.set(f"id:{name}", file.id.encode())

    def forget(self, name: str, ident: str) -> None:
        """That file is not the object, and never will be again."""
        if len(self._gone) >= REMEMBERED:
            self._gone.clear()
        self._gone.add(ident)
        self._known.pop(name, None)
        if self.remembered(name) == ident:
            self._memo.delete(f"id:{name}")

    def absent(self, name: str) -> base.ObjectNotFound:
        """The error for an object that is not there. The lookup before it saw to it that the folder is."""
        return base.ObjectNotFound(provider=self._files.provider, object=name)
