"""Takes memory and gives it back: python warm.py BYTES. Prints the CPU seconds per GB that it took.

A virtual machine may hand free memory back to its host (free page reporting). Whoever needs it next pays for getting it
again, up to 2 CPU seconds per GB, and a backup needs it for what it writes: what was measured then is when some other
program ended. Memory that was in use a moment ago costs what memory costs.
"""

from __future__ import annotations

import mmap
import sys
import time


def main(arguments: list[str]) -> int:
    """The command line."""
    size = int(arguments[0])
    begun = time.thread_time()
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    print((time.thread_time() - begun) / size * 1e9)
    memory.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
