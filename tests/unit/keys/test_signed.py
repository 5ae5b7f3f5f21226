"""Signed texts: what was signed is what is read, and there is one way to write it."""

from __future__ import annotations

from typing import Any

import pytest

from chatkeep.daemon.keys import strict_json as js
from chatkeep.daemon.keys.errors import SignatureInvalid, TextMalformed, TextVersion
from chatkeep.daemon.keys.root import SigningKey
from chatkeep.daemon.keys.signed import LIMITS, read_text, sign_text, split_text

KEY = SigningKey(b"k" * 32)
VAULT = bytes(range(16))
LINES = [b'{"v":1}', b'{"w": 2}']
TEXT = sign_text("slot", VAULT, LINES, KEY)


def test_round_trip() -> None:
    assert read_text("slot", TEXT, VAULT, KEY.public, 2) == LINES


def test_signature_covers_the_documented_bytes() -> None:
    body = b'{"v":1}\n{"w": 2}\n'
    message = b"chatkeep/v1/sig/slot\0" + VAULT + len(body).to_bytes(4, "big") + body
    split = split_text("slot", TEXT, 2)
    assert split.signature == KEY.sign(message)
    assert split.key_id == KEY.public.key_id


def test_another_key_kind_or_vault_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        read_text("slot", TEXT, VAULT, SigningKey(b"l" * 32).public, 2)
    with pytest.raises(SignatureInvalid):
        read_text("epoch", TEXT, VAULT, KEY.public, 2)
    with pytest.raises(SignatureInvalid):
        read_text("slot", TEXT, bytes(16), KEY.public, 2)


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(TEXT)):
        for bit in range(8):
            changed = bytearray(TEXT)
            changed[position] ^= 1 << bit
            with pytest.raises((SignatureInvalid, TextMalformed)):
                read_text("slot", bytes(changed), VAULT, KEY.public, 2)


def test_white_space_is_signed_too() -> None:
    with pytest.raises(SignatureInvalid):
        read_text("slot", TEXT.replace(b'"w": 2', b'"w":2'), VAULT, KEY.public, 2)


def test_lines_do_not_flow_into_each_other() -> None:
    moved = TEXT.replace(b'{"v":1}\n{', b'{"v":1}{\n', 1)
    assert moved != TEXT
    with pytest.raises(SignatureInvalid):
        read_text("slot", moved, VAULT, KEY.public, 2)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        TEXT[:-1],
        TEXT + b"\n",
        TEXT + b"x",
        TEXT + TEXT,
        b"\n" + TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"sig ", b"sig  "),
        TEXT.replace(b"sig ", b"SIG "),
        TEXT[: TEXT.index(b"sig ")],
    ],
)
def test_another_shape_is_malformed(text: bytes) -> None:
    with pytest.raises(TextMalformed):
        read_text("slot", text, VAULT, KEY.public, 2)


def test_number_of_lines_is_fixed() -> None:
    for n in (0, 1, 3):
        with pytest.raises(TextMalformed):
            read_text("slot", TEXT, VAULT, KEY.public, n)


def test_stray_bits_of_the_signature_are_refused() -> None:
    # 64 bytes in 86 characters leave four bits of the last one unused: sixteen spellings, one of them ours.
    spellings = 0
    for character in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        try:
            read_text("slot", TEXT[:-2] + bytes([character]) + b"\n", VAULT, KEY.public, 2)
            spellings += 1
        except (TextMalformed, SignatureInvalid):
            pass
    assert spellings == 1


def test_too_long_is_refused_before_anything_else() -> None:
    with pytest.raises(TextMalformed) as caught:
        split_text("slot", b"\n" * (LIMITS["slot"] + 1), 2)
    assert caught.value.params["reason"] == "too-long"
    with pytest.raises(TextMalformed):
        sign_text("slot", VAULT, [b"x" * LIMITS["slot"]], KEY)


