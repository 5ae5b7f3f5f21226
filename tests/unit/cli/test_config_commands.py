"""`chatkeep config` as a person and a program see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatkeep.config.loader import parse
from chatkeep.config.schema import schema
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "chat").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "c.yaml").write_text(
        f"sources: [{tmp_path}/chat]\nproviders: [{{name: d, type: folder, path: {tmp_path}/disk}}]\n"
        f"state_dir: {tmp_path}/state\n"
    )
    return tmp_path / "c.yaml"


def test_a_right_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(file), "config", "check"]) == Exit.DONE
    assert f"{file}: right" in capsys.readouterr().out
    assert main(["config", "check", "--config", str(file), "--json"]) == Exit.DONE
    shown = json.loads(capsys.readouterr().out)
    assert shown["sources"] == [{"name": "chat", "path": str(file.parent / "chat")}]
    assert shown["providers"] == [{"name": "d", "type": "folder"}]


def test_a_wrong_file_names_every_place(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("sorces: x\nsources:\n  - {path: /a, nmae: b}\n")
    assert main(["--config", str(file), "config", "check"]) == Exit.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:4] == [
        f"{file}:1:1: providers: the key providers is missing",
        f"{file}:1:9: sorces: there is no such key; did you mean 'sources'?",
        f"{file}:3:22: sources[0].nmae: there is no such key; did you mean 'name'?",
    ]


def test_a_wrong_file_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("sources: [x]\n")
    assert main(["--config", str(file), "--json", "config", "check"]) == Exit.USAGE
    problems = json.loads(capsys.readouterr().out)["error"]["params"]["problems"]
    assert [(p["line"], p["key"], p["reason"]) for p in problems] == [
        (1, "providers", "missing-key"),
        (1, "sources[0]", "not-absolute"),
    ]


def test_a_directory_that_is_gone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "chat").rename(file.parent / "chats")
    assert main(["--config", str(file), "config", "check"]) == Exit.USAGE
    shown = capsys.readouterr().err
    assert f"there is nothing at {file.parent}/chat; did you mean '{file.parent}/chats'?" in shown


def test_no_file_and_no_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none"), "config", "check"]) == Exit.USAGE
    assert "config example" in capsys.readouterr().err
    assert main(["--config", str(tmp_path), "config", "check"]) == Exit.USAGE
    assert "Is a directory" in capsys.readouterr().err


def test_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["config", "check"]) == Exit.USAGE
    assert str(tmp_path / "chatkeep" / "chatkeep.yaml") in capsys.readouterr().err


def test_example_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example"]) == Exit.DONE
    text = capsys.readouterr().out
    assert parse(text, Path("x")).sources
    assert main(["config", "example", "--json"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["example"].rstrip() == text.rstrip()
    for words in (["config", "schema"], ["config", "schema", "--json"]):
        assert main(words) == Exit.DONE
        assert json.loads(capsys.readouterr().out) == schema()


def test_the_folder_that_init_will_make_is_not_wrong(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "disk").rmdir()
    assert main(["--config", str(file), "config", "check"]) == Exit.DONE
    assert f"{file.parent}/disk is not there yet: chatkeep init makes it" in capsys.readouterr().out
    (file.parent / "chat").rmdir()
    assert main(["--config", str(file), "config", "check"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "sources[0].path" in said
    assert "providers[0].path" not in said
    (file.parent / "chat").mkdir()
    (file.parent / "state").mkdir()
    (file.parent / "state" / "chatkeep-writer").touch()  # set up: what is not there now was there once
    assert main(["--config", str(file), "config", "check"]) == Exit.USAGE
    assert "providers[0].path: there is nothing at" in capsys.readouterr().err


def test_a_new_folder_beside_a_vault_is_told_of_the_mirror(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = (
        f"{{name: d, type: folder, path: {file.parent}/disk}}, {{name: second, type: folder, path: {file.parent}/new}}"
    )
    file.write_text(
        f"sources: [{file.parent}/chat]\nproviders: [{more}]\nstate_dir: {file.parent}/state\n",
    )
    (file.parent / "state").mkdir()
    (file.parent / "state" / "chatkeep-writer").touch()
    assert main(["--config", str(file), "config", "check"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert f"providers[1].path: there is nothing at {file.parent}/new." in said
    assert "chatkeep mirror second" in said
    (file.parent / "new").mkdir()
    (file.parent / "chat").rmdir()  # what is missing here is no provider
    assert main(["--config", str(file), "config", "check"]) == Exit.USAGE
    assert "mirror" not in capsys.readouterr().err
