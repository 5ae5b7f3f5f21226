"""What the disk adds to the judgement of a configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatkeep.config.loader import parse
from chatkeep.config.model import Config, FolderOptions, ProviderConfig, Source
from chatkeep.config.paths import check_paths
from chatkeep.config.problems import ConfigInvalid, Reason


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("chat", "other", "disk", "state"):
        (tmp_path / name).mkdir()
    return tmp_path


def made(top: Path, *sources: str, disk: str = "disk", state: str = "state") -> Config:
    lines = ["sources:", *(f"  - {{path: {top / s}, name: s{i}}}" for i, s in enumerate(sources))]
    lines += ["providers:", f"  - {{name: d, type: folder, path: {top / disk}}}", f"state_dir: {top / state}"]
    return parse("\n".join(lines), top / "c.yaml")


def found(config: Config) -> list[tuple[int | None, str, Reason]]:
    with pytest.raises(ConfigInvalid) as caught:
        check_paths(config)
    return [(problem.line, problem.key, problem.reason) for problem in caught.value.problems]


def test_directories_that_are_there(top: Path) -> None:
    check_paths(made(top, "chat", "other"))
    check_paths(made(top, "chat", state="not/yet/made"))
    assert not (top / "not").exists()


def test_all_that_is_missing_with_the_line_and_a_likely_spelling(top: Path) -> None:
    config = made(top, "chta", "other", disk="away/disk")
    assert found(config) == [
        (2, "sources[0].path", Reason.PATH_MISSING),
        (5, "providers[0].path", Reason.PATH_MISSING),
    ]
    with pytest.raises(ConfigInvalid) as caught:
        check_paths(config)
    assert [problem.nearest for problem in caught.value.problems] == [str(top / "chat"), ""]


def test_a_file_where_a_directory_must_be(top: Path) -> None:
    (top / "file").write_text("")
    assert found(made(top, "file")) == [(2, "sources[0].path", Reason.NOT_A_DIRECTORY)]
    assert found(made(top, "chat", disk="file")) == [(4, "providers[0].path", Reason.NOT_A_DIRECTORY)]
    assert found(made(top, "chat", state="file/inner")) == [(5, "state_dir", Reason.NOT_A_DIRECTORY)]


def test_one_directory_under_two_names(top: Path) -> None:
    (top / "link").symlink_to(top / "chat")
    assert found(made(top, "chat", "link")) == [(3, "sources[1].path", Reason.SAME_DIRECTORY)]


def test_nesting_through_a_link(top: Path) -> None:
    (top / "chat" / "inner").mkdir()
    (top / "link").symlink_to(top / "chat" / "inner")
    assert found(made(top, "chat", "link")) == [(3, "sources[1].path", Reason.NESTED_DIRECTORY)]
    assert found(made(top, "chat", disk="link")) == [(4, "providers[0].path", Reason.PROVIDER_IN_SOURCE)]
    assert found(made(top, "chat", state="link/deep")) == [(5, "state_dir", Reason.STATE_IN_SOURCE)]


def test_a_link_in_a_circle_is_missing(top: Path) -> None:
    (top / "loop").symlink_to(top / "loop")
    assert (2, "sources[0].path", Reason.PATH_MISSING) in found(made(top, "loop"))


@pytest.mark.parametrize(
    ("which", "denied", "reason"),
    [
        ("chat", os.R_OK, Reason.NOT_READABLE),
        ("chat", os.X_OK, Reason.NOT_READABLE),
        ("disk", os.W_OK, Reason.NOT_WRITABLE),
        ("state", os.W_OK, Reason.NOT_WRITABLE),
    ],
)
def test_refused_access(top: Path, monkeypatch: pytest.MonkeyPatch, which: str, denied: int, reason: Reason) -> None:
    # Root may do everything whatever the mode says, so the answer of the system is planted.
    asked = []

    def access(path: Path, mode: int) -> bool:
        asked.append(path)
        return not (path == top / which and mode & denied)

    monkeypatch.setattr("chatkeep.config.paths.os.access", access)
    assert [reason for _, _, reason in found(made(top, "chat"))] == [reason]
    assert top / which in asked


def test_a_configuration_made_without_a_file(top: Path) -> None:
    config = Config((Source(top / "gone"),), (ProviderConfig("d", "folder", FolderOptions(top / "disk")),))
    assert found(config) == [(None, "sources[0].path", Reason.PATH_MISSING)]
