"""Padded sizes (docs/format.md, sections 10 and 13). Pure.

Storage sees the size of every object, and somebody who can make the user's chat grow can watch it. Padding lies inside
the encryption, where it cannot be told from content, and leaves few sizes to see.
"""

from __future__ import annotations

from typing import Final

from chatkeep.daemon.vault.labels import MANIFEST_STEP

SMALL_PACK: Final = 1 << 20
SMALL_PACK_STEP: Final = 32 << 10


def padded_pack_size(size: int) -> int:
    """The size of a pack, in bytes, that without padding has `size`."""
    if size < SMALL_PACK:
        return _up(size, SMALL_PACK_STEP)
    # Padmé (Nikitin et al., PURBs, 2019): at most 12 % more, and O(log log size) bits tell.
    exponent = size.bit_length() - 1
    significant = exponent.bit_length()
    return _up(size, 1 << (exponent - significant))


def padded_manifest_size(size: int) -> int:
    """The size of a manifest, in bytes, that without padding has `size`."""
    return _up(size, MANIFEST_STEP)


def _up(size: int, step: int) -> int:
    return (size + step - 1) // step * step
