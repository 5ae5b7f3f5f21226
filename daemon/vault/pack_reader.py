"""Reading packs out of storage that is not trusted (docs/format.md, section 10).

What a reader may rely on, and in this order: the commitment, then the tags, then the directory's shape, and for
content nothing but the blob id it was asked for, computed again over what was decompressed. Anyone who has the public
key of the vault can make a pack whose tags are right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from chatkeep.daemon.keys.errors import Unsealable
from chatkeep.daemon.keys.holding import OpeningKey
from chatkeep.daemon.keys.secret import Sensitive, take_over, wipe
from chatkeep.daemon.vault.blob import BlobKind, IdKeys, decompress
from chatkeep.daemon.vault.errors import AuthenticationFailed, Malformed, ObjectMismatch, VaultError, WrongVault
from chatkeep.daemon.vault.labels import KEY_SIZE, KIND_DIRECTORY, PACK, PACK_FOOTER
from chatkeep.daemon.vault.names import PackName
from chatkeep.daemon.vault.pack_layout import Entry, Footer, Layout, Place, check_whole, parse_directory
from chatkeep.daemon.vault.seal import RecordCipher, check_commitment, derive

Fetch: TypeAlias = Callable[[int, int | None], bytes]
"""`Provider.get` of one object: (offset, length); a negative offset asks for the last bytes."""

Opener: TypeAlias = Callable[[int, bytes], OpeningKey]
"""The key of (epoch, key id). Raises `UnknownKey`."""

TAIL: Final = 32 << 10
"""Read first. Holds the footer and the directory of any usual pack, and all of the smallest."""

MAX_GAP: Final = 64 << 10
"""Records this near to one another are fetched together: what lies between costs less than another request."""

MAX_RANGE: Final = 8 << 20
"""Most bytes fetched, and held, at a time."""


class PackReader(Sensitive):
    """One pack, opened: footer and directory were read and checked.

    Reads what it is asked for and nothing else; header, pad and padded size are looked at by `verify` alone. Not
    thread-safe in one generator; several threads may read.

    Args:
        fetch: reads ranges of the object.
        name: of the object; its device must be the one in the footer. The hash is checked by `verify` alone.
        vault_id: the vault that was unlocked.
        opener: finds the private key.

    Raises:
        Malformed, UnsupportedVersion: not a pack of this version, or cut short.
        WrongVault: of another vault.
        UnknownKey: sealed to a key the opener does not have.
        DifferentKey: the capsule's key is not the one it was sealed with.
        AuthenticationFailed: damaged or forged.
        ProviderError: as `fetch` raised it.
    """

    __slots__ = ("_fetch", "_layout", "_name")

    def __init__(self, fetch: Fetch, name: PackName, vault_id: bytes, opener: Opener) -> None:
        self._fetch: Final = fetch
        self._name: Final = name
        with _named(name):
            tail = memoryview(fetch(-TAIL, None))
            footer = Footer.parse(tail[-PACK_FOOTER:])
            cipher, place = open_capsule(footer, vault_id, name.device_id, opener)
            self._layout: Final = Layout(footer, place, self._directory(tail, cipher, place), cipher)
            # A tail that is shorter than asked for is the whole object, so its size is known.
            if min(len(tail), self._layout.size) < TAIL and len(tail) != self._layout.size:
                raise Malformed(what="pack", reason="size")

    @property
    def count(self) -> int:
        """Blobs in the pack."""
        return len(self._layout.entries)

    @property
    def size(self) -> int:
        """Bytes of the object, as its writer made it."""
        return self._layout.size

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The directory: authenticated with the pack's key, so true of what its maker says, whoever that is."""
        return tuple(self._layout.entries)

    def read(self, slot: int, kind: BlobKind, blob_id: bytes, ids: IdKeys) -> bytes:
        """The plaintext of one blob. Raises as `read_many` does."""
        for _, content in self.read_many(kind, [(slot, blob_id)], ids):
            return content
        raise AssertionError("read_many yields what it was asked for")

    def read_many(
        self, kind: BlobKind, wanted: Iterable[tuple[int, bytes]], ids: IdKeys
    ) -> Iterator[tuple[int, bytes]]:
        """Yields (slot, plaintext) for each (slot, id) wanted, in the order of slots, a slot once.

        Neighbouring records are fetched together. What is yielded has the kind and the id that were asked for.

        Raises:
            Malformed: no such slot, a record that no writer makes, or one cut short.
            AuthenticationFailed: another blob than wanted, damaged or forged.
        """
        by_slot: dict[int, bytes] = {}
        with _named(self._name):
            for slot, blob_id in wanted:
                if by_slot.setdefault(slot, blob_id) != blob_id:
                    raise AuthenticationFailed(what="blob", reason="id", slot=slot)
                self._check_entry(slot, kind, blob_id)
        for group in _together(sorted(by_slot), self._layout.entries):
            for slot, sealed in self._fetch_records(group):
                with _named(self._name):
                    content = self._open(slot, sealed)
                    ids.check(kind, content, by_slot[slot])
                yield slot, content

    def verify(self, ids: IdKeys | None = None) -> None:
        """Reads the whole object and checks every byte of it, pad and name included; with `ids`, all blob ids too.

        Raises as opening does, and `ObjectMismatch` when all is well but the hash.
        """
        with _named(self._name):
            # One byte more than it should have tells a longer object; never more is asked of a provider that lies.
            raw = memoryview(self._fetch(0, self._layout.size + 1))
            position = 0

            def take(size: int) -> memoryview:
                nonlocal position
                piece = raw[position : position + size]
                position += len(piece)
                return piece

            if check_whole(take, self._layout, ids) != self._name.sha256:
                raise ObjectMismatch(str(self._name))

    def _directory(self, tail: memoryview, cipher: RecordCipher, place: Place) -> list[Entry]:
        from_end = place.length + PACK_FOOTER
        if from_end <= len(tail):
            sealed: bytes | memoryview = tail[-from_end:-PACK_FOOTER]
        else:
            sealed = self._fetch(place.offset, place.length)
            if len(sealed) != place.length:
                raise Malformed(what="pack", reason="too-short")
        return parse_directory(cipher.open(place.blobs + 1, KIND_DIRECTORY, sealed), place)

    def _check_entry(self, slot: int, kind: BlobKind, blob_id: bytes) -> None:
        if not 0 <= slot < len(self._layout.entries):
            raise Malformed(what="pack", reason="slot", slot=slot)
        entry = self._layout.entries[slot]
        if entry.kind != kind:
            raise AuthenticationFailed(what="blob", reason="kind", slot=slot)
        if entry.id != blob_id:
            raise AuthenticationFailed(what="blob", reason="id", slot=slot)

    def _fetch_records(self, slots: list[int]) -> Iterator[tuple[int, memoryview]]:
        entries = self._layout.entries
        start, last = entries[slots[0]].offset, entries[slots[-1]]
        raw = memoryview(self._fetch(start, last.offset + last.length - start))
        for slot in slots:
            at = entries[slot].offset - start
            yield slot, raw[at : at + entries[slot].length]

    def _open(self, slot: int, sealed: memoryview) -> bytes:
        entry = self._layout.entries[slot]
        if len(sealed) != entry.length:
            raise Malformed(what="pack", reason="too-short", slot=slot)
        plain = memoryview(self._layout.cipher.open(slot, entry.kind, sealed))
        return bytes(decompress(plain[0], plain[1:], entry.raw_len))


