"""Exclude patterns against paths; pure."""

from __future__ import annotations

import pytest

from chatkeep.daemon.capture.exclude import Exclusions

FILE, DIRECTORY = False, True


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("*.tmp", b"a.tmp", True),
        ("*.tmp", b"sub/a.tmp", False),  # anchored
        ("*.tmp", b"a.tmpx", False),
        ("**/*.tmp", b"a.tmp", True),
        ("**/*.tmp", b"x/y/a.tmp", True),
        ("media/*", b"media/a", True),
        ("media/*", b"media/a/b", False),  # one component; but the directory media/a is excluded and never entered
        ("media/**", b"media", False),
        ("media/**", b"media/a/b", True),
        ("media/**/raw", b"media/raw", True),
        ("media/**/raw", b"media/a/b/raw", True),
        ("media/**/raw", b"media/a/raws", False),
        ("**", b"x", True),
        ("a**", b"a/b", False),  # two stars inside a component are one
        ("a**", b"abc", True),
        ("/top", b"top", True),
        ("file?", b"file1", True),
        ("file?", b"file", False),
        ("file?", b"file12", False),
        ("file?", "file\u00e9".encode(), True),  # one character of two bytes
        ("file?", b"file\xff", True),  # a byte that is no character counts as one
        ("file?", b"file/", False),
        ("a?b", b"a/b", False),
        ("a[1].x", b"a[1].x", True),  # brackets stand for themselves
        ("a[1].x", b"a1.x", False),
        ("a.c", b"abc", False),
        ("*", b"line\nbreak", True),
        ("d/**", b"d/line\nbreak", True),
        ("\udcff*", b"\xff\xfe", True),  # as Python spells a raw byte in text
        (b"\xff*", b"\xff\xfe", True),
    ],
)
def test_pattern(pattern: str | bytes, path: bytes, excluded: bool) -> None:
    assert Exclusions([pattern]).match(path, FILE) is excluded


def test_a_slash_at_the_end_means_directories_only() -> None:
    exclude = Exclusions(["cache/"])
    assert exclude.match(b"cache", DIRECTORY)
    assert not exclude.match(b"cache", FILE)


def test_any_of_several_patterns_excludes() -> None:
    exclude = Exclusions(["a", "b*", "c/"])
    assert [exclude.match(path, FILE) for path in (b"a", b"bb", b"c", b"d")] == [True, True, False, False]


@pytest.mark.parametrize("patterns", [[], [""], ["/"]])
def test_no_pattern_excludes_nothing(patterns: list[str]) -> None:
    exclude = Exclusions(patterns)
    assert not exclude
    assert not exclude.match(b"", DIRECTORY)
    assert not exclude.match(b"x", FILE)
