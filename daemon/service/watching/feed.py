"""One source's events, from the kernel (inotify(7)), read by watchdog.

Of watchdog this uses `InotifyFD`: the descriptor, the thread that reads it, the parser. Its observers are not used, for
what was measured with 7.1 (docs/decisions.md): they drop the limit of watches silently below the root, and after an
overflow they remove every watch and add it again, whose own events overflow the queue of a tree of 16,384 directories
again, for ever. Here nothing is removed: adding a watch that exists makes no event.

Why nothing is lost while directories come, go and move: a directory is watched *before* it is listed, by whoever finds
it first; and after a new one was entered the hint is given, not only before.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import threading
from collections.abc import Callable, Iterator

from watchdog.observers.inotify_c import (
    DEFAULT_EVENT_BUFFER_SIZE,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    inotify_add_watch,
    inotify_rm_watch,
)

from chatkeep.daemon.capture.companions import INDEX
from chatkeep.daemon.service.watching.scope import Scope, below

_C = InotifyConstants
# Without IN_OPEN, IN_ACCESS, IN_CLOSE_NOWRITE and IN_ATTRIB: these are what readers cause, ourselves included. A change
# of mode or times alone waits for the next comparison. IN_CLOSE_WRITE, because stores through a mapping make no
# IN_MODIFY. IN_EXCL_UNLINK: a file without a name is nobody's content.
MASK = Mask(
    (_C.IN_MODIFY | _C.IN_CLOSE_WRITE | _C.IN_CREATE | _C.IN_DELETE | _C.IN_MOVED_FROM | _C.IN_MOVED_TO)
    | (_C.IN_DELETE_SELF | _C.IN_MOVE_SELF | _C.IN_ONLYDIR | _C.IN_EXCL_UNLINK)
)
_ENDS = _C.IN_DELETE_SELF | _C.IN_MOVE_SELF | _C.IN_UNMOUNT | _C.IN_IGNORED
_APPEARS = _C.IN_CREATE | _C.IN_MOVED_TO
# A directory that went away or may not be read: so is it for the capture, or it will be told there.
_PASSED_OVER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})
_USED_UP = frozenset({errno.ENOSPC, errno.ENOMEM})

# Seconds between two readings while events come: the kernel merges equal events that follow each other, so a database
# that is written to without rest costs fifty events a second and not ten thousand.
BREATH = 0.02


class Trouble(enum.Enum):
    """What a feed cannot put right by itself."""

    OVERFLOW = "overflow"  # the kernel dropped events
    ROOT = "root"  # the source's own directory, or a file system below it, went away or moved
    USED_UP = "used-up"  # no more watches


class UsedUp(Exception):
    """The system has no watch, or no inotify instance, left."""


class Feed(InotifyFD):
    """The events of one source, read by a thread of its own from `start` to `stop`.

    `changed` is called after a batch of events of which one counts, `trouble` at once; both in the thread of the feed,
    and they must not wait for it. Raises UsedUp when no instance can be had.
    """

    def __init__(
        self,
        root: bytes,
        scope: Scope,
        changed: Callable[[], None],
        trouble: Callable[[Trouble], None],
        shared: Callable[[bytes], bool],
    ) -> None:
        try:
            super().__init__()
        except OSError as exc:
            raise UsedUp from exc
        # The base class leaves the descriptors open when it is stopped before its thread has read once.
        self._is_reading = False
        self.name = "watch-feed"
        self._root, self._scope = root, scope
        self._changed, self._trouble, self._shared = changed, trouble, shared
        # Guards what follows, and makes "watched" and "known" one step: an event of a watch that is not known is
        # dropped.
        self._guard = threading.Lock()
        self._directories: dict[int, tuple[bytes, int]] = {}  # watch: path, generation
        self._generation = 0
        self._over = False
        self._woken = False
        self._busy = False

    @property
    def watched(self) -> int:
        """How many directories."""
        with self._guard:
            return len(self._directories)

    def enter_all(self) -> tuple[bytes, ...]:
        """Watches the whole tree, also again: what is watched already stays so without a gap, what is elsewhere now is
        let go. Returns the directories that are on shared file systems, which were not entered.

        Raises UsedUp; OSError when the source itself cannot be watched."""
        with self._guard:
            self._generation += 1
        shared = self._enter(b"")
        with self._guard:
            stale = [watch for watch, (_, seen) in self._directories.items() if seen < self._generation]
            self._forget(stale)
        return shared

    def close(self) -> None:
        """As the base class, which `stop` calls. No watch is added any more: the number of the descriptor may be
        somebody else's soon."""
        with self._guard:
            self._over = True
            self._directories.clear()
        super().close()

    def read_events(self, *, event_buffer_size: int = DEFAULT_EVENT_BUFFER_SIZE) -> list[InotifyEvent]:
        """Between two batches: tells of the last one, and breathes."""
        if self._woken:
            self._woken = False
            self._changed()
        if self._busy:
            self.stopped_event.wait(BREATH)
        events = super().read_events(event_buffer_size=event_buffer_size)
        self._busy = bool(events)
        return events

    def handle_event(self, event: InotifyEvent) -> None:
        """In place of the base class's way through callbacks."""
        if event.is_queue_overflow:
            self._trouble(Trouble.OVERFLOW)
            return
        with self._guard:
            known = self._directories.get(event.wd)
            if known is not None and event.is_ignored:
                del self._directories[event.wd]
        if known is None:
            return
        path = known[0]
        if event.mask & _ENDS:
            # of any other directory its parent tells
            if not path or event.mask & _C.IN_UNMOUNT:
                self._trouble(Trouble.ROOT)
            return
        self._consider(below(path, event.name), event)

    def _consider(self, path: bytes, event: InotifyEvent) -> None:
        directory = bool(event.mask & _C.IN_ISDIR)
        if not self._scope.wakes(path, directory=directory) or (not directory and self._is_index(path)):
            return
        self._woken = True
        if not directory:
            return
        if event.is_moved_from:
            # Its watches move with it. What happens there from now on is told under another path, or is not ours.
            self._leave(path)
        elif event.mask & _APPEARS:
            try:
                if self._enter(path):
                    self._trouble(Trouble.ROOT)
            except UsedUp:
                self._trouble(Trouble.USED_UP)
            except OSError:
                self._trouble(Trouble.ROOT)

    def _is_index(self, path: bytes) -> bool:
        """Whether it is the index of a log: no content, and applications touch it when they only open a database."""
        return path.endswith(INDEX) and os.path.lexists(self._absolute(path)[: -len(INDEX)])

    def _enter(self, path: bytes) -> tuple[bytes, ...]:
        shared: list[bytes] = []
        pending = [(path, self._device(path))]
        while pending:
            directory, device = pending.pop()
            # One that may not be read is passed over: nor can it be captured, and it is told there.
            if not self._scope.enters(directory) or not self._watch(directory):
                continue
            for inner, inner_device in self._subdirectories(directory):
                if inner_device != device and self._shared(self._absolute(inner)):
                    shared.append(inner)
                else:
                    pending.append((inner, inner_device))
        return tuple(shared)

    def _watch(self, path: bytes) -> bool:
        # Only the last component is kept from being a link: a parent replaced by one leads to a watch too many, and
        # its events are hints for nothing.
        mask = MASK if not path else MASK | _C.IN_DONT_FOLLOW
        with self._guard:
            if self._over:
                return False
            watch = inotify_add_watch(self._inotify_fd, self._absolute(path), Mask(mask))
            if watch >= 0:
                self._directories[watch] = (path, self._generation)
                return True
            number = ctypes.get_errno()
        if number in _USED_UP:
            raise UsedUp
        if not path or number not in _PASSED_OVER:
            raise OSError(number, os.strerror(number))
        return False

    def _subdirectories(self, directory: bytes) -> Iterator[tuple[bytes, int]]:
        try:
            with os.scandir(self._absolute(directory)) as entries:
                inner = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return  # gone meanwhile, or unreadable: what it held cannot be captured either
        for entry in inner:
            path = below(directory, entry.name)
            yield path, self._device(path)

    def _device(self, path: bytes) -> int:
        try:
            return os.stat(self._absolute(path), follow_symlinks=not path).st_dev
        except OSError:
            return -1

    def _leave(self, path: bytes) -> None:
        inside = path + b"/"
        with self._guard:
            moved = [w for w, (at, _) in self._directories.items() if at == path or at.startswith(inside)]
            self._forget(moved)

    def _forget(self, watches: list[int]) -> None:
        for watch in watches:
            del self._directories[watch]
            inotify_rm_watch(self._inotify_fd, watch)  # type: ignore[arg-type]  # a number as they all are

    def _absolute(self, path: bytes) -> bytes:
        return below(self._root, path) if path else self._root
