"""Manifests: one for each snapshot, chained, sealed and signed (docs/format.md, section 13). Pure.

Two questions, two steps, two types. *Whose is it, and is it whole?* needs no secret: `verify_manifest` answers it from
the name, the header and the signature. *What does it say?* needs the vault's key: `open_manifest` takes nothing but a
`VerifiedManifest`, so a body is never believed that no certified device signed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, Self

import msgspec

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.errors import SignatureInvalid, Unsealable
from chatkeep.daemon.keys.holding import OpeningKey
from chatkeep.daemon.keys.root import VerifyKey
from chatkeep.daemon.keys.secret import Buffer, random_secret, take_over, wipe
from chatkeep.daemon.vault.blob import BlobRef, Hash, IdKeys
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import DeviceCert
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    Malformed,
    ObjectMismatch,
    SelfCheckFailed,
    UnknownKey,
    UnsupportedVersion,
    WrongVault,
)
from chatkeep.daemon.vault.labels import (
    HASH_SIZE,
    KEY_SIZE,
    MANIFEST,
    MANIFEST_CAPSULE,
    MANIFEST_HEAD,
    MANIFEST_HEADER,
    MANIFEST_MAGIC,
    MANIFEST_STEP,
    MAX_MANIFEST,
    MAX_NEW_PACKS,
    MAX_PACK,
    MAX_PARTS,
    MAX_STACK,
    SIG_MANIFEST,
    SIGNATURE_SIZE,
    TAG_SIZE,
)
from chatkeep.daemon.vault.names import MAX_EPOCH, MAX_SEQ, ManifestName
from chatkeep.daemon.vault.padding import padded_manifest_size
from chatkeep.daemon.vault.seal import check_commitment, derive, open_once, seal_once

VERSION: Final = 1
COMPLETE: Final = 1
GROUP: Final = 2
NO_PREVIOUS: Final = bytes(HASH_SIZE)

_HEADER: Final = struct.Struct(">8s16sI16s16s16sQ32s16s")
_LENGTH: Final = struct.Struct(">I")
_AROUND: Final = MANIFEST_HEAD + TAG_SIZE + SIGNATURE_SIZE  # all but the plaintext of the body

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Seq = Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]
_Text = Annotated[str, msgspec.Meta(max_length=255)]


@dataclass(frozen=True, slots=True)
class Header:
    """What a manifest says in the clear. `prev` is the hash of the manifest before, zeros for the first of a stream."""

    vault_id: bytes
    epoch: int
    key_id: bytes
    device_id: bytes
    stream_id: bytes
    seq: int
    prev: bytes

    def encode(self) -> bytes:
        """The 132 bytes."""
        return _HEADER.pack(
            MANIFEST_MAGIC,
            self.vault_id,
            self.epoch,
            self.key_id,
            self.device_id,
            self.stream_id,
            self.seq,
            self.prev,
            b"",
        )

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Raises `Malformed` or `UnsupportedVersion`."""
        magic, *fields, reserved = _HEADER.unpack(raw)
        if magic != MANIFEST_MAGIC:
            if magic[:-1] == MANIFEST_MAGIC[:-1]:
                raise UnsupportedVersion(what="manifest", version=magic[-1])
            raise Malformed(what="manifest", reason="no-header")
        header = cls(*fields)
        if reserved.strip(b"\0"):
            raise Malformed(what="manifest", reason="reserved")
        if not 1 <= header.epoch <= MAX_EPOCH or not 1 <= header.seq <= MAX_SEQ:
            raise Malformed(what="manifest", reason="number")
        if (header.prev == NO_PREVIOUS) != (header.seq == 1):
            raise Malformed(what="manifest", reason="previous")
        return header


class StackLayer(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A layer of the stack: level 0 to 3, the snapshots it covers, and where its parts are."""

    level: Annotated[int, msgspec.Meta(ge=0, le=3)]
    first_seq: _Seq
    last_seq: _Seq
    parts: Annotated[tuple[BlobRef, ...], msgspec.Meta(min_length=1, max_length=MAX_PARTS)]


class NewPack(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A pack that this snapshot introduced, and its size in bytes."""

    sha256: Hash
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_PACK)]


