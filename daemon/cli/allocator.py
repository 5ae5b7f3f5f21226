"""The C library's memory allocator, told what this program does: megabyte blocks, taken and given back all the time."""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def keep_blocks() -> None:
    """Let freed megabytes stay with the process until it ends, for the work of one command.

    By default glibc returns them to the kernel after every blob and takes them back, page by page, for the next: a
    quarter of the CPU time of a full backup. Elsewhere than on glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, 8 << 20)
    mallopt(_TRIM_THRESHOLD, 64 << 20)
    # An arena for each thread would keep its own megabytes.
    mallopt(_ARENA_MAX, 2)
