"""Passphrases: bounds before work, one spelling, nothing of it in errors."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from chatkeep.daemon.keys import passphrase
from chatkeep.daemon.keys.errors import PassphraseRefused, SlotRefused
from chatkeep.daemon.keys.passphrase import Argon2Params, normalise, stretch

SALT = b"s" * 32


class Counted:
    """Argon2id, counting how often it is asked to run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, **arguments: Any) -> Argon2id:
        self.runs += 1
        return Argon2id(**arguments)


@pytest.fixture
def argon2(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(passphrase, "Argon2id", counted)
    return counted


def test_stretch_is_argon2id(argon2: Counted) -> None:
    expected = Argon2id(salt=SALT, length=32, iterations=1, lanes=1, memory_cost=65536).derive(b"a passphrase")
    assert stretch(bytearray(b"a passphrase"), Argon2Params(65536, 1, 1, SALT)) == expected
    assert argon2.runs == 2  # once more with zeros, and next to nothing of memory


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (Argon2Params(1 << 30, 1, 1, SALT), "m"),  # one TiB
        (Argon2Params(1_048_577, 1, 1, SALT), "m"),
        (Argon2Params(65_535, 1, 1, SALT), "m"),
        (Argon2Params(65_536, 0, 1, SALT), "t"),
        (Argon2Params(65_536, 11, 1, SALT), "t"),
        (Argon2Params(65_536, 1, 0, SALT), "p"),
        (Argon2Params(65_536, 1, 9, SALT), "p"),
        (Argon2Params(1_048_576, 5, 1, SALT), "m*t"),
        (Argon2Params(65_536, 1, 1, SALT[:31]), "salt"),
    ],
)
def test_out_of_bounds_is_refused_before_it_runs(params: Argon2Params, reason: str, argon2: Counted) -> None:
    with pytest.raises(SlotRefused) as caught:
        stretch(bytearray(b"a passphrase"), params)
    assert caught.value.params["reason"] == reason
    assert argon2.runs == 0


def test_bounds_themselves_are_allowed() -> None:
    for m, t, p in ((65_536, 1, 1), (1_048_576, 4, 8), (419_430, 10, 1), (262_144, 3, 4)):
        Argon2Params(m, t, p, SALT).check()


def test_written_parameters() -> None:
    one, other = Argon2Params.fresh(), Argon2Params.fresh()
    assert (one.m, one.t, one.p, len(one.salt)) == (262_144, 3, 4, 32)
    assert one.salt != other.salt


def test_lack_of_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted:
        def __init__(self, **arguments: Any) -> None:
            pass

        def derive_into(self, material: bytearray, buffer: bytearray) -> int:
            raise MemoryError

    monkeypatch.setattr(passphrase, "Argon2id", Exhausted)
    with pytest.raises(SlotRefused) as caught:
        stretch(bytearray(b"a passphrase"), Argon2Params(65_536, 1, 1, SALT))
    assert caught.value.params["reason"] == "memory"


def test_one_word_has_one_spelling() -> None:
    assert normalise("caf\u00e9 \ufb01n") == normalise("cafe\u0301 fin") == bytearray("caf\u00e9 fin", "utf-8")
    assert normalise("a b") != normalise("a  b")


def test_empty_passphrase_is_refused() -> None:
    with pytest.raises(PassphraseRefused) as caught:
        normalise("")
    assert caught.value.params["reason"] == "empty"


def test_what_is_not_text_is_refused_without_a_trace_of_it() -> None:
    with pytest.raises(PassphraseRefused) as caught:
        normalise("hunter2\udcff")
    assert caught.value.params["reason"] == "encoding"
    assert caught.value.__suppress_context__
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)).replace('normalise("hunter2', "")
