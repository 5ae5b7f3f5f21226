"""The recording in docs/unlock.md is what a terminal shows today."""

from __future__ import annotations

from pathlib import Path

from scripts.record_unlock import PAGE, masked, recording, written
from scripts.unlock_play import Person, played
from tests.support.chromium import Chromium


def test_it_is_not_stale(chromium: Chromium, tmp_path: Path) -> None:
    """If this fails, and what is shown today is as it should be: scripts/record-unlock"""
    with played(tmp_path, Person(), chromium) as play:
        assert masked(recording(play)) == masked(written(PAGE.read_text()))
