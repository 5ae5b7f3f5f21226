"""A machine that keeps a vault in the fake Drive: its client file, its memo, its providers. And both as fixtures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.storages import DriveOptions
from chatkeep.providers.gdrive import DriveProvider, open_drive
from chatkeep.providers.google_token import TokenInMemo
from chatkeep.providers.memo import FileMemo, Memo, MemoryMemo
from chatkeep.providers.registry import Opening
from chatkeep.providers.wrap import Retrying
from tests.support.fake_drive import FakeDrive

UNIT = 262_144


class DriveMachine:
    """One machine. Its memo outlives the providers that it opens.

    Args:
        on_disk: the memo is a file, as in the product: for what kills a process. Elsewhere it would only wait for the
            disk.
    """

    def __init__(self, fake: FakeDrive, home: Path, *, on_disk: bool = False) -> None:
        self.fake = fake
        self._memo = None if on_disk else MemoryMemo()
        self.home = home
        home.mkdir(exist_ok=True)
        self.client = home / "client.json"
        self.client.write_text(fake.client_json())
        self.client.chmod(0o600)
        with contextlib.closing(self.memo()) as memo:
            TokenInMemo(memo).write(fake.accounts.logged_in())

    def memo(self) -> Memo:
        """The memo, opened."""
        return self._memo or FileMemo(self.home / "memo.db")

    @contextlib.contextmanager
    def provider(self, *, create: bool = True, token_file: Path | None = None, **tuned: Any) -> Iterator[DriveProvider]:
        """Opened as a process of this machine would; bodies above 1000 bytes go through sessions."""
        options = DriveOptions(self.client, token_file=token_file)
        tuned = {"small": 1000, "chunk": UNIT, **tuned}
        with contextlib.closing(self.memo()) as memo:
            opened = open_drive(Opening("drive", options, memo, create), endpoint=self.fake.origin, **tuned)
            with contextlib.closing(opened):
                yield opened


def steadfast(provider: DriveProvider) -> Retrying:
    """Tries again as the product does, without the waiting."""
    return Retrying(provider, sleep=lambda _seconds: None)


@pytest.fixture
def fake() -> Iterator[FakeDrive]:
    """A Drive that was asked nothing it does not know, or the test fails."""
    made = FakeDrive()
    try:
        yield made
    finally:
        made.close()
    assert made.strange == []


@pytest.fixture
def machine(fake: FakeDrive, tmp_path: Path) -> DriveMachine:
    """One that has logged in there."""
    return DriveMachine(fake, tmp_path / "one")
