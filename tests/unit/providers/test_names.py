from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.config.errors import Disposition
from chatkeep.providers import base

OURS = (
    f"vault/{'0' * 32}",
    f"epochs/00000001-{'a' * 64}",
    f"slots/{'f' * 32}.json",
    f"devices/{'f' * 32}.json",
    f"d/{'0' * 32}/p/{'9' * 64}",
    f"d/{'0' * 32}/s/{'b' * 32}/{'0' * 12}-{'c' * 64}",
    f"d/{'0' * 32}/c/{'0' * 12}-{'c' * 64}",
)


@pytest.mark.parametrize("name", OURS)
def test_every_name_of_a_vault_is_valid(name: str) -> None:
    assert base.validate_name(name) == name
    for end in range(len(name)):
        assert base.validate_prefix(name[:end]) == name[:end]


def test_the_limit_leaves_room_for_the_longest_of_ours() -> None:
    assert max(map(len, OURS)) == 147
    assert base.is_name("a" * base.NAME_LIMIT)
    assert not base.is_name("a" * (base.NAME_LIMIT + 1))


@given(st.text(alphabet="az09-./AZ_ \n\\~é", max_size=12))
def test_the_grammar_against_its_words(name: str) -> None:
    parts = name.split("/")
    expected = all(
        re.fullmatch(r"[a-z0-9.-]+", part) and not part.startswith(".") and not part.endswith(".") for part in parts
    ) and not name.endswith("\n")
    assert base.is_name(name) == expected
    if expected:
        assert base.validate_name(name) == name
    else:
        with pytest.raises(base.InvalidName):
            base.validate_name(name)


@given(st.from_regex(r"[a-z0-9-]{1,3}([./-]{0,1}[a-z0-9-]{1,3}){0,4}", fullmatch=True), st.integers(0, 20))
def test_every_beginning_of_a_name_is_a_prefix(name: str, end: int) -> None:
    assert base.validate_prefix(name[:end]) == name[:end]


def test_a_refused_name_is_reported_in_bounds() -> None:
    with pytest.raises(base.InvalidName) as caught:
        base.validate_name("A" * 10_000)
    assert len(str(caught.value)) < 300


def test_what_may_be_done_about_each_error() -> None:
    every = base.ProviderError.__subclasses__()
    ours = [kind for kind in every if kind.__module__ == base.__name__]  # and none that a test made for itself
    assert {kind.code: kind.disposition for kind in ours} == {
        "unavailable": Disposition.RETRY,
        "throttled": Disposition.RETRY,
        "object-not-found": Disposition.FATAL,
        "object-conflict": Disposition.FATAL,
        "object-damaged": Disposition.FATAL,
        "quota-exceeded": Disposition.NEEDS_USER,
        "permission-refused": Disposition.NEEDS_USER,
        "storage-missing": Disposition.NEEDS_USER,
        "client-missing": Disposition.NEEDS_USER,
        "secret-file-refused": Disposition.NEEDS_USER,
        "invalid-name": Disposition.FATAL,
    }
    drawn = dict(re.findall(r"^        +(\w+) +(RETRY|FATAL|NEEDS_USER) ", base.__doc__ or "", re.MULTILINE))
    below = [kind for each in ours for kind in (*each.__subclasses__(), *_grandchildren(each))]
    assert drawn == {kind.__name__: kind.disposition.name for kind in below if kind.__module__ == base.__name__}
    drawn = dict(re.findall(r"^      (\w+) +(RETRY|FATAL|NEEDS_USER) ", base.__doc__ or "", re.MULTILINE))
    assert drawn == {kind.__name__: kind.disposition.name for kind in ours}


def _grandchildren(kind: type[base.ProviderError]) -> list[type[base.ProviderError]]:
    return [below for child in kind.__subclasses__() for below in child.__subclasses__()]


HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"d/{'a' * 32}/p/{HASH}", HASH),
        (f"epochs/00000001-{HASH}", HASH),
        (HASH, HASH),
        (f"a/{HASH[1:]}", None),
        (f"a/0{HASH}", None),
        (f"a/{HASH}.json", None),
        (f"{HASH}/a", None),
        (f"a.{HASH}", None),
        (f"a/{HASH}\n", None),
        ("slots/" + "f" * 32 + ".json", None),
    ],
)
def test_what_a_name_says_of_its_object(name: str, said: str | None) -> None:
    assert base.named_sha256(name) == said
