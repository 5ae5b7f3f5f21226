"""The real page in the real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.chromium import Chromium, Stage, Tab


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """One browser for all that one worker runs."""
    stage = Stage()
    yield stage
    stage.end()


@pytest.fixture
def chromium(stage: Stage) -> Iterator[Chromium]:
    with stage.on() as chromium:
        yield chromium


@pytest.fixture
def tab(chromium: Chromium) -> Iterator[Tab]:
    with chromium.tab() as tab:
        yield tab
