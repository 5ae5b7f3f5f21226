"""Manifests: what is sealed opens, everything else is refused with the right error and shows nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.hybrid import HybridPrivate, HybridPublic
from chatkeep.daemon.vault import manifest as module
from chatkeep.daemon.vault.blob import BlobKind, BlobRef, IdKeys
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    DifferentKey,
    Malformed,
    ObjectMismatch,
    SelfCheckFailed,
    UnknownKey,
    UnsupportedVersion,
    VaultError,
    WrongVault,
)
from chatkeep.daemon.vault.labels import MANIFEST, MANIFEST_HEAD, SIG_MANIFEST
from chatkeep.daemon.vault.manifest import (
    GROUP,
    Header,
    Manifest,
    NewPack,
    StackLayer,
    decode_body,
    open_manifest,
    prove_manifest_head,
    seal_manifest,
    verify_manifest,
)
from chatkeep.daemon.vault.names import ManifestName
from chatkeep.daemon.vault.seal import derive, seal_once
from tests.support.flips import assert_all_refused
from tests.support.manifests import Keys, TestVault, add_device, make_manifest, make_vault, named

STREAM = b"stream-of-a-test"
ZERO = bytes(32)


@pytest.fixture(scope="module")
def vault() -> TestVault:
    return make_vault()


def sealed(vault: TestVault, seq: int = 1, prev: bytes = ZERO, **fields: Any) -> bytes:
    return seal_manifest(make_manifest(vault, **fields), STREAM, seq, prev, vault.credential)


def read(vault: TestVault, raw: bytes, name: ManifestName | None = None) -> Manifest:
    verified = verify_manifest(raw, name or named(vault, STREAM, 1, raw), vault.cert)
    return open_manifest(verified, vault.keys.open)


def resigned(vault: TestVault, unsigned: bytes) -> bytes:
    """The bytes under a new signature of the device: what its thief can make."""
    digest = hashlib.sha256(unsigned).digest()
    return unsigned + vault.credential.device_key.sign(SIG_MANIFEST + digest)


def test_what_was_sealed_opens(vault: TestVault) -> None:
    body = make_manifest(
        vault,
        flags=GROUP,
        pending=2,
        stack=(
            StackLayer(0, 7, 9, (BlobRef(b"p" * 32, 65534, b"i" * 32), BlobRef(b"q" * 32, 0, b"j" * 32))),
            StackLayer(3, 1, 6, (BlobRef(b"r" * 32, 1, b"k" * 32),)),
        ),
        source_path=b"/h\xff/\x00",
    )
    raw = seal_manifest(body, STREAM, 9, b"x" * 32, vault.credential)
    verified = verify_manifest(raw, named(vault, STREAM, 9, raw), vault.cert)
    assert verified.header == Header(
        vault.vault_id, 1, vault.credential.public.key_id, vault.credential.device_id, STREAM, 9, b"x" * 32
    )
    opened = open_manifest(verified, vault.keys.open)
    assert opened == body
    assert (opened.complete, opened.group) == (False, True)
    id_key = bytes(vault.credential.id_key.view())
    assert opened.ids().id(BlobKind.CHUNK, b"x") == IdKeys(id_key).id(BlobKind.CHUNK, b"x")


def test_sizes_are_those_of_the_format(vault: TestVault) -> None:
    small, larger = sealed(vault), sealed(vault, source_path=b"p" * 1000)
    assert len(small) == len(larger) == 8192
    layers = tuple(StackLayer(0, n, n, (BlobRef(b"p" * 32, n, b"i" * 32),)) for n in range(120, 0, -1))
    assert len(sealed(vault, 120, b"x" * 32, stack=layers)) == 2 * 8192
    assert len(Header(bytes(16), 1, bytes(16), bytes(16), STREAM, 1, ZERO).encode()) == 132


def test_nothing_shows_the_id_key(vault: TestVault) -> None:
    body = make_manifest(vault)
    assert repr(body) == str(body) == "Manifest(time=1700000000000000000)"
    raw = sealed(vault)
    assert body.id_key not in raw
    assert raw.hex()[:40] not in repr(verify_manifest(raw, named(vault, STREAM, 1, raw), vault.cert))


def test_every_flipped_byte_is_refused_under_the_name_it_had_and_under_its_own(vault: TestVault) -> None:
    raw = sealed(vault)
    name = named(vault, STREAM, 1, raw)
    rng = random.Random(11)
    places = {*range(132), *range(132 + 1168 - 4, 132 + 1168 + 40), *range(len(raw) - 90, len(raw))}
    places |= {rng.randrange(len(raw)) for _ in range(200)}
    for place in places:
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(ObjectMismatch):
            read(vault, bytes(changed), name)
        with pytest.raises((AuthenticationFailed, Malformed, UnsupportedVersion, WrongVault)):
            read(vault, bytes(changed))


def test_every_flipped_byte_is_refused_even_when_the_device_signs_it_again(vault: TestVault) -> None:
    raw = sealed(vault)
    rng = random.Random(12)
    for place in {*range(132), *range(132, len(raw) - 64, 37)}:
        changed = bytearray(raw[:-64])
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(VaultError):
            read(vault, resigned(vault, bytes(changed)))


def test_every_length_but_the_right_one_is_refused(vault: TestVault) -> None:
    raw = sealed(vault)
    lengths = [0, 1, 131, 132, 1300, 1332, 1412, 8191]
    others = [raw[:length] for length in lengths] + [raw + b"\0", raw + bytes(8192), raw * 2]
    for other in others:
        with pytest.raises(ObjectMismatch):
            read(vault, other, named(vault, STREAM, 1, raw))
        with pytest.raises((Malformed, AuthenticationFailed)):
            read(vault, other)
    for other in (raw[:-64][:4000], raw[:-64] + bytes(8192)):
        with pytest.raises((Malformed, AuthenticationFailed)):
            read(vault, resigned(vault, other))


def test_a_manifest_is_refused_under_another_name(vault: TestVault) -> None:
    raw = sealed(vault)
    right = named(vault, STREAM, 1, raw)
    for device, stream, seq in (
        (right.device_id, STREAM, 2),
        (right.device_id, b"another-stream!!", 1),
        (b"another-device!!", STREAM, 1),
    ):
        with pytest.raises(Malformed):
            read(vault, raw, ManifestName(device, stream, seq, right.sha256))


def test_another_device_cannot_sign_as_this_one_nor_take_its_manifest_over(vault: TestVault) -> None:
    other = add_device(vault)
    raw = sealed(vault)
    with pytest.raises(AuthenticationFailed):  # the certificate of another device
        verify_manifest(raw, named(vault, STREAM, 1, raw), other.cert)
    taken = resigned(other, raw[:-64])
    with pytest.raises(AuthenticationFailed):  # its signature under this device's header
        read(vault, taken)
    header = bytearray(raw[:-64])
    at = header.index(vault.credential.device_id)
    header[at : at + 16] = other.credential.device_id
    mine = resigned(other, bytes(header))
    verified = verify_manifest(mine, named(other, STREAM, 1, mine), other.cert)
    with pytest.raises(AuthenticationFailed):  # verifies as its own: and does not open, being bound to the header
        open_manifest(verified, vault.keys.open)


def test_a_manifest_of_another_vault_is_refused(vault: TestVault) -> None:
    other = make_vault(device_id=vault.credential.device_id)
    raw = sealed(other)
    with pytest.raises(WrongVault):
        verify_manifest(raw, named(other, STREAM, 1, raw), vault.cert)
    verified = verify_manifest(raw, named(other, STREAM, 1, raw), other.cert)
    with pytest.raises(UnknownKey):
        open_manifest(verified, vault.keys.open)


def test_a_key_that_is_not_the_one_sealed_with_is_told_from_damage(vault: TestVault) -> None:
    raw = bytearray(sealed(vault)[:-64])
    raw[132 + 1168] ^= 1  # the commitment
    with pytest.raises(DifferentKey):
        read(vault, resigned(vault, bytes(raw)))


def test_a_certificate_of_another_device_with_the_same_key_is_refused(vault: TestVault) -> None:
    raw = sealed(vault)
    cert = dataclasses.replace(vault.cert, device_id=b"another-device!!")
    with pytest.raises(AuthenticationFailed):
        verify_manifest(raw, named(vault, STREAM, 1, raw), cert)


@pytest.mark.parametrize(
    ("length", "pad", "error"),
    [(None, b"\0", None), (None, b"x", Malformed), (2**32 - 1, b"\0", Malformed), (0, b"\0", Malformed)],
    ids=["sound", "stuffed", "too-long", "empty"],
)
def test_what_surrounds_the_body_is_checked(
    vault: TestVault, length: int | None, pad: bytes, error: type[ChatkeepError] | None
) -> None:
    """Sealed by hand by who has the device's key."""
    credential = vault.credential
    header = Header(vault.vault_id, 1, credential.public.key_id, credential.device_id, STREAM, 1, ZERO)
    bound, key = header.encode(), b"k" * 32
    body = msgspec.msgpack.encode(make_manifest(vault))
    plain = (len(body) if length is None else length).to_bytes(4, "big") + body
    plain += bytes(8192 - 1412 - len(plain) - 1) + pad
    aead, commit = derive(MANIFEST, key, vault.vault_id, 1)
    capsule = credential.public.seal(key, MANIFEST + bound)
    raw = resigned(vault, bound + capsule + commit + seal_once(aead, plain, bound))
    if error is None:
        assert read(vault, raw) == make_manifest(vault)
    else:
        with pytest.raises(error):
            read(vault, raw)


