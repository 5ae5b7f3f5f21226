"""docs/unlock.md quotes what commands and the page say: it is what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatkeep.daemon.cli import ceremony, words, words_of_cases

TOP = Path(__file__).parents[3]
PAGE = (TOP / "docs" / "unlock.md").read_text()
TABLE = PAGE[PAGE.index("## When it does not work") :]
QUOTED = re.findall(r"^\| (?!the terminal|---)([^|]+?) \|", TABLE, re.MULTILINE)


def said() -> str:
    sources = (words, words_of_cases, ceremony)
    texts = [Path(str(source.__file__)).read_text() for source in sources]
    folder = TOP / "daemon" / "control" / "ceremony" / "page"
    texts.append((folder / "page.js").read_text())
    return re.sub(r'"\s+f?"', "", "\n".join(texts))  # a text over two lines is one text


def test_there_is_a_table() -> None:
    assert len(QUOTED) > 15


@pytest.mark.parametrize("text", QUOTED)
def test_what_is_quoted_is_said(text: str) -> None:
    assert text in said()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    name, _, anchor = link.partition("#")
    target = TOP / "docs" / name
    assert target.exists()
    if anchor:
        titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
