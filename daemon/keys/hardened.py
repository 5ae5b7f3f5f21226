"""Keeping a process that holds keys to itself: no core dump, no look from outside, pages that are never swapped out.

None of this is a wall against root, nor against other code in the same process. A machine may refuse any of it, and
then it goes on without: what was reached is returned, so that it can be told.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import resource
from dataclasses import dataclass
from typing import Final

from chatkeep.daemon.keys.errors import SecretWiped
from chatkeep.daemon.keys.secret import Sensitive

# <linux/prctl.h>, <asm-generic/mman-common.h>, <linux/mman.h>, <linux/capability.h>
_PR_SET_DUMPABLE: Final = 4
_MADV_WIPEONFORK: Final = 18
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK: Final = 14

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mlockall.argtypes = (ctypes.c_int,)


@dataclass(frozen=True, slots=True)
class Hardened:
    """What a process reached.

    Attributes:
        no_core: it leaves no core file.
        not_dumpable: another process of the same user cannot attach to it or read its memory.
        all_locked: none of its pages goes to swap, also those that a library copied a key into for a moment.
    """

    no_core: bool
    not_dumpable: bool
    all_locked: bool


def harden() -> Hardened:
    """Hardens this process for the rest of its life. Before any key is in it."""
    return Hardened(_no_core(), _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0, _lock_all())


class LockedBuffer(Sensitive):
    """Zeroed memory in pages of its own, for secrets: not swapped, not in a core dump, zeros in a forked child.

    What a library returns as `bytes` nobody can overwrite; into this, `recv_into` writes directly.

    Args:
        size: bytes, at least 1.

    Attributes:
        locked: the pages never go to swap; False where the limit (RLIMIT_MEMLOCK) or the system refused it.
        not_dumped: the pages are in no core dump.
        not_inherited: a forked child finds zeros.

    Raises:
        MemoryError, OSError: there is no memory.
    """

    __slots__ = ("_map", "_size", "_wiped", "locked", "not_dumped", "not_inherited")

    def __init__(self, size: int) -> None:
        self._size: Final = size
        self._wiped = False
        # Private: a shared mapping would not be wiped on fork.
        self._map: Final = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.not_dumped: Final = self._advise(mmap.MADV_DONTDUMP)
        self.not_inherited: Final = self._advise(_MADV_WIPEONFORK)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.locked: Final = _libc.mlock(address, size) == 0

    def __len__(self) -> int:
        return self._size

    def view(self) -> memoryview:
        """The bytes, not copied, to be read and written. Raises `SecretWiped` when they are gone."""
        if self._wiped:
            raise SecretWiped(what="LockedBuffer")
        return memoryview(self._map)[: self._size]

    def wipe(self) -> None:
        """Overwrites the bytes with zeros. Any later use raises `SecretWiped`. Twice is once."""
        self._map[:] = bytes(len(self._map))
        self._wiped = True

    def _advise(self, advice: int) -> bool:
        try:
            self._map.madvise(advice)
        except (OSError, ValueError):
            return False  # an older kernel, or one that does not know it
        return True


def _no_core() -> bool:
    # A core pattern that is a pipe is run for a limit of 0 too: that is why not being dumpable is asked for as well.
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return False
    return True


def _lock_all() -> bool:
    """Locks every page that this process has and gets, if nothing stands in the way of that.

    Not under a finite limit: once it was reached, whatever asks for memory next would fail.
    """
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    if not unlimited and not _may_lock():
        return False
    # As pages are touched: locking all that the libraries map at once would hold memory that is never used.
    return bool(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def _may_lock() -> bool:
    """Whether the limit does not count for this process (capabilities(7), CAP_IPC_LOCK)."""
    try:
        with open("/proc/self/status", "rb") as status:
            effective = next(line.split()[1] for line in status if line.startswith(b"CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)