@pytest.mark.parametrize(
    ("seq", "prev"), [(1, b"x" * 32), (2, ZERO), (0, ZERO), (10**12, b"x" * 32)], ids=["1+", "2-", "0", "large"]
)
def test_a_link_that_cannot_be_is_refused(vault: TestVault, seq: int, prev: bytes) -> None:
    header = Header(vault.vault_id, 1, bytes(16), bytes(16), STREAM, seq, prev)
    with pytest.raises(Malformed):
        Header.parse(header.encode())


def test_versions_and_reserved_bytes(vault: TestVault) -> None:
    good = Header(vault.vault_id, 1, bytes(16), bytes(16), STREAM, 1, ZERO).encode()
    with pytest.raises(UnsupportedVersion):
        Header.parse(good[:7] + b"\2" + good[8:])
    with pytest.raises(Malformed):
        Header.parse(b"X" + good[1:])
    with pytest.raises(Malformed):
        Header.parse(good[:-1] + b"\1")


HEADER = Header(bytes(16), 1, bytes(16), bytes(16), STREAM, 9, b"x" * 32)
PART = [b"p" * 32, 0, b"i" * 32]

BAD: list[tuple[int, object]] = [
    (1, -1),
    (1, 2**63),
    (1, 1.5),
    (1, True),
    (1, 0),  # earlier than the clock
    (2, 2**64 - 1),
    (3, "x" * 256),
    (3, b"chat"),
    (4, "text"),
    (4, bytes(4097)),
    (5, None),
    (6, bytes(31)),
    (7, bytes(33)),
    (8, 4),
    (8, -1),
    (9, [[0, 9, 9, []]]),
    (9, [[4, 9, 9, [PART]]]),
    (9, [[0, 0, 9, [PART]]]),
    (9, [[0, 9, 8, [PART]]]),
    (9, [[0, 10, 10, [PART]]]),  # a snapshot that is yet to come
    (9, [[0, 1, 8, [PART]], [0, 9, 9, [PART]]]),  # oldest first
    (9, [[0, 9, 9, [PART], 0]]),
    (9, [[0, 9, 9]]),
    (9, [[0, 9, 9, [PART[:2]]]]),
    (9, [[0, 9, 9, [[*PART, 1]]]]),
    (9, [[0, 9, 9, [[b"p" * 31, 0, b"i" * 32]]]]),
    (9, [[0, 9, 9, [[b"p" * 32, 65535, b"i" * 32]]]]),
    (9, [[0, 9, 9, [[b"p" * 32, -1, b"i" * 32]]]]),
    (9, [[0, 1, 1, [PART]]] * 1025),
    (9, [[0, 9, 9, [PART, PART]]]),
    (9, [[0, 9, 9, [PART]], [0, 1, 8, [PART]]]),
    (10, [[b"p" * 32, 0]]),
    (10, [[b"p" * 32, 2**32]]),
    (10, [[b"p" * 32, 32768]] * 2),
    (10, {}),
    (11, -1),
    (12, 1),  # complete, and something is pending
    (13, "0"),
    (14, b""),
    (15, [1, 2, 3, 4]),
    (15, [1, 2, 3, 4, 5, 6]),
    (15, [1, 2, 3, 4, -5]),
]


