"""One vault for all attacks, and the count of them.

The normal suite tries an evenly spread part of the larger campaigns; `--long` tries everything. Both print how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.hostile_vault import HostileVault

Item = TypeVar("Item")

_TRIED = pytest.StashKey[dict[str, int]]()
_SAID = pytest.StashKey[list[str]]()


class Attempts:
    """What one test tries."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.tried = 0

    def some(self, variants: Iterable[Item], most: int) -> Iterator[Item]:
        """All variants with `--long`; else about `most` of them, evenly spread. Counts what is drawn."""
        every = variants if self.whole else list(variants)
        step = 1 if self.whole or not isinstance(every, list) else max(1, -(-len(every) // most))
        for number, variant in enumerate(every):
            if number % step == 0:
                self.tried += 1
                yield variant

    def all(self, variants: Iterable[Item]) -> Iterator[Item]:
        """All of them, always."""
        for variant in variants:
            self.tried += 1
            yield variant


@pytest.fixture
def attempts(request: pytest.FixtureRequest) -> Iterator[Attempts]:
    """Counts the variants of a test; a test that tried none fails."""
    made = Attempts(bool(request.config.getoption("--long")))
    yield made
    assert made.tried
    request.config.stash.setdefault(_TRIED, {})[request.node.nodeid.split("::", 1)[1]] = made.tried


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line for the end of a long run."""
    return request.config.stash.setdefault(_SAID, []).append


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> HostileVault:
    """The vault that is attacked; nobody changes it."""
    return HostileVault(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> HostileVault:
    """Another vault of the same people, opened by the same secrets, with devices of the same names."""
    return HostileVault(tmp_path_factory.mktemp("other"), seed=2)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a neighbour that a hostile tree would like to reach."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tried = config.stash.get(_TRIED, {})
    if config.getoption("--long"):
        said: list[str] = config.stash.get(_SAID, [])
        for line in sorted(said):
            terminalreporter.write_line(f"  {line}")
    if tried:
        for name, count in sorted(tried.items()):
            if config.getoption("--long"):
                terminalreporter.write_line(f"  {count:8,} {name}")
        terminalreporter.write_line(f"malicious storage: {sum(tried.values()):,} variants")
