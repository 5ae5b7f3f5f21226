"""The examples of storage in README.md load as they stand, and there is one of every type."""

from __future__ import annotations

import re
from pathlib import Path

from chatkeep.config.loader import parse
from chatkeep.config.storages import BUILT_IN_OPTIONS

README = Path(__file__).parents[3] / "README.md"


def examples() -> dict[str, str]:
    """Each provider of the example, by its type."""
    chapter = README.read_text(encoding="utf-8").partition("## Storage\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```yaml\nproviders:\n(.*?)```", chapter, re.DOTALL)
    found = re.split(r"^(?=  - )", block, flags=re.MULTILINE)[1:]
    return {re.search(r"type: (\w+)", one)[1]: one for one in found}  # type: ignore[index]


def test_every_type_has_an_example_and_a_line_that_loads() -> None:
    found = examples()
    assert found.keys() >= BUILT_IN_OPTIONS.keys()
    for word in BUILT_IN_OPTIONS:
        (provider,) = parse(f"sources: [/chat]\nproviders:\n{found[word]}", README).providers
        assert provider.type == word
        assert isinstance(provider.options, BUILT_IN_OPTIONS[word])
        assert f"\n| `{word}` |" in README.read_text(encoding="utf-8")


def test_the_examples_are_short() -> None:
    assert max(len(one.splitlines()) for one in examples().values()) <= 6
