"""Reading packs that storage may have damaged, cut, exchanged or made up."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.vault import pack_layout
from chatkeep.daemon.vault.blob import BlobKind, IdKeys, compress
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    DifferentKey,
    Malformed,
    ObjectMismatch,
    UnknownKey,
    UnsupportedVersion,
    VaultError,
    WrongVault,
)
from chatkeep.daemon.vault.labels import KIND_PAD, MAX_BLOB, PACK_FOOTER
from chatkeep.daemon.vault.names import PackName
from chatkeep.daemon.vault.pack import PackWriter
from chatkeep.daemon.vault.pack_layout import Entry, Place, encode_directory, parse_directory
from chatkeep.daemon.vault.pack_reader import MAX_RANGE, TAIL, PackReader, prove_footer
from chatkeep.daemon.vault.seal import RecordCipher
from tests.support.packs import DEVICE, EPOCH, IDS, PRIVATE, VAULT, Bytes, add, contents, make_pack, open_pack, opener
from tests.support.packs import writer as make_writer

BLOBS = contents(seed=21, count=6, most=400)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_pack(tmp_path_factory.mktemp("pack") / "pack", BLOBS).path.read_bytes()


def read_all(raw: bytes, sha256: bytes | None = None) -> None:
    """Everything a reader can do with a pack; what it returns must be what was sealed."""
    reader = open_pack(raw, sha256)
    for slot, (kind, content) in enumerate(BLOBS):
        assert reader.read(slot, kind, IDS.id(kind, content), IDS) == content
    reader.verify(IDS)


def layout(raw: bytes) -> pack_layout.Layout:
    return open_pack(raw)._layout


def test_the_pack_of_these_tests_is_whole(raw: bytes) -> None:
    read_all(raw)
    assert len(raw) == 32 << 10


def test_every_flipped_byte_is_refused(raw: bytes) -> None:
    """Header, records, directory and footer at every byte, the pad at 200: an error of ours, never other content."""
    whole = layout(raw)
    rng = random.Random(22)
    places = {*range(whole.pad_offset + 1), *range(whole.place.offset, len(raw))}
    places |= {rng.randrange(whole.pad_offset, whole.place.offset) for _ in range(200)}
    assert len(places) > 2000
    kinds = set()
    for place in places:
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(VaultError) as caught:
            read_all(bytes(changed), hashlib.sha256(raw).digest())
        kinds.add(type(caught.value))
        assert "name" in caught.value.params or isinstance(caught.value, UnknownKey)
    assert {AuthenticationFailed, Malformed, DifferentKey, UnknownKey, WrongVault, UnsupportedVersion} <= kinds


def test_reading_does_not_look_at_the_pad_and_verify_does(raw: bytes) -> None:
    changed = bytearray(raw)
    changed[layout(raw).pad_offset + 5] ^= 1
    reader = open_pack(bytes(changed))
    kind, content = BLOBS[1]
    assert reader.read(1, kind, IDS.id(kind, content), IDS) == content
    with pytest.raises(AuthenticationFailed):
        reader.verify(IDS)
    with pytest.raises(AuthenticationFailed):
        reader.verify()


def test_the_hash_alone_is_found_last(raw: bytes) -> None:
    with pytest.raises(ObjectMismatch):
        open_pack(raw, bytes(32)).verify(IDS)


def test_every_cut_is_refused(raw: bytes) -> None:
    whole = layout(raw)
    ends = {0, 1, 7, 8, 9, whole.pad_offset, whole.place.offset, len(raw) - PACK_FOOTER, len(raw) - 1}
    ends |= {entry.offset + more for entry in whole.entries for more in (-1, 0, 1)}
    ends |= set(random.Random(23).sample(range(len(raw)), 50))
    for end in ends:
        with pytest.raises(VaultError):
            read_all(raw[:end])
        with pytest.raises(VaultError):  # cut off at the front: the footer is whole
            read_all(raw[len(raw) - end :])


def test_a_longer_object_is_refused(raw: bytes) -> None:
    for longer in (
        raw + b"\0",
        raw + raw,
        b"\0" + raw,
        raw[:8] + raw,
        raw[:-PACK_FOOTER] + bytes(1) + raw[-PACK_FOOTER:],
    ):
        with pytest.raises(VaultError):
            read_all(longer)


def test_a_short_pack_that_lost_its_front_is_noticed_at_once(raw: bytes) -> None:
    with pytest.raises(Malformed):
        open_pack(raw[1:])


def test_a_provider_that_sends_more_than_the_pack_is_noticed(raw: bytes) -> None:
    class Longer(Bytes):
        def __call__(self, offset: int, length: int | None) -> bytes:
            found = super().__call__(offset, length)
            return found if offset < 0 else found + b"x"

    reader = PackReader(Longer(raw), PackName(DEVICE, hashlib.sha256(raw).digest()), VAULT, opener)
    with pytest.raises(Malformed):
        reader.verify(IDS)


def test_a_pad_that_holds_something_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is not ours could carry something out in the pad."""
    real = PackWriter._seal_and_write

    def stuffed(self: PackWriter, cipher: RecordCipher, index: int, kind: int, plain: bytes) -> None:
        real(self, cipher, index, kind, plain[:-1] + b"x" if kind == KIND_PAD else plain)

    monkeypatch.setattr(PackWriter, "_seal_and_write", stuffed)
    entry = (BlobKind.CHUNK, IDS.id(BlobKind.CHUNK, b"content"), 0, b"content", 7)
    raw = lying_pack(tmp_path / "pack", entry, monkeypatch)
    with pytest.raises(Malformed):
        open_pack(raw, hashlib.sha256(raw).digest()).verify(IDS)