SPEC: js.Spec = {
    "v": js.exactly(1),
    "id": js.hexadecimal(2),
    "data": js.b64(4),
    "n": js.integer(1, 9),
    "kind": js.one_of("a", "b"),
    "maybe": js.optional(js.row(js.integer(0, 5), js.hexadecimal(1))),
    "map": js.table(1, js.nested({"x": js.integer(0, 1)}), 2),
}
GOOD = b'{"v":1,"id":"00ff","data":"AAECAw","n":9,"kind":"b","maybe":[5,"0a"],"map":{"0b":{"x":1}}}'


def test_object_reads() -> None:
    assert js.parse_object(GOOD, SPEC, "test") == {
        "v": 1,
        "id": b"\0\xff",
        "data": b"\0\1\2\3",
        "n": 9,
        "kind": "b",
        "maybe": (5, b"\x0a"),
        "map": {b"\x0b": {"x": 1}},
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"n":9', b'"n":10'),
        (b'"n":9', b'"n":0'),
        (b'"n":9', b'"n":true'),
        (b'"n":9', b'"n":"9"'),
        (b'"n":9', b'"n":9.0'),
        (b'"n":9', b'"n":9e0'),
        (b'"n":9', b'"n":NaN'),
        (b'"n":9', b'"n":' + b"9" * 5000),
        (b'"n":9', b'"n":9,"n":9'),
        (b'"n":9', b'"n":9,"o":1'),
        (b'"n":9,', b""),
        (b'"n":9', b'"n":' + "\uff19".encode()),
        (b'"v":1', b'"v":true'),
        (b'"v":1', b'"v":0'),
        (b'"v":1', b'"v":null'),
        (b"00ff", b"00FF"),
        (b"00ff", b"00f"),
        (b"00ff", b"00ff00"),
        (b"00ff", b"0 ff"),
        (b"00ff", "00f\u0663".encode()),
        (b"AAECAw", b"AAECAx"),
        (b"AAECAw", b"AAECAw=="),
        (b"AAECAw", b"AAEC+w"),
        (b"AAECAw", b"AAECA"),
        (b"AAECAw", b"AAECAwA"),
        (b"AAECAw", b"AAEC\\nAw"),
        (b'"AAECAw"', b"7"),
        (b'"b"', b'"c"'),
        (b'"b"', b'["b"]'),
        (b'[5,"0a"]', b'[5,"0a",1]'),
        (b'[5,"0a"]', b"[5]"),
        (b'[5,"0a"]', b"{}"),
        (b'{"x":1}', b'{"x":1,"x":1}'),
        (b'{"x":1}', b"[]"),
        (b'"0b"', b'"0B"'),
        (b'{"0b":{"x":1}}', b'{"0b":{"x":1},"0c":{"x":1},"0d":{"x":1}}'),
        (b'{"0b":{"x":1}}', b'{"0b":{"x":1},"0b":{"x":0}}'),
        (GOOD, b""),
        (GOOD, b"[]"),
        (GOOD, b"null"),
        (GOOD, GOOD + b"{}"),
        (GOOD, b"[" * 60_000),
        (GOOD, b"\xef\xbb\xbf" + GOOD),
        (b'"b"', b'"\xff"'),
    ],
)
def test_any_other_object_is_malformed(old: bytes, new: bytes) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(TextMalformed):
        js.parse_object(GOOD.replace(old, new), SPEC, "test")


def test_key_at_fault_is_named() -> None:
    with pytest.raises(TextMalformed) as caught:
        js.parse_object(GOOD.replace(b'{"x":1}', b'{"x":2}'), SPEC, "test")
    assert caught.value.params["key"] == "map.0b.x"


def test_later_version_is_told_before_its_unknown_keys() -> None:
    with pytest.raises(TextVersion) as caught:
        js.parse_object(b'{"v":2,"new":0}', SPEC, "test")
    assert caught.value.params["version"] == 2


def test_writer_and_reader_agree() -> None:
    values: dict[str, Any] = {"v": 1, "id": "00ff"}
    line = js.write_object(values)
    assert js.parse_object(line, {"v": js.exactly(1), "id": js.hexadecimal(2)}, "test") == {"v": 1, "id": b"\0\xff"}
