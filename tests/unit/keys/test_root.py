"""Root secrets, their subkeys, and Ed25519 keys that must be refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chatkeep.daemon.keys.errors import KeyRefused, SecretWiped, SignatureInvalid, Unsealable
from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey, VerifyKey
from chatkeep.daemon.keys.secret import Sensitive

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
VAULT = b"v" * 16


def keys(fill: bytes = b"r") -> EpochKeys:
    return EpochKeys(RootSecret(bytearray(fill * 32)))


def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """The addition law of RFC 8032, section 5.1.4, in affine coordinates."""
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x3 = (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P) % P
    y3 = (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P) % P
    return x3, y3


def torsion_ys() -> set[int]:
    """The y of every point whose order divides 8, found by arithmetic and independent of the list under test.

    A point times the order of the prime subgroup is of small order; enough points reach all of them.
    """
    order = 2**252 + 27742317777372353535851937790883648493
    found: set[int] = set()
    y = 2
    while len(found) < 5:
        y += 1
        square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
        x = pow(square, (P + 3) // 8, P)
        if (x * x - square) % P:
            x = x * pow(2, (P - 1) // 4, P) % P
        if (x * x - square) % P:
            continue
        point, result, n = (x, y), (0, 1), order
        while n:
            if n & 1:
                result = add(result, point)
            point, n = add(point, point), n >> 1
        found.add(result[1])
    return found


def small_order_encodings() -> list[bytes]:
    values = sorted(torsion_ys())
    both = values + [y + P for y in values if y + P < 2**255]
    return [(y | sign << 255).to_bytes(32, "little") for y in both for sign in (0, 1)]


def test_every_small_order_key_is_refused_in_every_encoding() -> None:
    encodings = small_order_encodings()
    assert len(set(encodings)) == 14
    for raw in encodings:
        with pytest.raises(KeyRefused) as caught:
            VerifyKey(raw)
        assert caught.value.params["reason"] == "small-order"


def test_the_library_would_take_a_small_order_key() -> None:
    # The fault this guards against: one signature for every message. Fails when the guard is no longer needed.
    key = Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31))
    key.verify(b"\1" + bytes(63), b"any message")
    with pytest.raises(InvalidSignature):
        key.verify(b"\2" + bytes(63), b"any message")


def test_key_with_a_second_spelling_is_refused() -> None:
    with pytest.raises(KeyRefused) as caught:
        VerifyKey((P + 3).to_bytes(32, "little"))
    assert caught.value.params["reason"] == "encoding"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_verify_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(KeyRefused):
        VerifyKey(b"\5" * size)


def test_signature_of_rfc_8032() -> None:
    # RFC 8032, section 7.1, test 2.
    signing = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert signing.public.raw.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = signing.sign(b"\x72")
    assert signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da")
    signing.public.verify(signature, b"\x72", what="vector")
    with pytest.raises(SignatureInvalid):
        signing.public.verify(signature, b"\x73", what="vector")
    with pytest.raises(SignatureInvalid):
        signing.public.verify(signature[:-1], b"\x72", what="vector")


def test_subkeys_are_hkdf_with_the_documented_labels() -> None:
    def hkdf(label: bytes) -> bytes:
        extract = hmac.HMAC(bytes(32), hashes.SHA256())
        extract.update(b"r" * 32)
        expand = hmac.HMAC(extract.finalize(), hashes.SHA256())
        expand.update(b"chatkeep/v1/" + label + b"\0" + b"\1")
        return expand.finalize()

    made = keys()
    assert made.sign.public == SigningKey(hkdf(b"sign")).public
    assert made.checkpoint.public == SigningKey(hkdf(b"checkpoint")).public
    assert made.root.subkey("open") == hkdf(b"open")
    assert made.sign.public != made.checkpoint.public


def test_older_root_secret_comes_back_for_its_place_only() -> None:
    older, newer = keys(b"1"), keys(b"2")
    wrapped = newer.wrap_older(older.root, VAULT, 2)
    assert len(wrapped) == 48
    assert newer.unwrap_older(wrapped, VAULT, 2).view() == older.root.view()
    refused = [
        (keys(b"3"), wrapped, VAULT, 2),
        (newer, wrapped, b"w" * 16, 2),
        (newer, wrapped, VAULT, 3),
        (newer, wrapped[:-1], VAULT, 2),
        (newer, wrapped + b"\0", VAULT, 2),
        (newer, b"", VAULT, 2),
    ]
    for epoch_keys, text, vault, epoch in refused:
        with pytest.raises(Unsealable):
            epoch_keys.unwrap_older(text, vault, epoch)


def test_wipe_overwrites_the_root_and_ends_every_key() -> None:
    buffer = bytearray(b"r" * 32)
    made = EpochKeys(RootSecret(buffer))
    sealed = made.open.public.seal(b"x", b"")
    with made:
        assert made.open.open(sealed, b"") == b"x"
    assert buffer == bytes(32)
    uses: list[Callable[[], object]] = [
        lambda: made.root.view(),
        lambda: made.root.subkey("open"),
        lambda: made.open.open(sealed, b""),
        lambda: made.sign.sign(b""),
        lambda: made.checkpoint.sign(b""),
    ]
    for use in uses:
        with pytest.raises(SecretWiped):
            use()


def test_generated_roots_differ() -> None:
    assert RootSecret.generate().view() != RootSecret.generate().view()


@pytest.mark.parametrize("secret", [keys(), keys().root, keys().sign], ids=lambda secret: type(secret).__name__)
def test_secrets_neither_show_nor_travel(secret: Sensitive) -> None:
    assert repr(secret) == f"<{type(secret).__name__}>"
    assert str(secret) == repr(secret)
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            take(secret)


def test_view_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        keys().root.view()[0] = 1
