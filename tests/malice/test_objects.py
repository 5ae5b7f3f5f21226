"""Manifests, checkpoints, packs: changed in every byte by storage, and made of lies by a thief of a device's keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import msgspec
import pytest
import zstandard

from chatkeep.daemon.vault.blob import BlobKind, BlobRef
from chatkeep.daemon.vault.errors import VaultError
from chatkeep.daemon.vault.labels import MAX_BLOB, PACK_FOOTER, SIG_CHECKPOINT
from chatkeep.daemon.vault.names import CheckpointName, ManifestName, PackName, parse
from chatkeep.daemon.vault.pack_layout import Entry, Place, Public
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.snapshots import Stream
from chatkeep.daemon.verify.scrub import scrub
from tests.malice.conftest import Attempts
from tests.support.forging import (
    WRONG_MSGPACK,
    ForgedBlob,
    Thief,
    extent,
    file_record,
    hole,
    mutated,
    part,
)
from tests.support.hostile_texts import EVERY_BIT, cut, extended, flipped
from tests.support.hostile_vault import HostileVault, ask, ask_for_manifests, check_error

Change = Mapping[str, bytes | None]
STREAM = b"a stream of lies"


def manifests(vault: HostileVault) -> list[ManifestName]:
    """The newest and the oldest of ana's longest stream, and ben's newest."""
    mine = [one for one in vault.manifests("ana") if one.stream_id == vault.checkpoint_stream]
    return [mine[-1], mine[0], vault.manifests("ben")[-1]]


def sized(raw: bytes, masks: tuple[int, ...], edges: int = 300, step: int = 61) -> Iterator[tuple[str, bytes]]:
    """Changes of a large object: bytes, every length near its ends, some between, and longer ones."""
    yield from flipped(raw, masks)
    near = {*range(edges), *range(len(raw) - edges, len(raw)), *range(0, len(raw), step)}
    yield from cut(raw, iter(sorted(near)))
    yield from extended(raw)


def changed_manifests(vault: HostileVault) -> Iterator[tuple[str, Stream, Change]]:
    for name in manifests(vault):
        stream = Stream(name.device_id, name.stream_id)
        for number, (what, changed) in enumerate(sized(vault.objects[str(name)], ())):
            yield f"{name}: {what}", stream, {str(name): changed}
            if number % 4:
                continue
            own = ManifestName(name.device_id, name.stream_id, name.seq, hashlib.sha256(changed).digest())
            yield f"{name}: {what}, under its own name", stream, {str(name): None, str(own): changed}


def test_every_byte_of_a_manifest(vault: HostileVault, attempts: Attempts) -> None:
    """Also under the name that the changed bytes hash to: then the signature is what refuses it."""
    newest_of_ben = str(vault.manifests("ben")[-1])
    for number, (what, stream, change) in enumerate(attempts.some(changed_manifests(vault), 300)):
        # The newest of all may be withheld, and so may what stands in its place be refused: the honest limit.
        try:
            ask_for_manifests(vault, vault.storage(change), stream)
            if number % 100 == 0:
                ask(vault, vault.storage(change), vault.opened, lossy=newest_of_ben in change)
        except Exception as exc:
            raise AssertionError(what) from exc


def changed_checkpoints(vault: HostileVault) -> Iterator[tuple[str, Change]]:
    for name in vault.checkpoints:
        raw = vault.objects[str(name)]
        for what, changed in [*flipped(raw, EVERY_BIT), *cut(raw), *extended(raw)]:
            yield f"{name.number}: {what}", {str(name): changed}
            own = CheckpointName(name.device_id, name.number, hashlib.sha256(changed).digest())
            yield f"{name.number}: {what}, under its own name", {str(name): None, str(own): changed}


def test_every_bit_of_a_checkpoint(vault: HostileVault, attempts: Attempts) -> None:
    stream = Stream(vault.devices["ana"].device_id, vault.checkpoint_stream)
    for what, change in attempts.some(changed_checkpoints(vault), 200):
        try:
            ask_for_manifests(vault, vault.storage(change), stream)
        except Exception as exc:
            raise AssertionError(what) from exc


def changed_packs(vault: HostileVault) -> Iterator[tuple[str, str, bytes]]:
    """One pack with all of its parts; the footer in every bit."""
    name = pack_of_newest(vault)
    raw = vault.objects[name]
    for what, changed in [*sized(raw, ()), *flipped(raw, EVERY_BIT, len(raw) - PACK_FOOTER)]:
        yield what, name, changed


def pack_of_newest(vault: HostileVault) -> str:
    """The pack of ana's newest snapshots with blobs of most kinds."""
    ((reader, snapshot),) = newest(vault, "ana")

    def kinds(name: PackName) -> int:
        return len({entry.kind for entry in reader.open_pack(0, name).entries})

    packs = [parse(text) for text in vault.names(PackName)]
    mine = [one for one in packs if isinstance(one, PackName) and one.device_id == snapshot.header.device_id]
    return str(max(mine, key=kinds))


