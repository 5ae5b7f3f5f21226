"""How fast the machine is at the moment: the same small work, again and again during a run.

On a virtual machine the neighbours of the host share its caches and memory: the same instructions take a quarter more
CPU time in one minute than in the next, and nothing in the guest shows it but this.
"""

from __future__ import annotations

import functools
import random
import time

import zstandard

_SIZE = 2 << 20
_TIMES = 8
_WORDS = 4000


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
