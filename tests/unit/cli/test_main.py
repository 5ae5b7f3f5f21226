"""The frame of every command: global options, wrong words, exit codes, one JSON object."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.cli import main as main_module
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.frame import Command, Group, Later
from chatkeep.daemon.cli.main import cli, main
from chatkeep.providers.base import StorageMissing

CLIENTS = {"boto3", "botocore", "googleapiclient", "google", "opendal", "httpx", "tenacity"}  # what talks to storage
HEAVY = {"cryptography", "blake3", "zstandard", "sqlite3", "rich", "msgspec", "xxhash", *CLIENTS}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def plant(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """A command `fail` that raises."""

    def raising() -> None:
        raise error

    monkeypatch.setitem(cli.commands, "fail", Command("fail", callback=raising))


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == Exit.DONE
    for name, where in main_module.COMMANDS.items():
        assert name in out
        assert where.line.split()[0] in out


def test_the_list_says_what_each_command_says_of_itself() -> None:
    context = click.Context(cli)
    for name, where in main_module.COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str(100) == where.line


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert (code, out.split()[0]) == (Exit.DONE, "chatkeep")
    code, out, _ = run(capsys, "--version", "--json")
    assert json.loads(out).keys() == {"version"}


def test_within_another_program_its_unbuffered_stream_stays_whole(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with io.TextIOWrapper(io.FileIO(os.dup(1), "w"), write_through=True) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["--version"]) == 0
        assert sys.stdout is not stream  # the case is met: what a pipe takes in parts is kept for it
        stream.write("and on\n")
    assert capfd.readouterr().out.splitlines()[1:] == ["and on"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["confg"], "No such command 'confg'. Did you mean 'config'?"),
        (["CONFIG"], "Did you mean 'config'?"),
        (["config", "chek"], "Did you mean 'check'?"),
        (["config", "qqq"], "There are: check, schema, example."),
        (["config", "check", "--jsn"], "Did you mean '--json'?"),
        (["--confg", "x"], "--config"),
        (["config", "check", "extra"], "extra"),
    ],
)
def test_a_wrong_word_gets_the_nearest_right_one(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (Exit.USAGE, "")
    assert said in err
    assert "--help" in err


@pytest.mark.parametrize(
    "words", [["--json", "nothing"], ["config", "check", "--json", "--nothing"], ["--json"], ["config", "--json"]]
)
def test_a_wrong_line_is_one_json_object_too(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, out, err = run(capsys, *words)
    assert (code, err) == (Exit.USAGE, "")
    assert json.loads(out)["error"]["code"] == "usage"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, out) == (Exit.USAGE, "")
    assert "Commands:" in err


def test_an_error_of_the_engine_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, StorageMissing(provider="disk"))
    code, out, err = run(capsys, "fail")
    assert (code, out) == (Exit.STORAGE, "")
    assert err.startswith("chatkeep: disk: The place where the vault is stored is not there.\nMount")
    plant(monkeypatch, StorageMissing(provider="disk", path="/mnt/disk"))
    assert "is not there: /mnt/disk.\nMount" in run(capsys, "fail")[2]


def test_an_error_of_the_engine_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, StorageMissing(provider="disk", path=Path("/mnt"), name=b"\xff"))
    code, out, err = run(capsys, "fail", "--json")
    assert (code, err) == (Exit.STORAGE, "")
    error = json.loads(out)["error"]
    assert error.keys() == {"code", "text", "remedy", "params"}
    assert error["code"] == "storage-missing"
    assert error["params"] == {"provider": "disk", "path": "/mnt", "name": "\udcff"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled(), click.Abort(), EOFError()])
def test_cancelled(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    plant(monkeypatch, error)
    code, _, err = run(capsys, "fail")
    assert code == Exit.CANCELLED
    assert "Cancelled" in err
    assert "Traceback" not in err


def test_a_mistake_of_ours_shows_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, AssertionError("planted"))
    with pytest.raises(AssertionError, match="planted"):
        run(capsys, "fail")
    code, out, err = run(capsys, "fail", "--json")
    assert code == Exit.FAILED
    assert json.loads(out)["error"]["code"] == "internal"
    assert "planted" in err


def test_a_returned_exit_code_is_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.commands, "odd", Command("odd", callback=lambda: Exit.INTEGRITY))
    assert run(capsys, "odd")[0] == Exit.INTEGRITY


def test_a_reader_that_leaves_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)  # the fault: nobody reads
    with os.fdopen(writing, "wb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "chatkeep.daemon.cli.main", "config", "schema"],
            stdout=stream,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (Exit.CANCELLED, b"")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["config", "check"], ["config", "example"], ["nonsense"]])
def test_light_commands_import_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "c.yaml").write_text(
        f"sources: [{tmp_path}/chat]\nproviders: [{{name: d, type: folder, path: {tmp_path}/disk}}]\n"
        f"state_dir: {tmp_path}/state"
    )
    script = f"""
import sys
from chatkeep.daemon.cli.main import main
code = main({["--config", str(tmp_path / "c.yaml"), *words]!r})
print(code, *sorted({HEAVY!r} & {{name.split(".")[0] for name in sys.modules}}), "chatkeep.config" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    expected = Exit.USAGE if words == ["nonsense"] else Exit.DONE
    assert done.stdout.splitlines()[-1] == f"{expected.value} True"


def test_a_lazy_group_imports_only_what_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    group = Group("g", later={"here": Later("chatkeep.no.such.module", "x", "A line.")})
    group.main(["--help"], standalone_mode=False)
    assert "A line." in capsys.readouterr().out
    with pytest.raises(ModuleNotFoundError):
        group.main(["here"], standalone_mode=False)
