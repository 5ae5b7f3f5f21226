"""`chatkeep reader`: what is printed is the program that the tests restore with, and it runs alone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from chatkeep.daemon.cli.main import main
from chatkeep.daemon.cli.standalone import command
from tests import independent_reader
from tests.support.independent import unlocked
from tests.support.station import Station, fill, rows
from tests.support.terminal import converse
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


def test_no_key_no_answer_no_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station = Station(tmp_path)
    station.init()
    assert main(["reader"]) == 0
    program = tmp_path / "chatkeep-reader.py"
    program.write_text(capsys.readouterr().out)
    words = [sys.executable, "-W", "ignore", str(program), str(station.storage())]
    for typed, code in (("\x03", 6), ("\x04", 3)):
        ended, shown = converse(words, [("passphrase:", typed)])
        assert (ended, "Traceback" in shown) == (code, False), shown
    (tmp_path / "blake3.py").write_text("raise ImportError('No module named blake3')")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "pip install" in done.stderr


def test_names_of_storage_do_nothing_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots" / "\x1b]0;owned\x07\x1b[31m\x9b.json").write_text("x")
    assert command.main([str(tmp_path), "--passkeys"]) == 5
    said = capsys.readouterr()
    assert "slots/?]0;owned??[31m?.json" in said.err
    assert all(letter.isprintable() for letter in (said.out + said.err).replace("\n", ""))


def test_what_is_damaged_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station = Station(tmp_path)
    (station.source / "first").write_bytes(os.urandom(5000))
    station.init()
    station.backup()
    (station.source / "second").write_bytes(os.urandom(5000))
    station.backup()
    vault, _ = unlocked(independent_reader.Directory(str(station.storage())), station.key.read_text())
    newest = next(independent_reader.snapshots(vault))
    tree = independent_reader.Tree(independent_reader.Packs(vault).blob, newest)
    ((_, _, ((_, (digest, slot, _)),)),) = tree.contents[tree.paths[b"first"]]
    assert slot == 0
    (pack,) = [path for path in station.packs() if path.name == digest.hex()]
    raw = bytearray(pack.read_bytes())
    raw[100] ^= 1  # in the first record, the content of the first file
    pack.chmod(0o600)
    pack.write_bytes(raw)
    target = station.room / "out"
    words = [str(station.storage()), str(target), "--key-file", str(station.key)]
    assert independent_reader.main(words) == 5
    assert "! first: it does not decrypt" in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == ["second"]
    assert (target / "second").read_bytes() == (station.source / "second").read_bytes()
    assert independent_reader.main([str(station.room / "nowhere"), *words[2:]]) == 4


def restored(paths: list[Any], files: list[Any], contents: list[Any], target: Path) -> list[str]:
    """Restores a snapshot whose one layer says this, and whose every chunk is `evil`. Returns what was noted."""
    notes: list[str] = []
    raw = msgspec.msgpack.encode([1, b"", paths, files, contents, []])
    key = blake3(bytes(32), derive_key_context="chatkeep v1 database set").digest()
    nothing = blake3(b"", key=key).digest()
    stack = [[0, 1, 1, [[bytes(32), 0, bytes(32)]]]]
    snapshot = SimpleNamespace(stack=stack, id_key=bytes(32), databases=0, set_digest=nothing)

    def read(_: object, kind: str, *__: object) -> bytes:
        return raw if kind == "layer" else b"evil"

    independent_reader.Writing(read, independent_reader.Notes(notes.append), snapshot, str(target)).run()
    return notes


def row(number: int, kind: int, target: bytes = b"", mode: int = 0o755) -> list[Any]:
    return [number, kind, mode, 0, 0, b"", b"", 0, 4 if kind == 1 else 0, 0, target, []]


CHUNK = (4).to_bytes(8) + bytes(4) + bytes(4) + bytes(32)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = [b"link", 2], row(2, 2, os.fsencode(outside))
    for inner in (b"link/evil", b"link/deeper/evil"):
        paths = [[b"", 1], link[0], [b"link/deeper", 4], [inner, 3]]
        target = tmp_path / f"out{len(inner)}"
        notes = restored(paths, [row(1, 0), link[1], row(3, 1), row(4, 0)], [[3, 4, 0, CHUNK]], target)
        assert (target / "link").is_symlink()
        assert list(outside.iterdir()) == []
        assert sorted(note.split(": ")[1] for note in notes) == ["it lies in what is no folder"] * 2, notes


@pytest.mark.parametrize("path", [b"../evil", b"/evil", b"a/../../evil", b"evil\0"])
def test_no_path_leads_out(path: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"leads elsewhere|is no path"):
        restored([[b"", 1], [path, 2]], [row(1, 0), row(2, 1)], [[2, 4, 0, CHUNK]], tmp_path / "out")
    assert not list(tmp_path.rglob("evil*"))


def test_what_grants_rights_is_not_restored(tmp_path: Path) -> None:
    files = [row(1, 0), [*row(2, 1, mode=0o6755)[:-1], [[b"security.capability", b"x"], [b"user.a", b"b"]]]]
    notes = restored([[b"", 1], [b"tool", 2]], files, [[2, 4, 0, CHUNK]], tmp_path / "out")
    assert (tmp_path / "out" / "tool").stat().st_mode & 0o7777 == 0o755
    assert os.listxattr(tmp_path / "out" / "tool") == ["user.a"]
    assert notes == []


def test_it_needs_nothing_of_this_project() -> None:
    tree = ast.parse(independent_reader.TEXT)
    used = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    used |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {"blake3", "zstandard"} < used
    assert {name.split(".")[0] for name in used} <= ALLOWED | sys.stdlib_module_names
