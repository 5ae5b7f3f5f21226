"""What is proposed loads as what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatkeep.config import proposal
from chatkeep.config.applications import APPLICATIONS
from chatkeep.config.loader import parse
from chatkeep.config.model import FolderOptions
from chatkeep.config.proposal import ProposedProvider, ProposedSource

HOME = Path.home()
FILE = Path("chatkeep.yaml")


def folder(path: Path | str, name: str = "disk") -> ProposedProvider:
    return ProposedProvider(name, "folder", {"path": str(path)})


@pytest.mark.parametrize(
    "name",
    ["Signal", "on", "null", "1.5", "0x10", "Ann's phone", 'say "hi"', "a: b", "#1", "überall", "🐦 chat", "a\\b", "~"],
)
def test_names_and_paths_come_back_as_they_were(name: str) -> None:
    text = proposal.text([ProposedSource(name, HOME / name, ("*.tmp",))], folder(Path("/mnt") / name, name), HOME, None)
    config = parse(text, FILE)
    (source,), (provider,) = config.sources, config.providers
    assert (source.name, source.path, source.exclude) == (name, HOME / name, ("*.tmp",))
    assert (provider.name, provider.options) == (name, FolderOptions(Path("/mnt") / name))


def test_every_known_application_can_be_proposed() -> None:
    sources = [ProposedSource(one.name, HOME / one.name, one.exclude, one.note) for one in APPLICATIONS]
    text = proposal.text(sources, folder("/mnt/backup"), HOME, HOME / "state")
    config = parse(text, FILE)
    assert [(one.name, one.path, one.exclude) for one in config.sources] == [
        (one.name, one.path, one.exclude) for one in sources
    ]
    assert config.state_dir == HOME / "state"
    assert max(map(len, text.splitlines())) <= 78
    assert all(f"path: ~/{one.name}" in text for one in APPLICATIONS)


def test_the_home_directory_itself() -> None:
    assert proposal.short(HOME, HOME) == "~"
    assert proposal.short(HOME / "a", HOME) == "~/a"
    assert proposal.short(Path("/srv/a"), HOME) == "/srv/a"
