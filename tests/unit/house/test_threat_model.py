"""Every claim of docs/threat-model.md names tests that show it, and every test it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parents[3]
PAGE = TOP / "docs" / "threat-model.md"
HEAD = ["claim", "test"]
_REFERENCE = re.compile(r"`([\w/.]+\.py)::(\w+)`")


class Row(NamedTuple):
    """A row of a table of claims: the line it stands on, the chapter, the claim, and the cell that names tests."""

    line: int
    chapter: str
    claim: str
    tests: str


def claims(page: str) -> list[Row]:
    """Every row of every table whose head is `claim | test`."""
    found: list[Row] = []
    chapter, inside = "", False
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("#"):
            chapter = line.lstrip("# ")
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells == HEAD:
            inside = True
        elif inside and set(line) - set("|- "):
            found.append(Row(number, chapter, cells[0], " ".join(cells[1:])))
    return found


def functions(file: Path) -> set[str]:
    """Names of the functions of a file, those of its classes included."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def wrong(top: Path, page: str) -> Iterator[str]:
    """What is wrong with the claims of a page."""
    known: dict[str, set[str]] = {}
    for row in claims(page):
        references = _REFERENCE.findall(row.tests)
        rest = _REFERENCE.sub("", row.tests).replace("<br>", "").strip(" ,")
        if not references or rest or not row.claim:
            yield f"line {row.line}: names no test, or something else: {row.tests!r}"
        for path, name in references:
            if path not in known:
                known[path] = functions(top / path) if (top / path).is_file() else set()
            if not name.startswith("test_") or name not in known[path]:
                yield f"line {row.line}: {path} has no {name}"


def test_every_claim_names_tests_and_they_exist() -> None:
    assert list(wrong(TOP, PAGE.read_text(encoding="utf-8"))) == []


def test_every_adversary_has_claims() -> None:
    """A chapter that begins with `Who:` is about an adversary."""
    page = PAGE.read_text(encoding="utf-8")
    adversaries = re.findall(r"^#+ (Who: .+)$", page, re.MULTILINE)
    assert len(adversaries) >= 12
    assert set(adversaries) <= {row.chapter for row in claims(page)}
    assert len(claims(page)) >= 80


GOOD = "# Who: x\n\n| claim | test |\n|---|---|\n| it holds | `tests/a.py::test_it`, `tests/a.py::test_in_class` |\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("::test_it`", "::test_other`", "has no test_other"),
        ("tests/a.py::test_it", "tests/b.py::test_it", "tests/b.py has no test_it"),
        ("`tests/a.py::test_it`, `tests/a.py::test_in_class`", "", "names no test"),
        ("`tests/a.py::test_it`, ", "reviewed, ", "names no test, or something else"),
        ("::test_it`", "::helper`", "has no helper"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.py").write_text(
        "def helper(): ...\ndef test_it(): ...\nclass TestX:\n    def test_in_class(self): ...\n"
    )
    assert list(wrong(tmp_path, GOOD)) == []
    assert old in GOOD
    assert any(said in line for line in wrong(tmp_path, GOOD.replace(old, new)))
