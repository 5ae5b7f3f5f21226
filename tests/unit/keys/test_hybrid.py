"""Sealing to a public key: round trip, X-Wing's own vector, and every way a sealed text must not open."""

from __future__ import annotations

import copy
import hashlib
import pickle

import pytest

from chatkeep.daemon.keys.errors import KeyRefused, SecretWiped, Unsealable
from chatkeep.daemon.keys.hybrid import OVERHEAD, PUBLIC_SIZE, HybridPrivate, HybridPublic

PRIVATE = HybridPrivate.from_seed(bytes(range(32)))
OTHER = HybridPrivate.from_seed(bytes(32))

# draft-connolly-cfrg-xwing-kem, appendix C, first test vector: the seed, and the first bytes of its public key.
XWING_SEED = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
XWING_PUBLIC_START = bytes.fromhex("e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5")


def test_round_trip_and_sizes() -> None:
    sealed = PRIVATE.public.seal(b"thirty-two bytes of a root secret", b"context")
    assert len(sealed) == OVERHEAD + 33
    assert len(PRIVATE.public.raw) == PUBLIC_SIZE
    assert PRIVATE.open(sealed, b"context") == b"thirty-two bytes of a root secret"


def test_xwing_vector() -> None:
    assert HybridPrivate.from_seed(XWING_SEED).public.raw.startswith(XWING_PUBLIC_START)


def test_key_is_expanded_as_xwing_has_it() -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    expanded = hashlib.shake_256(XWING_SEED).digest(96)
    exchange = X25519PrivateKey.from_private_bytes(expanded[64:]).public_key().public_bytes_raw()
    assert HybridPrivate.from_seed(XWING_SEED).public.raw[1184:] == exchange


def test_public_key_survives_its_bytes() -> None:
    loaded = HybridPublic(PRIVATE.public.raw)
    assert loaded == PRIVATE.public
    assert hash(loaded) == hash(PRIVATE.public)
    assert loaded.key_id == hashlib.sha256(loaded.raw).digest()[:16]
    assert loaded != OTHER.public
    assert PRIVATE.open(loaded.seal(b"x", b""), b"") == b"x"


def test_opens_for_nothing_else() -> None:
    sealed = PRIVATE.public.seal(b"secret", b"context")
    refused = [
        (OTHER, sealed, b"context"),
        (PRIVATE, sealed, b"contexT"),
        (PRIVATE, sealed, b""),
        (PRIVATE, sealed[:-1], b"context"),
        (PRIVATE, sealed + b"\0", b"context"),
        (PRIVATE, b"", b"context"),
        (PRIVATE, sealed[:1120], b"context"),
    ]
    for private, text, info in refused:
        with pytest.raises(Unsealable):
            private.open(text, info)


@pytest.mark.parametrize("position", [0, 1, 500, 1087, 1088, 1119, 1120, 1125, 1126, 1141])
def test_every_part_of_a_sealed_text_counts(position: int) -> None:
    sealed = bytearray(PRIVATE.public.seal(b"secret", b""))
    sealed[position] ^= 1
    with pytest.raises(Unsealable):
        PRIVATE.open(sealed, b"")


@pytest.mark.parametrize("size", [0, 32, 1184, PUBLIC_SIZE - 1, PUBLIC_SIZE + 1])
def test_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(KeyRefused) as caught:
        HybridPublic(bytes(size))
    assert caught.value.params["reason"] == "length"


@pytest.mark.parametrize("start", [0, 1, 0xEC, 0xED, 0xEE])
def test_small_order_exchange_key_is_refused(start: int) -> None:
    # u = 0, 1, p - 1, p, p + 1 (RFC 7748, section 6.1): each makes every exchange zero.
    u = bytes([start]) + (bytes(31) if start < 2 else b"\xff" * 30 + b"\x7f")
    with pytest.raises(KeyRefused) as caught:
        HybridPublic(PRIVATE.public.raw[:1184] + u)
    assert caught.value.params["reason"] == "small-order"


def test_key_that_is_no_lattice_key_is_refused() -> None:
    # FIPS 203, section 7.2: a coefficient of q or more is no encoding. 12 bits of ones are one.
    with pytest.raises(KeyRefused) as caught:
        HybridPublic(b"\xff\xff\xff" + PRIVATE.public.raw[3:])
    assert caught.value.params["reason"] == "encoding"


def test_wiped_key_opens_nothing() -> None:
    private = HybridPrivate.from_seed(b"w" * 32)
    sealed = private.public.seal(b"secret", b"")
    private.wipe()
    private.wipe()
    with pytest.raises(SecretWiped):
        private.open(sealed, b"")


def test_private_key_neither_shows_nor_travels() -> None:
    assert repr(PRIVATE) == "<HybridPrivate>"
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            take(PRIVATE)