def fields(vault: TestVault) -> list[Any]:
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(make_manifest(vault)))
    assert isinstance(decoded, list)
    return decoded


@pytest.mark.parametrize(("place", "value"), BAD)
def test_every_bound_of_the_body_is_checked(vault: TestVault, place: int, value: object) -> None:
    body = fields(vault)
    decode_body(msgspec.msgpack.encode(body), HEADER)
    body[place] = value
    with pytest.raises(Malformed):
        decode_body(msgspec.msgpack.encode(body), HEADER)


def test_bodies_of_another_shape_are_refused(vault: TestVault) -> None:
    body = fields(vault)
    good = msgspec.msgpack.encode(body)
    shapes = [msgspec.msgpack.encode(body[:-1]), msgspec.msgpack.encode([*body, 0]), good + b"\0", good[:-1], b""]
    shapes += [b"\xdd\xff\xff\xff\xff", msgspec.msgpack.encode({}), b"\xdc\xff\xff" * 5000]
    shapes += [good.replace(b"laptop", b"lapt\xe3p")]  # text that is no UTF-8
    assert shapes[-1] != good
    for shape in shapes:
        with pytest.raises(Malformed):
            decode_body(shape, HEADER)
    body[0] = 2
    with pytest.raises(UnsupportedVersion):
        decode_body(msgspec.msgpack.encode(body), HEADER)