def prove_footer(raw: bytes, name: PackName, vault_id: bytes, opener: Opener) -> None:
    """Proves that the capsule of a pack opens, from the pack's last 1276 bytes alone.

    The device that writes a pack cannot open it, so one flipped bit in a capsule would lose 16 MiB and show at the
    restore. Each footer is kept beside its pack's row, and proven here as soon as somebody unlocks. Raises as
    `PackReader` does.
    """
    with _named(name):
        open_capsule(Footer.parse(raw), vault_id, name.device_id, opener)


def open_capsule(footer: Footer, vault_id: bytes, device_id: bytes, opener: Opener) -> tuple[RecordCipher, Place]:
    """The cipher of a pack, and where its directory is. Raises as `PackReader` does."""
    public = footer.public
    if public.vault_id != vault_id:
        raise WrongVault(what="pack", found=public.vault_id.hex())
    if public.device_id != device_id:
        raise Malformed(what="pack", reason="device")
    private = opener(public.epoch, public.key_id)
    try:
        content = take_over(private.open(footer.capsule, public.capsule_info))
    except Unsealable as exc:
        raise AuthenticationFailed(what="pack", reason="capsule") from exc
    try:
        with memoryview(content) as view:
            aead, commit = derive(PACK, view[:KEY_SIZE], public.vault_id, public.epoch)
            check_commitment(commit, footer.commit, "pack")
            return RecordCipher(aead, public.record_context), Place.parse(bytes(view[KEY_SIZE:]))
    finally:
        wipe(content)


def _together(slots: list[int], entries: list[Entry]) -> Iterator[list[int]]:
    group: list[int] = []
    for slot in slots:
        entry = entries[slot]
        if group:
            first, last = entries[group[0]], entries[group[-1]]
            far = entry.offset - (last.offset + last.length) > MAX_GAP
            if far or entry.offset + entry.length - first.offset > MAX_RANGE:
                yield group
                group = []
        group.append(slot)
    if group:
        yield group


@contextlib.contextmanager
def _named(name: PackName) -> Iterator[None]:
    try:
        yield
    except VaultError as exc:
        exc.params.setdefault("name", str(name))
        raise
