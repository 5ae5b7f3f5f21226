"""Changes to bytes and to JSON: what somebody who holds the storage can do to an object without any key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

Variant = tuple[str, bytes]
"""What was done, and the result."""

EVERY_BIT = tuple(1 << bit for bit in range(8))


def flipped(raw: bytes, masks: Sequence[int] = EVERY_BIT, start: int = 0) -> Iterator[Variant]:
    """Every byte changed by each mask; without masks by one bit, another from place to place."""
    for place in range(start, len(raw)):
        for mask in masks or (1 << place % 8,):
            changed = bytearray(raw)
            changed[place] ^= mask
            yield f"byte {place} ^ {mask:#x}", bytes(changed)


def cut(raw: bytes, lengths: Iterator[int] | range | None = None) -> Iterator[Variant]:
    """Every shorter length, or these."""
    for length in range(len(raw)) if lengths is None else lengths:
        yield f"cut to {length}", raw[:length]


def extended(raw: bytes) -> Iterator[Variant]:
    """Longer, at either end."""
    for tail in (b"\0", b"\n", b" ", b"{}", b"\xff", bytes(8192), bytes(1 << 20), raw):
        yield f"{len(tail)} bytes more", raw + tail
        yield f"{len(tail)} bytes before", tail + raw
    yield "a byte inserted", raw[: len(raw) // 2] + b"\0" + raw[len(raw) // 2 :]
    yield "a byte left out", raw[: len(raw) // 2] + raw[len(raw) // 2 + 1 :]


DEEP = "[" * 100_000 + "]" * 100_000
STRANGE: Sequence[tuple[str, str]] = [
    ("null", "null"),
    ("true", "true"),
    ("zero", "0"),
    ("one", "1"),
    ("minus one", "-1"),
    ("a fraction", "1.5"),
    ("one as a fraction", "1.0"),
    ("an exponent", "1e400"),
    ("NaN", "NaN"),
    ("Infinity", "-Infinity"),
    ("2^31", str(1 << 31)),
    ("2^32", str(1 << 32)),
    ("2^64", str(1 << 64)),
    ("4000 digits", "9" * 4000),
    ("20000 digits", "9" * 20_000),
    ("empty text", '""'),
    ("text", '"x"'),
    ("long text", '"' + "a" * 5000 + '"'),
    ("zeros in hex", '"' + "0" * 64 + '"'),
    ("zeros in short hex", '"' + "0" * 32 + '"'),
    ("capital hex", '"' + "AB" * 16 + '"'),
    ("hex with spaces", '"' + "ab " * 16 + '"'),
    ("other digits", '"\\u0663\\u0663"'),
    ("half a character", '"\\ud800"'),
    ("NUL", '"\\u0000"'),
    ("padding", '"AAAA===="'),
    ("an empty list", "[]"),
    ("a list", "[1,2]"),
    ("an empty object", "{}"),
    ("an object", '{"a":{"b":1}}'),
    ("an object with a key twice", '{"a":1,"a":1}'),
    ("nested a hundred thousand deep", DEEP),
    ("nested objects", '{"a":' * 20_000 + "1" + "}" * 20_000),
]


def lines_of(line: bytes) -> Iterator[Variant]:
    """One line that holds a JSON object, changed as JSON: every key missing, twice, renamed, with strange values."""
    fields: dict[str, object] = json.loads(line)
    spelled = {key: json.dumps(value, separators=(",", ":")) for key, value in fields.items()}

    def line_with(pairs: Sequence[tuple[str, str]]) -> bytes:
        return ("{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in pairs) + "}").encode()

    pairs = list(spelled.items())
    for place, (key, value) in enumerate(pairs):
        rest = pairs[:place] + pairs[place + 1 :]
        yield f"without {key}", line_with(rest)
        yield f"{key} twice, the same", line_with([*pairs, (key, value)])
        yield f"{key} twice, another first", line_with([(key, "null"), *pairs])
        yield (
            f"{key} twice, spelled with an escape",
            line_with(pairs)[:-1]
            + (',"' + "".join(f"\\u{ord(letter):04x}" for letter in key) + f'":{value}}}').encode(),
        )
        yield f"{key} in capitals", line_with([*rest, (key.upper(), value)])
        yield f"{key} and NUL", line_with([*rest, (key + "\0", value)])
        for what, strange in STRANGE:
            if strange != value:
                yield f"{key} is {what}", line_with([*pairs[:place], (key, strange), *pairs[place + 1 :]])
        if isinstance(fields[key], str):
            text = str(fields[key])
            for what, other in (
                ("shorter", text[:-1]),
                ("longer", text + "0"),
                ("in capitals", text.upper()),
                ("padded", text + "="),
                ("with a line feed", text + "\n"),
                ("with plus and slash", text.replace("-", "+").replace("_", "/")),
                ("with stray bits", text[:-1] + ("B" if text[-1:] == "A" else chr(ord(text[-1:] or "A") ^ 1))),
            ):
                if other != text:
                    yield f"{key} {what}", line_with([*pairs[:place], (key, json.dumps(other)), *pairs[place + 1 :]])
    yield "an unknown key", line_with([*pairs, ("more", "1")])
    yield "ten thousand unknown keys", line_with([*pairs, *((f"k{n}", "0") for n in range(4000))])
    for what, other_line in (
        ("keys the other way round", line_with(pairs[::-1])),
        ("spaces", line.replace(b",", b", ")),
        ("a carriage return", line + b"\r"),
        ("a mark of byte order", b"\xef\xbb\xbf" + line),
        ("invalid UTF-8", line[:-1] + b',"\xff":1}'),
        ("an overlong letter", line.replace(b"v", b"\xc1\xb6", 1)),
        ("UTF-16", line.decode().encode("utf-16")),
        ("a list of it", b"[" + line + b"]"),
        ("a comma at the end", line[:-1] + b",}"),
        ("a comment", line + b"//"),
        ("two of it", line + line),
        ("nothing", b""),
        ("null", b"null"),
        ("a number", b"1"),
        ("an open bracket", b"{"),
        ("deep", DEEP.encode()[:60_000]),
        ("deep objects", b'{"v":' * 10_000),
    ):
        yield what, other_line