def test_a_writer_cannot_seal_what_no_reader_takes(vault: TestVault) -> None:
    for wrong in (
        {"packs": (NewPack(b"p" * 32, 0),)},
        {"stack": (StackLayer(0, 2, 2, (BlobRef(b"p" * 32, 0, b"i" * 32),)),)},
        {"host": "\udcff"},
        {"time": 2**70},
    ):
        with pytest.raises(Malformed):
            sealed(vault, **wrong)
    with pytest.raises(AssertionError):
        sealed(vault, id_key=bytes(32))
    with pytest.raises(AssertionError):
        sealed(vault, epoch_record=bytes(32))


def test_a_manifest_above_the_limit_is_not_written(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MANIFEST", 8192)
    sealed(vault)
    with pytest.raises(Malformed):
        sealed(vault, stack=(StackLayer(0, 1, 1, (BlobRef(b"p" * 32, 0, b"i" * 32),) * 120),))


@pytest.mark.parametrize("place", [0, 50, 131, 132 + 1168, 132 + 1168 + 40, 8000, 8191])
def test_a_fault_of_this_machine_while_sealing_is_found(
    vault: TestVault, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """A bit of what was sealed flips in memory before it is returned."""
    fired: list[int] = []
    real: Callable[..., bytes] = module._seal

    def flipping(*args: Any) -> bytes:
        raw = bytearray(real(*args))
        raw[place] ^= 1
        fired.append(place)
        return bytes(raw)

    monkeypatch.setattr(module, "_seal", flipping)
    with pytest.raises(SelfCheckFailed):
        sealed(vault)
    assert fired == [place]


def test_each_manifest_has_its_own_key(vault: TestVault) -> None:
    one, two = sealed(vault), sealed(vault)
    assert one[:132] == two[:132]
    assert one[132 + 1168 : 132 + 1168 + 32] != two[132 + 1168 : 132 + 1168 + 32]  # commitments


def test_a_body_that_opens_only_with_a_planted_capsule_is_refused(vault: TestVault) -> None:
    """Storage can seal to the public key, so it can replace the capsule: the device's signature covers it."""
    raw = sealed(vault)
    public = HybridPublic(vault.credential.public.raw)
    planted = raw[:132] + public.seal(bytes(32), b"chatkeep/v1/manifest\0" + raw[:132]) + raw[132 + 1168 :]
    with pytest.raises(AuthenticationFailed):
        read(vault, planted)
    with pytest.raises(DifferentKey):
        read(vault, resigned(vault, planted[:-64]))


def test_errors_carry_no_bytes(vault: TestVault) -> None:
    raw = bytearray(sealed(vault))
    raw[4000] ^= 1
    with pytest.raises(ChatkeepError) as caught:
        read(vault, bytes(raw))
    assert all(isinstance(value, (str, int)) for value in caught.value.params.values())


def opener_of(vault: TestVault) -> Callable[[int, bytes], HybridPrivate]:
    return Keys(vault).opener


def test_the_beginning_of_a_manifest_proves_its_capsule(vault: TestVault) -> None:
    raw = sealed(vault)
    assert MANIFEST_HEAD == 1332
    assert prove_manifest_head(raw[:MANIFEST_HEAD], opener_of(vault)) == Header.parse(raw[:132])


def test_every_flipped_byte_of_the_beginning_is_refused(vault: TestVault) -> None:
    head = sealed(vault)[:MANIFEST_HEAD]
    errors = (AuthenticationFailed, DifferentKey, Malformed, UnknownKey, UnsupportedVersion)
    assert_all_refused(head, lambda raw: prove_manifest_head(raw, opener_of(vault)), *errors)
    with pytest.raises(DifferentKey):
        prove_manifest_head(head[:-1] + bytes([head[-1] ^ 1]), opener_of(vault))
    with pytest.raises(AuthenticationFailed):
        prove_manifest_head(head[:-33] + bytes([head[-33] ^ 1]) + head[-32:], opener_of(vault))


def test_a_capsule_of_another_manifest_proves_nothing(vault: TestVault) -> None:
    head, other = sealed(vault)[:MANIFEST_HEAD], sealed(vault, 2, b"x" * 32)[:MANIFEST_HEAD]
    with pytest.raises(AuthenticationFailed):
        prove_manifest_head(head[:132] + other[132:], opener_of(vault))
    with pytest.raises(UnknownKey):
        prove_manifest_head(head, opener_of(make_vault()))
