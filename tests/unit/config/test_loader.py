"""What the loader takes, and where and why it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.config.loader import load, parse
from chatkeep.config.model import Config, FolderOptions, Source
from chatkeep.config.problems import ConfigInvalid, ConfigMissing, ConfigUnreadable, Problem, Reason

FILE = Path("chatkeep.yaml")
PROVIDERS = "providers:\n  - {name: disk, type: folder, path: /mnt/disk}\n"
SOURCES = "sources:\n  - /chats/one\n"


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, FILE)
    return caught.value.problems


def reasons(text: str) -> list[tuple[Reason, str]]:
    return [(problem.reason, problem.key) for problem in problems(text)]


def test_the_shortest_file() -> None:
    config = parse("sources: [~/Chat]\n" + PROVIDERS, FILE)
    assert config.sources == (Source(Path.home() / "Chat", "Chat", (), "auto"),)
    assert config.providers[0].options == FolderOptions(Path("/mnt/disk"))
    assert config.providers[0].required is True
    assert config.vault_name == "chatkeep"


def test_every_key() -> None:
    config = parse(
        """
        vault: {name: family}
        sources:
          - path: /chats/one
            name: One
            exclude: [Cache/**, "*.tmp"]
            compression: off
          - path: /chats/two
        providers:
          - {name: disk, type: folder, path: /mnt/disk, required: false}
          - {name: cloud, type: folder, path: /home/me/Drive}
        state_dir: /var/lib/chatkeep
        """,
        FILE,
    )
    assert config.vault_name == "family"
    assert config.sources[0] == Source(Path("/chats/one"), "One", ("Cache/**", "*.tmp"), "off")
    assert config.sources[1].name == "two"
    assert [(p.name, p.required) for p in config.providers] == [("disk", False), ("cloud", True)]
    assert config.state_dir == Path("/var/lib/chatkeep")


def test_default_places_follow_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    (tmp_path / "chatkeep").mkdir()
    (tmp_path / "chatkeep" / "chatkeep.yaml").write_text(SOURCES + PROVIDERS)
    assert load().state_dir == Path("/elsewhere/chatkeep")


def test_a_relative_xdg_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert parse(SOURCES + PROVIDERS, FILE).state_dir == Path.home() / ".local/state/chatkeep"


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "1:30", "2024-01-01"])
def test_plain_words_stay_text(word: str) -> None:
    config = parse(f"sources: [{{path: /a, name: {word}}}]\n" + PROVIDERS, FILE)
    assert config.sources[0].name == word


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = """
sorces: [/a]
sources:
  - path: relative/path
    nmae: x
    compression: of
  - path: /chats/one
    name: 7
  - exclude: [/abs, ok, ../up]
    exclude: [again]
    path: /chats/three
providers:
  - {name: disk, type: fodler, path: /mnt, anything: 1}
  - {name: disk2, type: folder, required: yes}
  - text
vault: [list]
state_dir: ~nobody-of-that-name/x
"""
    found = problems(text)
    assert [(p.line, p.column, p.key, p.reason, p.nearest) for p in found] == [
        (2, 9, "sorces", Reason.UNKNOWN_KEY, "sources"),
        (4, 11, "sources[0].path", Reason.NOT_ABSOLUTE, ""),
        (5, 11, "sources[0].nmae", Reason.UNKNOWN_KEY, "name"),
        (6, 18, "sources[0].compression", Reason.UNKNOWN_WORD, "off"),
        (8, 11, "sources[1].name", Reason.WRONG_TYPE, ""),
        (9, 15, "sources[2].exclude[0]", Reason.BAD_PATTERN, ""),
        (9, 25, "sources[2].exclude[2]", Reason.BAD_PATTERN, ""),
        (10, 5, "sources[2].exclude", Reason.DUPLICATE_KEY, ""),
        (13, 24, "providers[0].type", Reason.UNKNOWN_WORD, "folder"),
        (14, 5, "providers[1].path", Reason.MISSING_KEY, ""),
        (14, 43, "providers[1].required", Reason.WRONG_TYPE, ""),
        (15, 5, "providers[2]", Reason.WRONG_TYPE, ""),
        (16, 8, "vault", Reason.WRONG_TYPE, ""),
        (17, 12, "state_dir", Reason.NO_HOME, ""),
    ]
    assert {p.file for p in found} == {"chatkeep.yaml"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(Reason.EMPTY, "")]),
        ("# only a comment\n", [(Reason.EMPTY, "")]),
        ("- a\n- b\n", [(Reason.WRONG_TYPE, "")]),
        ("just text", [(Reason.WRONG_TYPE, "")]),
        ("{}", [(Reason.MISSING_KEY, "providers"), (Reason.MISSING_KEY, "sources")]),
        ("sources:\n" + PROVIDERS, [(Reason.NO_VALUE, "sources")]),
        ("sources: []\n" + PROVIDERS, [(Reason.NO_VALUE, "sources")]),
        ("sources: [~]\n" + PROVIDERS, [(Reason.NO_VALUE, "sources[0]")]),
        ("sources: /a\n" + PROVIDERS, [(Reason.WRONG_TYPE, "sources")]),
        ("sources: [[/a]]\n" + PROVIDERS, [(Reason.WRONG_TYPE, "sources[0]")]),
        ("sources: [7]\n" + PROVIDERS, [(Reason.WRONG_TYPE, "sources[0]")]),
        ("sources: [$HOME/x]\n" + PROVIDERS, [(Reason.NOT_ABSOLUTE, "sources[0]")]),
        ("sources: [{path: /, name: x}]\n", [(Reason.MISSING_KEY, "providers"), (Reason.STATE_IN_SOURCE, "state_dir")]),
        ('sources: [""]\n' + PROVIDERS, [(Reason.BAD_TEXT, "sources[0]")]),
        ('sources: ["/a\\0b"]\n' + PROVIDERS, [(Reason.BAD_TEXT, "sources[0]")]),
        ('sources: ["/a\\udc80"]\n' + PROVIDERS, [(Reason.BAD_TEXT, "sources[0]")]),
        ("sources: [{path: /a, name: -x}]\n" + PROVIDERS, [(Reason.BAD_NAME, "sources[0].name")]),
        ("sources: [{path: /a, name: x/y}]\n" + PROVIDERS, [(Reason.BAD_NAME, "sources[0].name")]),
        ("? [a, b]\n: c\n" + SOURCES + PROVIDERS, [(Reason.WRONG_TYPE, "")]),
        ("<<: {sources: [/a]}\n" + SOURCES + PROVIDERS, [(Reason.UNKNOWN_KEY, "<<")]),
        ("sessions: {}\n" + SOURCES + PROVIDERS, [(Reason.UNKNOWN_KEY, "sessions")]),
        ("session: {lock_after: 0 hours}\n" + SOURCES + PROVIDERS, [(Reason.ZERO_DURATION, "session.lock_after")]),
        ("vault: !!python/object:os.system x\n" + SOURCES + PROVIDERS, [(Reason.WRONG_TYPE, "vault")]),
        ("vault: !!set {name}\n" + SOURCES + PROVIDERS, [(Reason.WRONG_TYPE, "vault")]),
        ("a: &x 1\nb: *x\n", [(Reason.ALIAS, "")]),
        ("[" * 5000, [(Reason.TOO_DEEP, "")]),
        ("a: b: c", [(Reason.SYNTAX, "")]),
        ("--- 1\n--- 2\n", [(Reason.SYNTAX, "")]),
        ("a: \x07", [(Reason.SYNTAX, "")]),
        ('a: "\\UFFFFFFFF"', [(Reason.SYNTAX, "")]),
    ],
)
def test_refused(text: str, expected: list[tuple[Reason, str]]) -> None:
    assert sorted(reasons(text)) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("sources:\n  - /a\n bad\n", (3, 2)),
        ("sources: [/a\n", (2, 1)),
        ("a: 1\n\tb: 2\n", (2, 1)),
        ("a: 1\nb: \x07\n", (2, 4)),
        ("x: &a [1]\ny: *a\n", (2, 4)),
    ],
)
def test_a_syntax_error_names_its_place(text: str, place: tuple[int, int]) -> None:
    (problem,) = problems(text)
    assert (problem.line, problem.column) == place


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ("[/a, /a]", [(Reason.DUPLICATE_NAME, "sources[1].name"), (Reason.SAME_DIRECTORY, "sources[1].path")]),
        ("[/a, /b/../a/]", [(Reason.DUPLICATE_NAME, "sources[1].name"), (Reason.SAME_DIRECTORY, "sources[1].path")]),
        ("[/a/b/c, /a]", [(Reason.NESTED_DIRECTORY, "sources[0].path")]),
        ("[/a, /ab]", []),
        ("[/a/x, /b/x]", [(Reason.DUPLICATE_NAME, "sources[1].name")]),
        ("[/a/x, {path: /b/x, name: y}]", []),
        ("[/mnt]", [(Reason.PROVIDER_IN_SOURCE, "providers[0].path")]),
        ("[/mnt/disk]", [(Reason.PROVIDER_IN_SOURCE, "providers[0].path")]),
        ("[/mnt/disk/chat]", []),
        ("[/state]", [(Reason.STATE_IN_SOURCE, "state_dir")]),
    ],
)
def test_clashes_of_sources(sources: str, expected: list[tuple[Reason, str]]) -> None:
    text = f"sources: {sources}\nstate_dir: /state/chatkeep\n{PROVIDERS}"
    assert (sorted(reasons(text)) if expected else parse(text, FILE) and []) == expected


def test_clashes_of_providers_and_state() -> None:
    text = (
        SOURCES
        + """
providers:
  - {name: a, type: folder, path: /mnt/x}
  - {name: a, type: folder, path: /mnt/y}
  - {name: c, type: folder, path: /mnt/x}
  - {name: d, type: folder, path: /mnt/y/inner}
state_dir: /mnt/x/state
"""
    )
    assert sorted(reasons(text)) == [
        (Reason.DUPLICATE_NAME, "providers[1].name"),
        (Reason.NESTED_DIRECTORY, "providers[3].path"),
        (Reason.SAME_DIRECTORY, "providers[2].path"),
        (Reason.STATE_IN_PROVIDER, "state_dir"),
    ]


def test_a_source_without_a_last_part_needs_a_name() -> None:
    assert (Reason.BAD_NAME, "sources[0].name") in reasons("sources: [/]\n" + PROVIDERS)
    assert (Reason.BAD_NAME, "sources[0].name") in reasons("sources: [/x/..]\n" + PROVIDERS)


def test_a_clash_names_both_sides_and_the_line_of_the_second() -> None:
    (problem,) = problems(f"sources:\n  - /a/x\n  - path: /b/x\n{PROVIDERS}")
    assert (problem.line, problem.other, problem.found) == (3, "sources[0].name", "x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigMissing) as missing:
        load(tmp_path / "absent.yaml")
    assert missing.value.params == {"file": str(tmp_path / "absent.yaml")}
    with pytest.raises(ConfigUnreadable) as unreadable:
        load(tmp_path)
    assert unreadable.value.params["cause"] == "Is a directory"
    with pytest.raises(ConfigUnreadable):
        load(Path("a\0b"))


@pytest.mark.parametrize(
    ("raw", "reason", "place"),
    [
        (b"a: 1\nb: \xff\n", Reason.NOT_UTF8, (2, 4)),
        (b"# " + b"x" * 10_000_000, Reason.TOO_LARGE, (None, None)),
        ("a: 1".encode("utf-16"), Reason.NOT_UTF8, (1, 1)),
    ],
)
def test_bytes_that_are_no_configuration(tmp_path: Path, raw: bytes, reason: Reason, place: tuple[int, int]) -> None:
    (tmp_path / "c.yaml").write_bytes(raw)
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path / "c.yaml")
    (problem,) = caught.value.problems
    assert (problem.reason, (problem.line, problem.column)) == (reason, place)


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SOURCES + PROVIDERS, encoding="utf-8-sig")
    assert load(tmp_path / "c.yaml").sources[0].path == Path("/chats/one")


def outcome(text: str) -> tuple[Problem, ...]:
    """The problems of a text, none for a good one; any other error passes through and fails the test."""
    try:
        config = parse(text, FILE)
    except ConfigInvalid as exc:
        found = exc.problems
    else:
        assert isinstance(config, Config)
        return ()
    assert found
    return found


@given(st.text(max_size=80))
def test_any_text_gives_a_configuration_or_a_named_error(text: str) -> None:
    assert all(problem.file == FILE.name for problem in outcome(text))


def _leaves() -> st.SearchStrategy[object]:
    words = st.sampled_from(["/a", "/a/b", "~/c", "folder", "disk", "auto", "off", "x", ""])
    return st.none() | st.booleans() | st.integers() | words


def _trees(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    keys = st.sampled_from(
        ["sources", "providers", "vault", "state_dir", "path", "name", "type", "required", "exclude"]
    )
    return st.lists(children, max_size=3) | st.dictionaries(keys, children, max_size=4)


@given(st.recursive(_leaves(), _trees, max_leaves=25))
def test_any_tree_of_known_words_gives_a_configuration_or_a_named_error(tree: object) -> None:
    assert all(problem.line for problem in outcome(yaml.safe_dump(tree)) if problem.reason is not Reason.EMPTY)
