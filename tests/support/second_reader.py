"""A second reader of packs and manifests, written from docs/format.md alone.

It uses nothing of the product: what both readers agree on is what the page says. Checks nothing that a damaged object
could break, so it is no example for anybody.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

P = b"chatkeep/v1/"
KINDS = {1: "chunk", 2: "pages", 3: "layer"}


def hkdf(secret: bytes, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, None, info).derive(secret)


def private_of(root: bytes) -> hpke.MLKEM768X25519PrivateKey:
    expanded = hashlib.shake_256(hkdf(root, P + b"open\0", 32)).digest(96)
    return hpke.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])
    )


def unseal(root: bytes, sealed: bytes, info: bytes) -> bytes:
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    return suite.decrypt(sealed, private_of(root), info=info)


class Blob(NamedTuple):
    kind: str
    id: bytes
    content: bytes


def read_pack(raw: bytes, root: bytes, id_key: bytes) -> list[Blob]:
    footer = raw[-1276:]
    capsule, public, commit, end = footer[:1184], footer[1184:1236], footer[1236:1268], footer[1268:]
    assert (raw[:8], end) == (b"CKPACK\0\1", b"CKPEND\0\1")
    vault, epoch = public[:16], public[16:20]
    opened = unseal(root, capsule, P + b"pack\0" + public)
    offset, length, count = (int.from_bytes(opened[a:b], "big") for a, b in ((32, 40), (40, 44), (44, 48)))
    keys = hkdf(opened[:32], P + b"pack\0" + vault + epoch, 64)
    assert keys[32:] == commit
    aead = AESGCM(keys[:32])

    def record(index: int, kind: int, sealed: bytes) -> bytes:
        bound = b"CKPACK\0\1" + vault + epoch + index.to_bytes(4, "big") + bytes([kind])
        return aead.decrypt(index.to_bytes(12, "big"), sealed, bound)

    directory = record(count + 1, 0xFF, raw[offset : offset + length])
    blobs, at = [], 8
    for index in range(count):
        entry = directory[45 * index : 45 * index + 45]
        start, size, plain_size = (int.from_bytes(entry[a : a + 4], "big") for a in (1, 5, 9))
        assert start == at
        at += size
        plain = record(index, entry[0], raw[start:at])
        content = plain[1:] if plain[0] == 0 else zstandard.decompress(plain[1:])
        assert len(content) == plain_size
        kind = KINDS[entry[0]]
        key = blake3(id_key, derive_key_context=f"chatkeep v1 id {kind}").digest()
        assert blake3(content, key=key).digest() == entry[13:]
        blobs.append(Blob(kind, entry[13:], content))
    assert not any(record(count, 0xFE, raw[at:offset]))
    assert offset + length + 1276 == len(raw)
    return blobs


def read_manifest(raw: bytes, root: bytes, device_key: bytes) -> tuple[dict[str, Any], list[Any]]:
    header, capsule, commit = raw[:132], raw[132:1300], raw[1300:1332]
    signed = hashlib.sha256(raw[:-64]).digest()
    Ed25519PublicKey.from_public_bytes(device_key).verify(raw[-64:], P + b"sig/manifest\0" + signed)
    assert header[:8] == b"CKSNAP\0\1"
    said = {
        "vault": header[8:24],
        "epoch": int.from_bytes(header[24:28], "big"),
        "device": header[44:60],
        "stream": header[60:76],
        "seq": int.from_bytes(header[76:84], "big"),
        "prev": header[84:116],
    }
    key = unseal(root, capsule, P + b"manifest\0" + header)
    keys = hkdf(key, P + b"manifest\0" + header[8:28], 64)
    assert keys[32:] == commit
    plain = AESGCM(keys[:32]).decrypt(bytes(12), raw[1332:-64], header)
    length = int.from_bytes(plain[:4], "big")
    assert not any(plain[4 + length :])
    assert len(raw) % 8192 == 0
    body = msgspec.msgpack.decode(plain[4 : 4 + length])
    assert isinstance(body, list)
    return said, body
