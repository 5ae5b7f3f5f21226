"""The package in `examples/`, really installed: the real command finds its type, and a vault lives in it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.support.station import fill, rows

SOURCE = Path(__file__).parents[2] / "examples/sqlite"
PACKAGES = sysconfig.get_path("purelib")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what this one has, and the package. Nothing is fetched."""
    room = tmp_path_factory.mktemp("example")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", room / "venv"], check=True, timeout=120)
    python = room / "venv/bin/python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    (Path(own.stdout.strip()) / "shared.pth").write_text(f"import site; site.addsitedir({PACKAGES!r})\n")
    shutil.copytree(SOURCE, room / "package")  # building leaves things beside the sources
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--no-cache-dir", room / "package"], check=True, timeout=300, cwd=room, env=_plain())
    return python


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}


class Machine:
    """A source, a configuration with the type, and the command of that environment."""

    def __init__(self, room: Path, python: Path) -> None:
        self.room, self.python = room, python
        self.source, self.config, self.vault = room / "chat", room / "chatkeep.yaml", room / "stick" / "vault.db"
        for folder in (self.source, self.vault.parent, room / "runtime"):
            folder.mkdir(mode=0o700)
        self.config.write_text(
            f"sources:\n  - {self.source}\nproviders:\n  - {{name: stick, type: sqlite, path: {self.vault}}}\n"
            f"state_dir: {room / 'state'}\n"
        )

    def run(self, *words: object) -> tuple[int, Any]:
        words = (self.python, "-m", "chatkeep.daemon.cli.main", "--config", self.config, *words, "--json")
        environment = {**_plain(), "XDG_RUNTIME_DIR": str(self.room / "runtime")}
        done = subprocess.run(
            [*map(str, words)], env=environment, capture_output=True, text=True, timeout=180, cwd=self.room
        )
        return done.returncode, json.loads(done.stdout)

    def ok(self, *words: object) -> Any:
        code, said = self.run(*words)
        assert code == 0, (words, said)
        return said


def test_a_vault_in_a_type_from_a_package(tmp_path: Path, python: Path) -> None:
    machine = Machine(tmp_path, python)
    fill(machine.source / "messages.db")
    machine.ok("config", "check")
    machine.ok("init", "--recovery-key-file", tmp_path / "key.txt")
    machine.ok("backup")
    assert machine.ok("verify")["providers"][0]["findings"] == []
    with sqlite3.connect(machine.vault) as vault:
        kinds = {name.split("/")[0] for (name,) in vault.execute("SELECT name FROM objects")}
    vault.close()
    assert {"vault", "epochs", "slots", "devices", "d"} <= kinds
    machine.ok("restore", "latest", "--target", tmp_path / "out", "--key-file", tmp_path / "key.txt")
    assert len(rows(tmp_path / "out/messages.db")) == 200


def test_a_stick_that_is_not_plugged_in_becomes_no_file_elsewhere(tmp_path: Path, python: Path) -> None:
    machine = Machine(tmp_path, python)
    fill(machine.source / "messages.db")
    machine.ok("init", "--recovery-key-file", tmp_path / "key.txt")
    away = machine.vault.rename(tmp_path / "away.db")
    code, said = machine.run("backup")
    assert (code, [error["code"] for error in said["providers"][0]["errors"]]) == (4, ["storage-missing"])
    assert not machine.vault.exists()
    away.rename(machine.vault)
    machine.ok("backup")


def test_without_the_package_the_type_is_unknown(tmp_path: Path, python: Path) -> None:
    machine = Machine(tmp_path, Path(sys.executable))
    code, said = machine.run("config", "check")
    assert code != 0
    assert "sqlite" in json.dumps(said)