def newest(vault: HostileVault, name: str) -> list[tuple[VaultReader, Snapshot]]:
    reader = VaultReader([vault.storage()], vault.unlocked())
    device_id = vault.devices[name].device_id
    stream = Stream(device_id, vault.longest(name))
    return [(reader, next(reader.snapshots(reader.chain(stream))))]


def test_every_byte_of_a_pack(vault: HostileVault, attempts: Attempts) -> None:
    """Every blob is the true one or an error; and the pack as a whole is told as changed, whatever it was."""
    ((reader, snapshot),) = newest(vault, "ana")
    name = parse(pack_of_newest(vault))
    assert isinstance(name, PackName)
    wanted: dict[BlobKind, list[tuple[int, bytes]]] = {}
    for slot, entry in enumerate(reader.open_pack(0, name).entries):
        wanted.setdefault(BlobKind(entry.kind), []).append((slot, entry.id))
    true = {
        kind: dict(reader.open_pack(0, name).read_many(kind, slots, snapshot.ids)) for kind, slots in wanted.items()
    }
    assert len(true) >= 2
    for number, (what, text, changed) in enumerate(attempts.some(changed_packs(vault), 300)):
        provider = vault.storage({text: changed})
        attacked = VaultReader([provider], vault.opened)
        try:
            for kind, slots in wanted.items():
                refs = [BlobRef(name.sha256, slot, blob_id) for slot, blob_id in slots]
                try:
                    for ref, content in attacked.fetch_blobs(snapshot, kind, refs):
                        assert true[kind][ref.slot] == content
                except VaultError as exc:
                    check_error(exc)
            with pytest.raises(VaultError):
                attacked.open_pack(0, name).verify(snapshot.ids)
            if number % 100 == 0:
                ask(vault, provider, vault.opened)
        except Exception as exc:
            raise AssertionError(what) from exc


# --- a thief of a device's credential


def ask_about_a_thief(vault: HostileVault, objects: Mapping[str, bytes]) -> list[str]:
    """Adds forged objects of ben to storage: whatever they say, it ends in typed errors, and all other snapshots are
    what they were. Returns what was told."""
    provider = vault.storage(objects)
    answer = ask(vault, provider, vault.opened, forged=STREAM, noticed=False)
    for problem in scrub(provider, vault.vault_id).findings:
        check_error(problem)
    return answer.told


def true_body(vault: HostileVault, thief: Thief) -> list[object]:
    ((_, snapshot),) = newest(vault, "ben")
    body: list[object] = msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot.manifest))
    return body


def test_every_field_of_a_manifest(vault: HostileVault, attempts: Attempts) -> None:
    thief = Thief(vault.devices["ben"])
    body = true_body(vault, thief)
    for what, changed in attempts.some(mutated(body), 80):
        try:
            ask_about_a_thief(vault, dict([thief.manifest(STREAM, 1, bytes(32), changed)]))
        except Exception as exc:
            raise AssertionError(what) from exc


