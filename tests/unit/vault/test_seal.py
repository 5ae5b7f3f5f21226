"""The key schedule, the commitment, records; and the sizes that the format page and the code both state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatkeep.daemon.vault import labels
from chatkeep.daemon.vault.errors import AuthenticationFailed, DifferentKey
from chatkeep.daemon.vault.seal import RecordCipher, check_commitment, derive, open_once, seal_once

KEY, VAULT = bytes(range(32)), b"vault-of-a-test!"


def cipher(bound: bytes = b"bound") -> RecordCipher:
    return RecordCipher(derive(labels.PACK, KEY, VAULT, 1)[0], bound)


def sealed(index: int, kind: int, plain: bytes) -> bytes:
    out = bytearray(len(plain) + 16)
    cipher().seal_into(index, kind, plain, memoryview(out))
    return bytes(out)


def test_key_and_commitment_are_those_of_the_format_page() -> None:
    aead, commit = derive(labels.PACK, KEY, VAULT, 7)
    material = HKDF(SHA256(), 64, None, b"chatkeep/v1/pack\0" + VAULT + b"\0\0\0\7").derive(KEY)
    assert commit == material[32:]
    assert aead.encrypt(bytes(12), b"x", b"y") == AESGCM(material[:32]).encrypt(bytes(12), b"x", b"y")


def test_every_part_of_the_context_changes_the_commitment() -> None:
    contexts = [
        (labels.PACK, KEY, VAULT, 1),
        (labels.MANIFEST, KEY, VAULT, 1),
        (labels.PACK, bytes(32), VAULT, 1),
        (labels.PACK, KEY, bytes(16), 1),
        (labels.PACK, KEY, VAULT, 2),
    ]
    assert len({derive(*context)[1] for context in contexts}) == len(contexts)


def test_the_commitment_tells_another_key() -> None:
    commit = derive(labels.PACK, KEY, VAULT, 1)[1]
    check_commitment(commit, memoryview(commit), "pack")
    for other in (derive(labels.PACK, bytes(32), VAULT, 1)[1], commit[:-1], b""):
        with pytest.raises(DifferentKey):
            check_commitment(commit, other, "pack")


def test_a_record_is_the_one_of_the_format_page() -> None:
    aead = derive(labels.PACK, KEY, VAULT, 1)[0]
    expected = aead.encrypt(bytes(11) + b"\5", b"plain", b"bound" + b"\0\0\0\5" + b"\3")
    assert sealed(5, 3, b"plain") == expected


def test_a_record_opens_only_where_and_as_what_it_was_sealed() -> None:
    record = sealed(5, 3, b"plain")
    out = bytearray(5)
    cipher().open_into(5, 3, record, memoryview(out))
    assert bytes(out) == cipher().open(5, 3, record) == b"plain"
    for index, kind, bound in ((6, 3, b"bound"), (5, 2, b"bound"), (5, 3, b"bounD"), (0x0500, 3, b"bound")):
        with pytest.raises(AuthenticationFailed):
            cipher(bound).open(index, kind, record)
        with pytest.raises(AuthenticationFailed):
            cipher(bound).open_into(index, kind, record, memoryview(bytearray(5)))
    for short in (record[:-1], record[:15], b""):
        with pytest.raises(AuthenticationFailed):
            cipher().open(5, 3, short)


def test_what_is_sealed_once_is_bound() -> None:
    aead = derive(labels.MANIFEST, KEY, VAULT, 1)[0]
    body = seal_once(aead, b"body", b"header")
    assert open_once(aead, body, b"header", "manifest") == b"body"
    with pytest.raises(AuthenticationFailed):
        open_once(aead, body, b"another", "manifest")


def test_the_format_page_states_the_sizes_of_the_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "format.md").read_text("utf-8")

    def stated(pattern: str) -> int:
        match = re.search(pattern, page)
        assert match is not None, pattern
        return int(match[1])

    assert stated(r"footer, (\d+) bytes") == labels.PACK_FOOTER
    assert stated(r"entries of (\d+) bytes") == labels.DIRECTORY_ENTRY
    assert stated(r"capsule \((\d+)\) \\\| public") == labels.PACK_CAPSULE
    assert stated(r"public \((\d+)\) \\\| commit") == labels.PACK_PUBLIC
    assert stated(r"header, (\d+) bytes") == labels.MANIFEST_HEADER
    assert stated(r"header \| capsule \((\d+)\)") == labels.MANIFEST_CAPSULE
    assert stated(r"plaintext \+ (\d+) bytes") == labels.SEAL_OVERHEAD
    assert stated(r"At most (\d+) blobs") == labels.MAX_BLOBS
    assert stated(r"blobs and (\d+) MiB") << 20 == labels.MAX_PACK
    assert stated(r"brings it to (\d+) MiB") << 20 == labels.PACK_TARGET
    assert stated(r"at most 1 MiB \((\d+) bytes\)") == labels.MAX_BLOB
    assert stated(r"multiple of (\d+) KiB. Seq") << 10 == labels.MANIFEST_STEP
    assert stated(r"(\d+) layers of \d+ parts") == labels.MAX_STACK
    assert stated(r"layers of (\d+) parts") == labels.MAX_PARTS
    assert stated(r"(\d+) packs, each\nnamed once") == labels.MAX_NEW_PACKS
