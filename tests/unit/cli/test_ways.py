"""Whether the ways into a vault are enough."""

from __future__ import annotations

from typing import Any

import pytest

from chatkeep.daemon.cli.ways import FEW, ONLY_SYNCED, WORDS, independent, warnings

PAPER = {"kind": "recovery-64"}
PHRASE = {"kind": "passphrase"}
SYNCED = {"kind": "webauthn-prf", "synced": True}
BOUND = {"kind": "webauthn-prf", "synced": False}
UNKNOWN = {"kind": "webauthn-prf", "synced": None}
DAMAGED = {"kind": None}


@pytest.mark.parametrize(
    ("ways", "count", "codes"),
    [
        ([], 0, [FEW]),
        ([PAPER], 1, [FEW]),
        ([PAPER, PAPER], 2, []),
        ([PAPER, PHRASE], 2, []),
        ([PAPER, DAMAGED], 1, [FEW]),
        ([PAPER, BOUND], 2, []),
        ([BOUND, BOUND], 2, []),
        ([PAPER, SYNCED], 2, [ONLY_SYNCED]),
        ([SYNCED, SYNCED], 1, [FEW, ONLY_SYNCED]),
        ([SYNCED, SYNCED, SYNCED, PAPER], 2, [ONLY_SYNCED]),
        ([PAPER, SYNCED, BOUND], 3, []),
        ([PAPER, UNKNOWN], 2, [ONLY_SYNCED]),
        ([UNKNOWN, SYNCED], 1, [FEW, ONLY_SYNCED]),
        ([PAPER, {"kind": "webauthn-prf"}], 2, [ONLY_SYNCED]),
    ],
)
def test_ways_that_fail_one_by_one(ways: list[dict[str, Any]], count: int, codes: list[str]) -> None:
    assert independent(ways) == count
    assert warnings(iter(ways)) == codes


def test_each_warning_has_words_and_something_to_do() -> None:
    assert WORDS.keys() == {FEW, ONLY_SYNCED}
    assert all(text.endswith(".") and "chatkeep key add" in remedy for text, remedy in WORDS.values())
