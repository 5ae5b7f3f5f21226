import random

import pytest

from chatkeep.daemon.vault.padding import padded_manifest_size, padded_pack_size


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        (1, 32 << 10),
        (32 << 10, 32 << 10),
        ((32 << 10) + 1, 64 << 10),
        ((1 << 20) - 1, 1 << 20),
        (1 << 20, 1 << 20),
        # e = 20, s = 5: steps of 2^15 from 1 MiB on, of 2^19 from 16 MiB on (e = 24, s = 5)
        ((1 << 20) + 1, (1 << 20) + (1 << 15)),
        ((16 << 20) + 1, (16 << 20) + (1 << 19)),
        ((17 << 20) + (1 << 19), (17 << 20) + (1 << 19)),
    ],
)
def test_pack_sizes_of_the_format(size: int, padded: int) -> None:
    assert padded_pack_size(size) == padded


def test_padding_never_shrinks_is_stable_and_stays_small() -> None:
    rng = random.Random(3)
    for _ in range(5000):
        size = rng.randrange(1, 100 << 20)
        padded = padded_pack_size(size)
        assert size <= padded <= max(size * 1.12, size + (32 << 10))
        assert padded_pack_size(padded) == padded
        assert padded_manifest_size(size) % 8192 == 0
        assert 0 <= padded_manifest_size(size) - size < 8192
