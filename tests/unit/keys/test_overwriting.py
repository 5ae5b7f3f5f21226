"""Overwriting what Python says cannot change: only there, and all of it."""

from __future__ import annotations

import os

import pytest

from chatkeep.daemon.keys.errors import Unsealable
from chatkeep.daemon.keys.secret import forget, random_secret, take_over
from chatkeep.daemon.keys.wrapping import unwrap, wrap


@pytest.mark.parametrize("size", [0, 1, 2, 32, 96, 5000])
def test_what_is_taken_over_is_kept_and_overwritten(size: int) -> None:
    fresh = os.urandom(size)
    expected = bytearray(fresh)
    kept = take_over(fresh)
    assert kept == expected
    assert fresh == (bytes(size) if size > 1 else bytes(expected))  # single bytes are everybody's


@pytest.mark.parametrize(
    "text", ["", "a", "é", "€", "ab", "a passphrase", "Zwölf", "12 €", "ß€ß", "key \U0001f511", "ÿÿ"]
)
def test_text_is_overwritten_whatever_its_width(text: str) -> None:
    fresh = text.encode().decode()
    beside = text.encode().decode() + "!"
    forget(fresh)
    # By character: a text of zeros two bytes wide is one that Python itself never makes, and equal to none.
    assert list(map(ord, fresh)) == ([0] * len(text) if len(text) > 1 else list(map(ord, text)))
    assert beside == text + "!"


def test_shared_ones_stay() -> None:
    for shared in (b"", b"a", b"\xff", "", "a", "\xff"):
        before = shared[:]
        forget(shared)
        assert shared == before
    assert (bytes([97]), chr(97), chr(255)) == (b"a", "a", "\xff")


def test_random_secrets_are_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bytes] = []

    def urandom(size: int) -> bytes:
        given.append(bytes(range(1, size + 1)))
        return given[-1]

    monkeypatch.setattr(os, "urandom", urandom)
    assert random_secret(32) == bytearray(range(1, 33))
    assert given == [bytes(32)]


def test_wrapping() -> None:
    key, secret = bytearray(os.urandom(32)), os.urandom(32)
    wrapped = wrap(key, secret, b"bound")
    assert len(wrapped) == 48
    assert unwrap(key, wrapped, b"bound") == secret
    damaged = bytes([wrapped[0] ^ 1]) + wrapped[1:]
    for other in (
        (bytearray(32), wrapped, b"bound"),
        (key, wrapped, b""),
        (key, damaged, b"bound"),
        (key, b"", b"bound"),
    ):
        with pytest.raises(Unsealable):
            unwrap(*other)