def test_a_cut_in_the_middle_of_a_long_pack_is_refused(tmp_path: Path) -> None:
    """Longer than the tail, so only its records can show that something is missing."""
    blobs = [(BlobKind.CHUNK, random.Random(n).randbytes(50_000)) for n in range(4)]
    raw = make_pack(tmp_path / "pack", blobs).path.read_bytes()
    reader = open_pack(raw[:60_000] + raw[60_001:])
    kind, content = blobs[2]
    with pytest.raises(AuthenticationFailed):
        reader.read(2, kind, IDS.id(kind, content), IDS)
    with pytest.raises(VaultError):
        reader.verify(IDS)


def test_records_exchanged_or_from_another_pack_are_refused(tmp_path: Path) -> None:
    blobs = [(BlobKind.CHUNK, bytes([n]) * 300) for n in range(4)]
    stored = [(kind, random.Random(n).randbytes(300)) for n, (kind, _) in enumerate(blobs)]
    raw = make_pack(tmp_path / "one", stored).path.read_bytes()
    other = make_pack(tmp_path / "two", stored).path.read_bytes()
    first, second = layout(raw).entries[:2]
    assert first.length == second.length
    a, b = slice(first.offset, second.offset), slice(second.offset, second.offset + second.length)
    swapped = bytearray(raw)
    swapped[a], swapped[b] = raw[b], raw[a]
    grafted = bytearray(raw)
    grafted[b] = other[b]
    for changed in (swapped, grafted):
        kind, content = stored[1]
        with pytest.raises(AuthenticationFailed):
            open_pack(bytes(changed)).read(1, kind, IDS.id(kind, content), IDS)
    for cut in (9, len(raw) - PACK_FOOTER, layout(raw).place.offset):  # one pack's front, another's end
        with pytest.raises(VaultError):
            open_pack(raw[:cut] + other[cut:]).verify(IDS)


def test_a_blob_is_what_was_asked_for(raw: bytes) -> None:
    reader = open_pack(raw)
    kind, content = BLOBS[2]
    wanted = IDS.id(kind, content)
    other = next(k for k in BlobKind if k != kind)
    for slot, asked, blob_id in ((2, other, IDS.id(other, content)), (2, kind, bytes(32)), (3, kind, wanted)):
        with pytest.raises(AuthenticationFailed):
            reader.read(slot, asked, blob_id, IDS)
    for slot in (-1, len(BLOBS), 2**31):
        with pytest.raises(Malformed):
            reader.read(slot, kind, wanted, IDS)
    with pytest.raises(AuthenticationFailed):  # another device's id key
        reader.read(2, kind, wanted, IdKeys(bytes(32)))
    with pytest.raises(AuthenticationFailed):  # one slot, two contents
        list(reader.read_many(kind, [(2, wanted), (2, bytes(32))], IDS))


