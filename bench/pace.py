"""How fast the machine is at the moment: the same small work, again and again during a run.

On a virtual machine the neighbours of the host share its caches and memory: the same instructions take a quarter more
CPU time in one minute than in the next, and nothing in the guest shows it but this.
"""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import zstandard

_SIZE = 2 << 20
_TIMES = 8
_WORDS = 4000
_WARMER = Path(__file__).with_name("warm.py")


@functools.cache
def _text() -> bytes:
    rng = random.Random(1)
    words = [rng.randbytes(rng.randint(1, 5)).hex().encode() for _ in range(_WORDS)]
    text = b" ".join(rng.choices(words, k=2 * _SIZE // 7))
    return text[:_SIZE]


def pace() -> float:
    """CPU seconds per GB that Zstandard level 1 takes for the same text, 16 MiB in all."""
    text, compressor = _text(), zstandard.ZstdCompressor(level=1)
    begun = time.thread_time()
    for _ in range(_TIMES):
        for at in range(0, len(text), 1 << 20):
            compressor.compress(text[at : at + (1 << 20)])
    return (time.thread_time() - begun) / (_TIMES * len(text)) * 1e9


def warm(size: int) -> float:
    """Have `size` bytes of memory, or half of what is free, in use for a moment: CPU seconds per GB that it took."""
    size = min(size, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    done = subprocess.run([sys.executable, "-I", "-S", str(_WARMER), str(size)], capture_output=True, check=True)
    return float(done.stdout)
