"""`chatkeep reader`: what is printed is the program that the tests restore with, and it runs alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from chatkeep.daemon.cli.main import main
from tests import independent_reader
from tests.support.station import Station, fill, rows
from tests.support.trees import describe

ALLOWED = {"blake3", "zstandard", "cryptography", "__future__"}


def test_the_printed_program_restores_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station = Station(tmp_path)
    fill(station.source / "messages.db", wal=False)
    (station.source / "note").write_text("kept")
    station.init()
    station.backup()
    assert main(["reader"]) == 0
    program = station.room / "chatkeep-reader.py"
    program.write_text(capsys.readouterr().out)
    key = ["--key-file", str(station.key)]

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        # Where it is imported from nothing of this project can be found.
        code = f"import sys, runpy; sys.modules['chatkeep'] = None; sys.argv = {[str(program), *map(str, words)]!r};"
        code += "runpy.run_path(sys.argv[0], run_name='__main__')"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    listed = run(station.storage(), "--list", *key)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "2 files" in listed.stdout
    done = run(station.storage(), station.room / "out", *key)
    assert (done.returncode, done.stderr) == (0, "")
    assert describe(station.room / "out") == describe(station.source)
    assert len(rows(station.room / "out" / "messages.db")) == 200
    assert run(station.storage(), station.room / "out", *key).returncode == 4
    assert run(station.storage(), station.room / "other", "--source", "none", *key).returncode == 2
    station.key.write_text("0" * 64)
    wrong = run(station.storage(), station.room / "other", *key)
    assert (wrong.returncode, "line 1" in wrong.stderr) == (3, True)
    assert not (station.room / "other").exists()


def test_it_needs_nothing_of_this_project() -> None:
    tree = ast.parse(Path(independent_reader.__file__).read_text("utf-8"))
    used = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    used |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in used} <= ALLOWED | sys.stdlib_module_names
    assert len(Path(independent_reader.__file__).read_text("utf-8").splitlines()) <= 500
    assert Path(independent_reader.__file__).is_symlink()
