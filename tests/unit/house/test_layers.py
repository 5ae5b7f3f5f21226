"""The rules of the house hold in this tree, and each rule catches what it forbids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.house import rules
from tests.unit.house.rules import RULES, House, Rule

TOP = Path(__file__).parents[3]
HOUSE = House(TOP)

# A tree that breaks no rule; each case below changes one file of it.
CLEAN = {
    "pyproject.toml": """
        [tool.setuptools]
        packages = ["chatkeep.config", "chatkeep.providers", "chatkeep.daemon", "chatkeep.daemon.capture"]
        """,
    "config/__init__.py": '"""Doc."""',
    "config/errors.py": '''
        """Root.

        The tree:

            ChatkeepError
              StateError   daemon.state   own records
        """
        class ChatkeepError(Exception):
            """Doc."""
        ''',
    "providers/__init__.py": '"""Doc."""',
    "providers/folder.py": '"""Doc."""\nfrom chatkeep.config import errors',
    "daemon/__init__.py": '"""Doc."""',
    "daemon/state.py": '''
        """Doc."""
        import sqlite3
        from chatkeep.config.errors import ChatkeepError
        class StateError(ChatkeepError):
            """Doc."""
        ''',
    "daemon/backup_tree.py": '"""Doc."""\nfrom chatkeep.daemon.capture import wal\nfrom chatkeep.daemon import state',
    "daemon/backup_rows.py": '"""Doc."""\nfrom chatkeep.daemon import backup_tree',
    "daemon/sync.py": '"""Doc."""\nfrom chatkeep import providers',
    "daemon/capture/__init__.py": '"""Doc."""',
    "daemon/capture/wal.py": '''
        """Doc."""
        from __future__ import annotations
        class Reader:
            """Doc."""
            def read(self) -> None:
                """Doc."""
        class Follower(Reader):
            """Doc."""
            def read(self) -> None: ...
            def _own(self) -> None: ...
        class Places(Protocol):
            """Doc."""
            def put(self) -> None:
                """Doc."""
            @property
            def get(self) -> int:
                """Doc."""
        class Disk:
            """Doc."""
            get: ClassVar[int] = 1
            def put(self) -> None: ...
        ''',
    "tests/test_x.py": "from chatkeep.daemon.capture import wal",
    ".venv/lib/utils.py": "import daemon",
}

CASES: list[tuple[Rule, str, str, str]] = [
    (rules.arrows, "daemon/state.py", "from chatkeep.daemon.capture import wal", "state imports capture"),
    (rules.arrows, "daemon/state.py", "import chatkeep.providers.folder", "state imports providers"),
    (rules.arrows, "daemon/backup_tree.py", "from chatkeep.daemon import sync", "backup imports sync"),
    (rules.arrows, "daemon/backup_tree.py", "def f():\n    import chatkeep.daemon.cli.main", "backup imports cli"),
    (rules.arrows, "daemon/backup_tree.py", "from . import restore", "backup imports restore"),
    (rules.arrows, "daemon/capture/wal.py", "from ..backup_tree import x", "capture imports backup"),
    (rules.arrows, "daemon/capture/wal.py", "from ..vault import x", "capture imports vault"),
    (rules.arrows, "daemon/capture/wal.py", 'LATER = "chatkeep.daemon.vault.pack"', "capture imports vault"),
    (rules.arrows, "daemon/sync.py", "from chatkeep.daemon.vault.pack import Pack", "sync imports vault"),
    (rules.arrows, "daemon/sync.py", "from chatkeep.daemon.keys import root", "sync imports keys"),
    (rules.arrows, "providers/folder.py", "from chatkeep.daemon import keys", "providers imports keys"),
    (rules.arrows, "config/errors.py", "import chatkeep.providers", "config imports providers"),
    (rules.arrows, "daemon/novelty.py", '"""Doc."""', "novelty has no level"),
    (rules.arrows, "daemon/backup_tree.py", "from chatkeep.daemon import novelty", "backup imports novelty"),
    (rules.bare_imports, "tests/test_x.py", "import daemon.state", "bare import of daemon.state"),
    (rules.bare_imports, "tests/test_x.py", "from config import errors", "bare import of config.errors"),
    (rules.no_sqlite_in_capture, "daemon/capture/wal.py", "def f():\n    import sqlite3", "sqlite3 in capture"),
    (rules.sizes, "tests/test_x.py", "x = 1\n" * 501, "501 lines"),
    (rules.sizes, "bench/run.py", "def f():\n" + "    x = 1\n" * 60, "f has 61 lines"),
    (rules.sizes, "daemon/sync.py", "class C:\n" + "".join(f"    def m{i}(s): ...\n" for i in range(21)), "21 public"),
    (rules.names, "tests/test_helpers.py", "", "tests/test_helpers.py: the name says nothing"),
    (rules.names, "daemon/sync.py", "class PackManager: ...", "the name PackManager says nothing"),
    (rules.names, "daemon/sync.py", "class SQLInfo: ...", "the name SQLInfo says nothing"),
    (rules.packages, "daemon/keys/__init__.py", '"""Doc."""', "chatkeep.daemon.keys is not listed"),
    (rules.packages, "daemon/keys/root.py", '"""Doc."""', "daemon/keys: no __init__.py"),
    (
        rules.packages,
        "pyproject.toml",
        '[tool.setuptools]\npackages = ["chatkeep.bench"]',
        "chatkeep.bench does not exist",
    ),
    (rules.docstrings, "daemon/sync.py", "x = 1", "daemon/sync.py: no docstring"),
    (rules.docstrings, "daemon/sync.py", '"""Doc."""\ndef put(): ...', "put has no docstring"),
    (rules.docstrings, "daemon/sync.py", '"""Doc."""\nasync def put(): ...', "put has no docstring"),
    (rules.docstrings, "daemon/sync.py", '"""Doc."""\nclass Upload: ...', "Upload has no docstring"),
    (
        rules.docstrings,
        "daemon/sync.py",
        '"""D."""\nclass A:\n    """D."""\n    def go(self): ...',
        "go has no docstring",
    ),
    (
        rules.docstrings,
        "daemon/sync.py",
        '"""D."""\nclass A:\n    """D."""\n    def put(self): ...',
        "put has no docstring",
    ),
    (rules.error_tree, "daemon/sync.py", "class SyncError(ChatkeepError): ...", "SyncError is not drawn"),
    (rules.error_tree, "daemon/state.py", "", "StateError does not exist"),
]


def plant(top: Path, files: dict[str, str]) -> House:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").split("\n")
        margin = len(lines[0]) - len(lines[0].lstrip())
        (top / name).write_text("\n".join(line[margin:] for line in lines) + "\n")
    return House(top)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_this_tree(rule: Rule) -> None:
    assert list(rule(HOUSE)) == []


def test_this_tree_was_read() -> None:
    found = {module.path for module in HOUSE.modules}
    assert {"config/errors.py", "tests/conftest.py", "tests/unit/house/rules.py"} <= found
    assert {module.path.split("/")[0] for module in HOUSE.product} == set(rules.PACKAGES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_clean_tree_passes(tmp_path: Path, rule: Rule) -> None:
    assert list(rule(plant(tmp_path, CLEAN))) == []


@pytest.mark.parametrize(("rule", "file", "text", "said"), CASES)
def test_a_broken_tree_is_caught(tmp_path: Path, rule: Rule, file: str, text: str, said: str) -> None:
    assert any(said in line for line in rule(plant(tmp_path, {**CLEAN, file: text})))


def test_every_rule_has_a_case() -> None:
    assert {rule for rule, *_ in CASES} == set(RULES)


def test_a_bare_import_fails() -> None:
    """The folders are not importable under their bare names where the product runs: from any other directory."""
    for name in rules.PACKAGES:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd="/", capture_output=True, text=True, check=False
        )
        assert "ModuleNotFoundError" in done.stderr, name