def test_every_byte_of_a_body(vault: HostileVault, attempts: Attempts) -> None:
    """The plaintext of a manifest changed and sealed and signed again."""
    thief = Thief(vault.devices["ben"])
    body = msgspec.msgpack.encode(true_body(vault, thief))
    variants = [*flipped(body, (0x01, 0x80)), *cut(body), *WRONG_MSGPACK, ("more", body + b"\xc0")]
    for what, changed in attempts.some(variants, 60):
        try:
            ask_about_a_thief(vault, dict([thief.manifest(STREAM, 1, bytes(32), changed)]))
        except Exception as exc:
            raise AssertionError(what) from exc


def test_every_byte_of_a_signed_manifest(vault: HostileVault, attempts: Attempts) -> None:
    """A header, capsule, commitment or sealed body changed and signed again: nobody gets at the body."""
    thief = Thief(vault.devices["ben"])
    _, raw = thief.manifest(STREAM, 1, bytes(32), true_body(vault, thief))
    stream = Stream(thief.credential.device_id, STREAM)
    for what, changed in attempts.some(sized(raw[:-64], ()), 150):
        forged = thief.sign(STREAM, 1, changed)
        try:
            answer = ask_for_manifests(vault, vault.storage(dict([forged])), stream)
        except Exception as exc:
            raise AssertionError(what) from exc
        assert answer.told, what


def true_part(vault: HostileVault, thief: Thief) -> list[object]:
    """A part that holds one of everything, on blobs that exist."""
    _, (ref, pages) = _blobs(thief)
    return part(
        entries=[[b"", 1], [b"dir", 2], [b"dir/file", 3], [b"link", 4], [b"db", 5], [b"gone", None]],
        files=[
            file_record(1, 0),
            file_record(2, 0, xattrs=[[b"user.a", b"b"]]),
            file_record(3, 1, size=13),
            file_record(4, 2, target=b"dir/file"),
            file_record(5, 3, size=512),
        ],
        contents=[[3, 13, 0, extent(3, 1, 0, ref.id) + hole(10)]],
        sections=[[5, 1, 512, 1, bytes(32), [[b"\0\1", 1, 1, pages.id]]]],
        packs=ref.pack,
    )


def _blobs(thief: Thief) -> tuple[tuple[str, bytes], tuple[BlobRef, BlobRef]]:
    if not hasattr(thief, "_made"):
        name, raw, sha256 = thief.pack([ForgedBlob(BlobKind.CHUNK, b"abc"), ForgedBlob(BlobKind.PAGES, b"p" * 512)])
        ids = [thief.ids.id(BlobKind.CHUNK, b"abc"), thief.ids.id(BlobKind.PAGES, b"p" * 512)]
        thief._made = ((name, raw), (BlobRef(sha256, 0, ids[0]), BlobRef(sha256, 1, ids[1])))  # type: ignore[attr-defined]
    made: tuple[tuple[str, bytes], tuple[BlobRef, BlobRef]] = thief._made  # type: ignore[attr-defined]
    return made


def changed_layers(vault: HostileVault, thief: Thief) -> Iterator[tuple[str, object]]:
    true = true_part(vault, thief)
    yield from mutated(true, most_in_a_list=99)
    raw = msgspec.msgpack.encode(true)
    yield from flipped(raw, (0x01, 0x80))
    yield from cut(raw)
    yield from WRONG_MSGPACK


def test_every_field_and_byte_of_a_layer(vault: HostileVault, attempts: Attempts) -> None:
    thief = Thief(vault.devices["ben"])
    made = dict([_blobs(thief)[0]])
    for what, changed in attempts.some(changed_layers(vault, thief), 100):
        raw = changed if isinstance(changed, bytes) else msgspec.msgpack.encode(changed)
        if not raw or len(raw) > MAX_BLOB:
            continue
        try:
            ask_about_a_thief(vault, made | thief.snapshot(STREAM, raw))
        except Exception as exc:
            raise AssertionError(what) from exc


NUMBERS = (0, 1, 2, 7, 8, 9, 16, 17, 24, 25, 4095, 65535, 65536, (1 << 20), (1 << 20) + 18, (1 << 31), (1 << 32) - 1)


