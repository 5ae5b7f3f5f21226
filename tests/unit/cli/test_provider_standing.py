"""How it is with a provider: one word for programs, a few for people, the worst first."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatkeep.config.model import FolderOptions, ProviderConfig
from chatkeep.daemon.cli.provider_standing import State, short, state
from chatkeep.daemon.state.glance import ProviderGlance

DISK = ProviderConfig("disk", "folder", FolderOptions(Path("/disk")))
CLOUD = ProviderConfig("cloud", "folder", FolderOptions(Path("/cloud"), synced=True))


def glance(
    waiting: int = 0, success: int | None = 1, error: str | None = None, left_behind: int | None = None
) -> ProviderGlance:
    return ProviderGlance(waiting, waiting * 10, {}, success, error, 2 if error else None, left_behind)


@pytest.mark.parametrize(
    ("config", "found", "lost", "expected", "words"),
    [
        (DISK, glance(), False, State.WHOLE, "has everything"),
        (CLOUD, glance(), False, State.HANDED_OVER, "everything was handed over"),
        (CLOUD, glance(waiting=3), False, State.BEHIND, "2 snapshots behind"),
        (DISK, glance(success=None), False, State.NOTHING, "nothing was sent yet"),
        (DISK, glance(success=None), True, State.UNKNOWN, "what it has is not known here"),
        (DISK, glance(waiting=3, error="login-needed"), False, State.LOGIN_NEEDED, "chatkeep providers login disk"),
        (DISK, glance(error="storage-credential-refused"), False, State.KEY_REFUSED, "chatkeep providers test disk"),
        (DISK, glance(error="unavailable"), False, State.FAILING, "Storage cannot be reached"),
        (DISK, glance(error="no-vault"), False, State.FAILING, "vault is not in this storage"),
        (DISK, glance(waiting=3, left_behind=5), False, State.NEEDS_MIRROR, "chatkeep mirror disk"),
        (DISK, glance(error="login-needed", left_behind=5), False, State.LOGIN_NEEDED, "log in again"),
    ],
)
def test_states(config: ProviderConfig, found: ProviderGlance, lost: bool, expected: State, words: str) -> None:
    assert state(config, found, lost=lost) is expected
    said = short(config, found, 2, lost=lost)
    assert words in said
    assert "?" not in said
    assert not said.endswith(".")
