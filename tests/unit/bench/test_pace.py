"""The fixed work is the same work each time, and some."""

from __future__ import annotations

import zstandard

from bench import pace as module
from bench.pace import pace, warm


def test_it_is_work_and_always_the_same() -> None:
    text = module._text()
    assert len(text) == 2 << 20
    assert 0.2 < len(zstandard.compress(text, 1)) / len(text) < 0.9  # neither nothing to find nor nothing but that
    assert 0.05 < pace() < 60


def test_memory_is_taken_and_given_back() -> None:
    assert 0 < warm(1 << 20) < 60