def lying_pack(path: Path, entry: tuple[BlobKind, bytes, int, bytes, int], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A pack that anyone with the public key can make: sound in every tag, and no self-check."""
    with monkeypatch.context() as patch:
        patch.setattr(PackWriter, "_check", lambda *_: bytes(32))
        writing = make_writer(path)
        writing.add(*entry)
        return writing.finish(IDS).path.read_bytes()


def test_a_directory_that_lies_about_a_blob_is_found_by_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = IDS.id(BlobKind.CHUNK, b"the real content")
    raw = lying_pack(tmp_path / "pack", (BlobKind.CHUNK, wanted, 0, b"something else !", 16), monkeypatch)
    with pytest.raises(AuthenticationFailed):
        open_pack(raw).read(0, BlobKind.CHUNK, wanted, IDS)
    layer = IDS.id(BlobKind.LAYER, b"the real content")  # the right bytes as another kind
    raw = lying_pack(tmp_path / "kind", (BlobKind.LAYER, wanted, 0, b"the real content", 16), monkeypatch)
    for kind, blob_id in ((BlobKind.CHUNK, wanted), (BlobKind.LAYER, wanted), (BlobKind.LAYER, layer)):
        with pytest.raises(AuthenticationFailed):
            open_pack(raw).read(0, kind, blob_id, IDS)


def test_a_payload_that_no_writer_makes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(5000)
    blob_id = IDS.id(BlobKind.CHUNK, content)
    codec, payload = compress(BlobKind.CHUNK, content, 1)
    assert codec == 1
    for n, (bad_codec, bad_payload, raw_len) in enumerate(
        ((1, payload, 4999), (1, payload[:-1], 5000), (2, payload, 5000), (0, payload, 5000), (1, payload + b"x", 5000))
    ):
        entry = (BlobKind.CHUNK, blob_id, bad_codec, bad_payload, raw_len)
        raw = lying_pack(tmp_path / str(n), entry, monkeypatch)
        with pytest.raises(Malformed):
            open_pack(raw).read(0, BlobKind.CHUNK, blob_id, IDS)
        with pytest.raises(Malformed):
            open_pack(raw, hashlib.sha256(raw).digest()).verify(IDS)


def test_a_pack_of_another_vault_device_or_epoch_is_refused(raw: bytes, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(raw).digest()
    with pytest.raises(WrongVault):
        PackReader(Bytes(raw), PackName(DEVICE, sha256), b"another-vault-id", opener)
    with pytest.raises(Malformed):
        PackReader(Bytes(raw), PackName(b"another-device!!", sha256), VAULT, opener)
    for epoch, public in ((EPOCH + 1, PRIVATE.public), (EPOCH, HybridPrivate.from_seed(b"s" * 32).public)):
        pack = PackWriter(tmp_path / str(epoch), public, VAULT, epoch, DEVICE)
        add(pack, BlobKind.CHUNK, b"content")
        with pytest.raises(UnknownKey):
            open_pack(pack.finish(IDS).path.read_bytes())


def test_what_the_footer_says_is_bound_into_the_capsule(raw: bytes) -> None:
    """A footer that says another vault, device or epoch: even an opener that hands out the key is of no use."""
    public = layout(raw).footer.public
    at = raw.rindex(public.encode())
    for field in (0, 16, 36):
        changed = bytearray(raw)
        changed[at + field] ^= 1
        vault_id, device = bytes(changed[at : at + 16]), bytes(changed[at + 36 : at + 52])
        with pytest.raises(AuthenticationFailed):
            PackReader(Bytes(bytes(changed)), PackName(device, bytes(32)), vault_id, lambda *_: PRIVATE)


def test_the_wrong_key_under_the_right_key_id_is_refused(raw: bytes) -> None:
    with pytest.raises(AuthenticationFailed):
        PackReader(Bytes(raw), PackName(DEVICE, bytes(32)), VAULT, lambda *_: HybridPrivate.from_seed(b"s" * 32))


def test_a_key_that_is_not_the_one_sealed_with_is_told_from_damage(raw: bytes) -> None:
    footer = layout(raw).footer
    planted = PRIVATE.public.seal(bytes(32) + layout(raw).place.encode(), footer.public.capsule_info)
    with pytest.raises(DifferentKey):
        open_pack(raw[:-PACK_FOOTER] + planted + raw[-PACK_FOOTER + len(planted) :])


def test_a_later_version_is_told_from_damage(raw: bytes) -> None:
    with pytest.raises(UnsupportedVersion):
        open_pack(raw[:-1] + b"\2")
    with pytest.raises(Malformed):
        open_pack(raw[:-8] + b"X" + raw[-7:])


@pytest.mark.parametrize(
    "place",
    [
        Place(100, 45 + 16, 2),
        Place(100, 16, 0),
        Place(100, 65536 * 45 + 16, 65536),
        Place(2**40, 45 + 16, 1),
        Place(2**63, 45 + 16, 1),
    ],
)
def test_places_that_no_writer_makes_are_refused_before_anything_is_fetched(place: Place) -> None:
    with pytest.raises(Malformed):
        Place.parse(place.encode())


GOOD = [Entry(1, 8, 17, 0, bytes(32)), Entry(3, 25, 117, 100, bytes(32))]


@pytest.mark.parametrize(
    ("slot", "changes"),
    [
        (0, {"offset": 7}),
        (0, {"offset": 9}),
        (0, {"kind": 0}),
        (0, {"kind": 4}),
        (0, {"kind": 0xFE}),
        (0, {"length": 16}),
        (0, {"length": 18}),
        (1, {"offset": 24}),
        (1, {"offset": 26}),
        (1, {"raw_len": 99}),
        (1, {"raw_len": MAX_BLOB + 1}),
        (1, {"length": 118, "raw_len": 101}),  # into the pad record
        (1, {"length": 2**32 - 1, "raw_len": MAX_BLOB}),
    ],
)
def test_a_directory_whose_records_do_not_tile_the_pack_is_refused(slot: int, changes: dict[str, Any]) -> None:
    place = Place(142 + 16, 2 * 45 + 16, 2)
    assert parse_directory(encode_directory(GOOD), place) == GOOD
    bad = list(GOOD)
    bad[slot] = bad[slot]._replace(**changes)
    with pytest.raises(Malformed):
        parse_directory(encode_directory(bad), place)


def test_neighbours_are_fetched_together_and_come_in_the_order_of_slots(tmp_path: Path) -> None:
    blobs = [(BlobKind.CHUNK, random.Random(n).randbytes(30_000)) for n in range(30)]
    sealed = make_pack(tmp_path / "pack", blobs)
    fetch = Bytes(sealed.path.read_bytes())
    reader = PackReader(fetch, PackName(DEVICE, sealed.sha256), VAULT, opener)
    assert fetch.asked == [(-TAIL, None)]  # one request opens a pack
    fetch.asked.clear()
    slots = [20, 3, 5, 4, 7, 3, 21]  # 5 to 7: a gap of one record; 7 to 20: too far
    wanted = [(slot, IDS.id(*blobs[slot])) for slot in slots]
    got = list(reader.read_many(BlobKind.CHUNK, wanted, IDS))
    assert got == [(slot, blobs[slot][1]) for slot in sorted(set(slots))]
    assert [length for _, length in fetch.asked] == [5 * 30_017, 2 * 30_017]


def test_no_range_is_longer_than_eight_mebibytes(tmp_path: Path) -> None:
    noise = random.Random(24).randbytes(MAX_BLOB)
    blobs = [(BlobKind.CHUNK, noise)] * 17
    sealed = make_pack(tmp_path / "pack", blobs)
    fetch = Bytes(sealed.path.read_bytes())
    reader = PackReader(fetch, PackName(DEVICE, sealed.sha256), VAULT, opener)
    fetch.asked.clear()
    wanted = [(slot, IDS.id(*blobs[slot])) for slot in range(17)]
    assert sum(1 for _ in reader.read_many(BlobKind.CHUNK, wanted, IDS)) == 17
    lengths = [length or 0 for _, length in fetch.asked]
    assert max(lengths) <= MAX_RANGE
    assert len(lengths) == 3


def test_a_directory_longer_than_the_tail_is_fetched(tmp_path: Path) -> None:
    blobs = contents(25, 1500, most=50)
    sealed = make_pack(tmp_path / "pack", blobs)
    reader = open_pack(sealed.path.read_bytes(), sealed.sha256)
    assert reader.count * 45 > TAIL
    assert reader.read(1499, blobs[1499][0], IDS.id(*blobs[1499]), IDS) == blobs[1499][1]
    reader.verify(IDS)


def test_a_provider_that_answers_short_is_noticed(raw: bytes) -> None:
    class Short(Bytes):
        def __call__(self, offset: int, length: int | None) -> bytes:
            found = super().__call__(offset, length)
            return found if offset < 0 else found[:-1]

    fetch = Short(raw)
    reader = PackReader(fetch, PackName(DEVICE, hashlib.sha256(raw).digest()), VAULT, opener)
    kind, content = BLOBS[1]
    with pytest.raises(Malformed):
        reader.read(1, kind, IDS.id(kind, content), IDS)
    with pytest.raises(Malformed):
        reader.verify(IDS)


def test_a_footer_proves_the_capsule_without_the_pack(raw: bytes) -> None:
    name = PackName(DEVICE, hashlib.sha256(raw).digest())
    footer = raw[-PACK_FOOTER:]
    prove_footer(footer, name, VAULT, opener)
    rng = random.Random(26)
    for place in rng.sample(range(PACK_FOOTER), 60):
        changed = bytearray(footer)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(VaultError):
            prove_footer(bytes(changed), name, VAULT, opener)


def test_padding_of_another_size_is_read_and_reported(
    raw: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not refused on reading, where it harms nobody; `verify` tells that a writer does not pad."""
    monkeypatch.setattr("chatkeep.daemon.vault.pack.padded_pack_size", lambda size: size + 3)
    entry = (BlobKind.CHUNK, IDS.id(BlobKind.CHUNK, b"content"), 0, b"content", 7)
    lean = lying_pack(tmp_path / "pack", entry, monkeypatch)
    reader = open_pack(lean)
    assert reader.read(0, entry[0], entry[1], IDS) == b"content"
    with pytest.raises(Malformed):
        reader.verify(IDS)