def with_field(entry: Entry, field: str, number: int) -> Entry:
    return Entry._make(number if own == field else value for own, value in entry._asdict().items())


def lying_packs(thief: Thief) -> Iterator[tuple[str, tuple[str, bytes, bytes]]]:
    """Packs whose directory, capsule or footer is not true of what is in them."""
    content = b"\x96\x01\xc4\x00\x90\x90\x90\x90"
    blobs = [ForgedBlob(BlobKind.LAYER, content), ForgedBlob(BlobKind.CHUNK, b"abc"), ForgedBlob(BlobKind.CHUNK, b"")]
    ids = [thief.ids.id(BlobKind.LAYER, content), thief.ids.id(BlobKind.CHUNK, b"abc")]
    first, second = Entry(3, 8, 25, 8, ids[0]), Entry(1, 33, 20, 3, ids[1])
    third = Entry(1, 53, 17, 0, thief.ids.id(BlobKind.CHUNK, b""))
    for field in ("kind", "offset", "length", "raw_len"):
        for number in range(256) if field == "kind" else NUMBERS:
            yield f"{field} is {number}", thief.pack(blobs, entries=[with_field(first, field, number), second, third])
            yield (
                f"the last {field} is {number}",
                thief.pack(blobs, entries=[first, second, with_field(third, field, number)]),
            )
    yield "entries the other way round", thief.pack(blobs, entries=[third, second, first])
    yield "entries that overlap", thief.pack(blobs, entries=[first, first, first])
    yield "an entry less", thief.pack(blobs, entries=[first, second])
    yield "an entry more", thief.pack(blobs, entries=[first, second, third, third])
    yield "another id", thief.pack(blobs, entries=[first._replace(id=bytes(32)), second, third])
    yield "ids changed over", thief.pack(blobs, entries=[first._replace(id=ids[1]), second, third])
    for cut_to in (0, 1, 44, 45, 46, 134):
        yield f"directory of {cut_to}", thief.pack(blobs, directory=b"\1" * cut_to)
    for number in NUMBERS:
        for field in ("offset", "length", "blobs"):
            true = Place(0, 3 * 45 + 16, 3)
            yield f"place: {field} is {number}", thief.pack(blobs, place=true._replace(**{field: number}))
    own = thief.credential
    for what, public in {
        "another vault": Public(bytes(16), own.epoch, own.public.key_id, own.device_id),
        "epoch 0": Public(own.vault_id, 0, own.public.key_id, own.device_id),
        "the epoch before": Public(own.vault_id, own.epoch - 1, own.public.key_id, own.device_id),
        "a later epoch": Public(own.vault_id, own.epoch + 1, own.public.key_id, own.device_id),
        "the last epoch": Public(own.vault_id, (1 << 32) - 1, own.public.key_id, own.device_id),
        "another key": Public(own.vault_id, own.epoch, bytes(16), own.device_id),
        "another device": Public(own.vault_id, own.epoch, own.public.key_id, bytes(16)),
    }.items():
        yield what, thief.pack(blobs, public=public)
    for codec in range(256):
        yield f"codec {codec}", thief.pack([ForgedBlob(BlobKind.LAYER, content, codec), *blobs[1:]])
    yield "a pad that is not zero", thief.pack(blobs, pad=b"\1")
    for grow in (1, 8192, 1 << 20):
        yield f"a pad longer by {grow}", thief.pack(blobs, grow=grow)
    yield from ((f"a frame: {what}", thief.pack([blob, *blobs[1:]])) for what, blob in lying_frames(content))


