"""Every error has words, and the words name only what the error carries."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import chatkeep.config
import chatkeep.daemon
import chatkeep.providers
from chatkeep.config.errors import ChatkeepError
from chatkeep.config.problems import ConfigInvalid, Problem, Reason
from chatkeep.daemon.cli.telling import problem_line, tell
from chatkeep.daemon.cli.words import WORDS, Words
from chatkeep.daemon.cli.words_of_cases import MORE, PROBLEMS

PACKAGES = (chatkeep.config, chatkeep.providers, chatkeep.daemon)


def modules() -> list[str]:
    return sorted(
        found.name for package in PACKAGES for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    )


def errors() -> list[type[ChatkeepError]]:
    """Every error of the product, the root included."""
    for name in modules():
        importlib.import_module(name)
    found = [ChatkeepError]
    for cls in found:
        found += (child for child in cls.__subclasses__() if child not in found)
    return [cls for cls in found if cls.__module__.startswith("chatkeep.")]


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_code_has_words() -> None:
    found = errors()
    assert len(found) > 20
    assert sorted({cls.code for cls in found} - set(WORDS)) == []


def test_every_word_has_a_code() -> None:
    assert sorted(set(WORDS) - {cls.code for cls in errors()}) == []


def test_a_disk_of_this_machine_that_is_full_is_what_to_look_for() -> None:
    assert "has room" in WORDS["pack-broken"].remedy, "why is not on record for status, and mostly this"


def test_codes_are_stable_words_and_each_is_one_error() -> None:
    own = [cls.__dict__["code"] for cls in errors() if "code" in cls.__dict__]
    assert sorted(own) == sorted(set(own))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) for code in own)


def raised() -> Iterator[tuple[str, str, set[str]]]:
    """Place, code and parameters of every error that is made with nothing but named parameters."""
    plain = {id(cls): cls for cls in errors() if "__init__" not in cls.__dict__}
    for name in modules():
        module = importlib.import_module(name)
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text())
        names = vars(module) | dict(_imported_inside(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (made := plain.get(id(_named(names, node.func)))):
                given = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                if not node.args and len(given) == len(node.keywords):
                    yield f"{name}:{node.lineno}", made.code, given


def _imported_inside(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """What functions import when they are called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chatkeep."):
            module = importlib.import_module(node.module or "")
            yield from ((each.asname or each.name, getattr(module, each.name, None)) for each in node.names)


def _named(names: Mapping[str, object], function: ast.expr) -> object:
    """What `Error` or `base.Error` is, where these names mean that."""
    match function:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return getattr(names.get(name), attribute, None)
    return None


def test_texts_name_only_parameters_that_every_raiser_gives() -> None:
    found = list(raised())
    assert found
    wrong = [
        f"{place}: {code} lacks {sorted(lacking)}"
        for place, code, given in found
        if code in WORDS and (lacking := fields(WORDS[code].text + WORDS[code].remedy) - given)
    ]
    assert wrong == []


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())
def test_words_are_sentences(words: Words) -> None:
    assert words.text[-1] in ".:"
    assert words.text[0].isupper() or words.text[0] == "{"
    assert all(part == part.strip() for part in (words.text, words.remedy))


def test_every_reason_of_the_configuration_has_words() -> None:
    assert set(PROBLEMS) == set(Reason)
    known = set(Problem.__dataclass_fields__)
    assert all(fields(text) <= known for text in PROBLEMS.values())


class Unworded(ConfigInvalid):
    """An error nobody has found words for yet."""

    code = "unworded-for-a-test"


def test_a_code_without_words_borrows_those_of_its_branch() -> None:
    problem = Problem("f", 1, 2, "a", Reason.UNKNOWN_KEY, nearest="b")
    told = tell(Unworded(Path("f"), [problem]))
    assert told.code == "unworded-for-a-test"
    assert told.text == "The configuration is wrong:\nf:1:2: a: there is no such key; did you mean 'b'?"


def test_a_missing_parameter_hides_no_error() -> None:
    cls = next(cls for cls in errors() if cls.code == "source-missing")
    assert tell(cls()).text == "There is nothing at ?."


def test_what_is_besides_is_said_besides() -> None:
    cls = next(cls for cls in errors() if cls.code == "quota-exceeded")
    plain, more = tell(cls(provider="disk")), tell(cls(provider="disk", slot="ab" * 16, left_at=["disk", "u\x1b"]))
    assert more.text.startswith(plain.text)
    assert more.text.endswith("taken back at disk, u\\x1b, and counts there.")
    assert more.remedy.splitlines()[0] == plain.remedy
    assert more.remedy.endswith(f"chatkeep key remove {'ab' * 16}")
    assert more.exit is plain.exit


def test_damaged_slots_are_shown_up_to_a_bound() -> None:
    cls = next(cls for cls in errors() if cls.code == "not-on-security-key")
    few, many = (tell(cls(damaged_slots=[f"{n:08x}{n:024x}" for n in range(count)])).text for count in (8, 256))
    assert "00000007: if" in few
    assert "00000007, and 248 more: if" in many


@pytest.mark.parametrize("words", MORE.values(), ids=MORE.keys())
def test_what_is_said_besides_is_sentences(words: Words) -> None:
    assert words.text[-1] in ".?"
    assert words.text[0].isupper()


def test_names_from_outside_do_not_drive_the_terminal() -> None:
    cls = next(cls for cls in errors() if cls.code == "source-missing")
    assert tell(cls(path=b"/a\x1b[2J\n\xff")).text == "There is nothing at /a\\x1b[2J\\n\\xff."
    assert "\x1b" not in problem_line(Problem("f", 1, 1, "\x1b]0;x\x07", Reason.UNKNOWN_KEY, found="\x1b"))