class Statistics(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the snapshot holds and what it cost: a number of files, and bytes."""

    files: _Count
    source_bytes: _Count
    bytes_read: _Count
    new_plaintext: _Count
    new_packs: _Count


class Manifest(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a manifest. Times are nanoseconds since 1970 UTC.

    Attributes:
        time: of the snapshot; never less than that of the one before.
        clock: of the device, at the capture.
        id_key: a secret of the device: with it, who holds a file can tell whether it is in the vault.
        epoch_record: hash of the record the device had pinned.
        flags: `COMPLETE` nothing is pending; `GROUP` all databases are of one moment.
        stack: layers, newest first.
        packs: introduced by this snapshot.
        databases, pending, busy: numbers of files.
        set_digest: over the page-table digests of all complete databases.
    """

    version: int = VERSION
    time: _Count
    clock: _Count
    source_name: _Text
    source_path: Annotated[bytes, msgspec.Meta(max_length=4096)]
    host: _Text
    id_key: Annotated[bytes, msgspec.Meta(min_length=KEY_SIZE, max_length=KEY_SIZE)]
    epoch_record: Hash
    flags: Annotated[int, msgspec.Meta(ge=0, le=COMPLETE | GROUP)]
    stack: Annotated[tuple[StackLayer, ...], msgspec.Meta(max_length=MAX_STACK)]
    packs: Annotated[tuple[NewPack, ...], msgspec.Meta(max_length=MAX_NEW_PACKS)]
    databases: _Count
    pending: _Count
    busy: _Count
    set_digest: Hash
    statistics: Statistics

    def __repr__(self) -> str:
        return f"Manifest(time={self.time})"  # the generated one would show the id key

    @property
    def complete(self) -> bool:
        """Whether nothing of the source is pending."""
        return bool(self.flags & COMPLETE)

    @property
    def group(self) -> bool:
        """Whether all databases are of one moment."""
        return bool(self.flags & GROUP)

    def ids(self) -> IdKeys:
        """The keys for the ids of this device's blobs."""
        return IdKeys(self.id_key)


@dataclass(frozen=True, slots=True)
class VerifiedManifest:
    """A whole manifest that a certified device signed. Made by `verify_manifest` alone; its body is still sealed."""

    header: Header
    name: ManifestName
    raw: bytes = field(repr=False)


def seal_manifest(manifest: Manifest, stream_id: bytes, seq: int, prev: bytes, credential: WriterCredential) -> bytes:
    """The object: sealed to the pinned epoch's key and signed by the device.

    It is read back before it is returned, but for the capsule, which only an unlocked vault opens. `prev` is the hash
    of the manifest before it in the stream, 32 zero bytes for the first.

    Raises:
        Malformed: the manifest breaks a bound of the format, or is longer than 64 MiB.
        SelfCheckFailed: what was sealed does not read back: a fault of this machine.
    """
    if manifest.id_key != credential.id_key.view() or manifest.epoch_record != credential.pin.sha256:
        raise AssertionError("a manifest of another device or epoch")
    public = credential.public
    header = Header(credential.vault_id, credential.epoch, public.key_id, credential.device_id, stream_id, seq, prev)
    body = encode_body(manifest, header)
    if _AROUND + _LENGTH.size + len(body) > MAX_MANIFEST:
        raise Malformed(what="manifest", reason="too-long")
    key = random_secret(KEY_SIZE)
    try:
        raw = _seal(header, body, key, credential)
        _self_check(raw, header, body, key, credential)
    finally:
        wipe(key)
    return raw


def verify_manifest(raw: bytes, name: ManifestName, cert: DeviceCert) -> VerifiedManifest:
    """Checks, without any secret, that `raw` is the object of this name and that the device of `cert` signed it.

    Raises:
        ObjectMismatch: its bytes hash to something else: damaged, cut short, or another object.
        Malformed, UnsupportedVersion: not a manifest of this version, or not the one its name says.
        WrongVault: of another vault than the certificate.
        AuthenticationFailed: not signed by this device.
    """
    if hashlib.sha256(raw).digest() != name.sha256:
        raise ObjectMismatch(str(name))
    header = _verify_whole(raw, cert.vault_id, cert.key)
    if (header.device_id, header.stream_id, header.seq) != (name.device_id, name.stream_id, name.seq):
        raise Malformed(what="manifest", reason="name", name=str(name))
    if header.device_id != cert.device_id:
        raise AuthenticationFailed(what="manifest", reason="device", name=str(name))
    return VerifiedManifest(header, name, raw)


def open_manifest(verified: VerifiedManifest, private: OpeningKey) -> Manifest:
    """The body. `private` is the key of the epoch in the header.

    Raises:
        UnknownKey: sealed to another key.
        AuthenticationFailed: the capsule or the body was not sealed as the header says.
        DifferentKey: the capsule's key is not the one the body was sealed with.
        Malformed, UnsupportedVersion: a body that no writer of this version makes.
    """
    header = verified.header
    if private.public.key_id != header.key_id:
        raise UnknownKey(what="manifest", epoch=header.epoch, key=header.key_id.hex())
    view = memoryview(verified.raw)
    key = _open_capsule(view, private)
    try:
        body = _open_body(view, key, header)
    finally:
        wipe(key)
    return decode_body(body, header)


def prove_manifest_head(head: bytes, opener: Callable[[int, bytes], OpeningKey]) -> Header:
    """Proves that the capsule of a manifest opens, from the manifest's first 1332 bytes alone; returns its header.

    The device that writes a manifest cannot open it, so one flipped bit in a capsule would lose the snapshot and show
    at the restore. The beginning is kept beside the manifest's row, and proven here as soon as somebody unlocks.
    `opener` finds the key of (epoch, key id). Whose vault, device and stream it is, the caller compares.

    Raises:
        Malformed, UnsupportedVersion: not the beginning of a manifest of this version.
        UnknownKey, VaultLocked: as `opener` raised it.
        AuthenticationFailed: the capsule does not open, or was sealed for another header.
        DifferentKey: the capsule's key is not the one of the commitment.
    """
    if len(head) != MANIFEST_HEAD:
        raise Malformed(what="manifest", reason="too-short")
    view = memoryview(head)
    header = Header.parse(view[:MANIFEST_HEADER])
    key = _open_capsule(view, opener(header.epoch, header.key_id))
    try:
        _, commit = derive(MANIFEST, key, header.vault_id, header.epoch)
    finally:
        wipe(key)
    check_commitment(commit, view[-HASH_SIZE:], "manifest")
    return header


def encode_body(manifest: Manifest, header: Header) -> bytes:
    """The msgpack of a manifest that a reader will accept. Raises `Malformed`."""
    try:
        body = msgspec.msgpack.encode(manifest)
    except (UnicodeEncodeError, OverflowError) as exc:
        raise Malformed(what="manifest", reason="body") from exc
    decode_body(body, header)
    return body


def decode_body(body: Buffer, header: Header) -> Manifest:
    """The manifest in `body`, every bound checked. Raises `Malformed` or `UnsupportedVersion`."""
    try:
        manifest = msgspec.msgpack.decode(body, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:  # of the former ValidationError is one
        raise Malformed(what="manifest", reason="body") from exc
    if manifest.version != VERSION:
        raise UnsupportedVersion(what="manifest", version=manifest.version)
    if manifest.time < manifest.clock or (manifest.complete and manifest.pending):
        raise Malformed(what="manifest", reason="contradiction")
    if len({pack.sha256 for pack in manifest.packs}) != len(manifest.packs):
        raise Malformed(what="manifest", reason="packs")
    parts = [part for layer in manifest.stack for part in layer.parts]
    if len(set(parts)) != len(parts):
        # One part named a million times would be read, and held, a million times.
        raise Malformed(what="manifest", reason="parts")
    newest = header.seq
    for layer in manifest.stack:
        if not layer.first_seq <= layer.last_seq <= newest:
            raise Malformed(what="manifest", reason="stack")
        newest = layer.last_seq
    return manifest


def _seal(header: Header, body: bytes, key: bytearray, credential: WriterCredential) -> bytes:
    bound = header.encode()
    aead, commit = derive(MANIFEST, key, header.vault_id, header.epoch)
    plain = _LENGTH.pack(len(body)) + body
    plain += bytes(padded_manifest_size(_AROUND + len(plain)) - _AROUND - len(plain))
    capsule = credential.public.seal(key, MANIFEST + bound)
    signed = bound + capsule + commit + seal_once(aead, plain, bound)
    return signed + credential.device_key.sign(SIG_MANIFEST + hashlib.sha256(signed).digest())


def _self_check(raw: bytes, header: Header, body: bytes, key: bytearray, credential: WriterCredential) -> None:
    try:
        if _verify_whole(raw, credential.vault_id, credential.device_key.public) != header:
            raise Malformed(what="manifest", reason="header")
        if _open_body(memoryview(raw), key, header) != body:
            raise Malformed(what="manifest", reason="body")
    except ChatkeepError as exc:
        raise SelfCheckFailed(what="manifest", reason=exc.code) from exc


def _verify_whole(raw: bytes, vault_id: bytes, device_key: VerifyKey) -> Header:
    if not _AROUND < len(raw) <= MAX_MANIFEST or len(raw) % MANIFEST_STEP:
        raise Malformed(what="manifest", reason="size")
    header = Header.parse(raw[:MANIFEST_HEADER])
    if header.vault_id != vault_id:
        raise WrongVault(what="manifest", found=header.vault_id.hex())
    signed = hashlib.sha256(memoryview(raw)[:-SIGNATURE_SIZE]).digest()
    try:
        device_key.verify(raw[-SIGNATURE_SIZE:], SIG_MANIFEST + signed, "manifest")
    except SignatureInvalid as exc:
        raise AuthenticationFailed(what="manifest", reason=exc.code) from exc
    return header


def _open_capsule(view: memoryview, private: OpeningKey) -> bytearray:
    """The key, for the caller to wipe."""
    capsule = view[MANIFEST_HEADER : MANIFEST_HEADER + MANIFEST_CAPSULE]
    try:
        return take_over(private.open(capsule, MANIFEST + bytes(view[:MANIFEST_HEADER])))
    except Unsealable as exc:
        raise AuthenticationFailed(what="manifest", reason="capsule") from exc


def _open_body(view: memoryview, key: Buffer, header: Header) -> memoryview:
    aead, commit = derive(MANIFEST, key, header.vault_id, header.epoch)
    check_commitment(commit, view[MANIFEST_HEAD - HASH_SIZE : MANIFEST_HEAD], "manifest")
    plain = memoryview(open_once(aead, view[MANIFEST_HEAD:-SIGNATURE_SIZE], view[:MANIFEST_HEADER], "manifest"))
    end = _LENGTH.size + _LENGTH.unpack(plain[: _LENGTH.size])[0]
    if end > len(plain) or any(plain[end:]):
        raise Malformed(what="manifest", reason="padding")
    return plain[_LENGTH.size : end]