def lying_frames(content: bytes) -> Iterator[tuple[str, ForgedBlob]]:
    frame = zstandard.ZstdCompressor(level=3).compress(content * 40)
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 26))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(content * 40)

    def blob(payload: bytes, raw_len: int) -> ForgedBlob:
        return ForgedBlob(BlobKind.LAYER, content * 40, 1, payload, raw_len)

    yield "of 64 MiB", blob(bomb, 1 << 26)
    yield "of 64 MiB that says 1 MiB", blob(bomb, 1 << 20)
    yield "of 64 MiB that says nothing", blob(bomb, 0)
    yield "without its size", blob(unsized, len(content) * 40)
    yield "two of them", blob(frame + frame, len(content) * 80)
    yield "and more", blob(frame + b"\0", len(content) * 40)
    yield "and a skippable one", blob(frame + b"\x50\x2a\x4d\x18\x04\0\0\0abcd", len(content) * 40)
    yield "only a skippable one", blob(b"\x50\x2a\x4d\x18\x04\0\0\0abcd", 40)
    for what, changed in [*flipped(frame), *cut(frame)]:
        yield what, blob(changed, len(content) * 40)
    for raw_len in NUMBERS:
        yield f"that says {raw_len}", blob(frame, raw_len)


def test_packs_that_lie(vault: HostileVault, attempts: Attempts) -> None:
    """The layer in them is asked for; what comes back is what its id says, or an error."""
    thief = Thief(vault.devices["ben"])
    good = thief.ids.id(BlobKind.LAYER, b"\x96\x01\xc4\x00\x90\x90\x90\x90")
    for what, (name, raw, sha256) in attempts.some(lying_packs(thief), 60):
        layer = [0, 1, 1, [[sha256, 0, good]]]
        forged = dict([(name, raw), thief.manifest(STREAM, 1, bytes(32), thief.body([layer], [[sha256, len(raw)]]))])
        try:
            ask_about_a_thief(vault, forged)
        except Exception as exc:
            raise AssertionError(what) from exc


def test_a_pack_of_another_device_is_not_reached(vault: HostileVault, attempts: Attempts) -> None:
    """Ben's manifest names Ana's packs: what a device names is looked for among its own."""
    thief = Thief(vault.devices["ben"])
    ((_, snapshot),) = newest(vault, "ana")
    for layer in attempts.all(snapshot.manifest.stack):
        raw_layer = msgspec.msgpack.decode(msgspec.msgpack.encode(layer))
        raw_layer[1:3] = [1, 1]
        told = ask_about_a_thief(vault, dict([thief.manifest(STREAM, 1, bytes(32), thief.body([raw_layer]))]))
        assert "unreadable" in told


def test_a_body_that_another_device_signs(vault: HostileVault, attempts: Attempts) -> None:
    """Ana's manifest taken over by Ben: header, capsule and body are bound to her device."""
    thief = Thief(vault.devices["ben"])
    for name in attempts.all(vault.manifests("ana")):
        raw = vault.objects.get(str(name))
        if raw is None:
            continue
        for signed in (raw[:-64], raw[:48] + thief.credential.device_id + raw[64:-64]):
            forged = thief.sign(name.stream_id, name.seq, signed)
            assert ask(vault, vault.storage(dict([forged])), vault.opened, forged=name.stream_id).told


def test_every_field_of_a_checkpoint_under_the_key_itself(vault: HostileVault, attempts: Attempts) -> None:
    """Whoever holds the key decides what lives; a form that no writer makes is refused all the same."""
    stream = Stream(vault.devices["ana"].device_id, vault.checkpoint_stream)
    key = vault.epochs.keys[-1].checkpoint
    name = vault.checkpoints[-1]
    raw = vault.objects[str(name)]
    variants = [*flipped(raw[:-64], EVERY_BIT), *cut(raw[:-64]), *extended(raw[:-64])]
    for what, changed in attempts.some(variants, 60):
        body = changed + key.sign(SIG_CHECKPOINT + hashlib.sha256(changed).digest())
        number = int.from_bytes(changed[60:68], "big") if len(changed) >= 68 else name.number
        if not 1 <= number < 10**12:
            number = name.number
        own = CheckpointName(name.device_id, number, hashlib.sha256(body).digest())
        try:
            # It may well be valid: another time, another hash. Then what it lets go is gone, and what is read is true.
            changes = {str(name): None} | {str(own): body}
            ask_for_manifests(vault, vault.storage(changes), stream, noticed=False, lossy=True)
        except Exception as exc:
            raise AssertionError(what) from exc
