"""The options of the test run itself, seen from outside: a run in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[2] / "conftest.py"
TESTS = """
import pytest

@pytest.mark.long
def test_long(): pass

def test_short(): pass

def test_seeded(seed): assert seed < 0
"""


def run(where: Path, *options: str) -> str:
    shutil.copy(CONFTEST, where / "conftest.py")
    (where / "test_planted.py").write_text(TESTS)
    (where / "pytest.ini").write_text("[pytest]\nmarkers = long: x\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(CONFTEST.parents[1])},  # it imports from tests.support
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # test_seeded always fails
    return done.stdout


@pytest.mark.parametrize("spread", [("-n0",), ("-n1",)])
def test_long_tests_are_left_out_and_counted(tmp_path: Path, spread: tuple[str]) -> None:
    shown = run(tmp_path, *spread)
    assert "1 long tests were left out" in shown
    assert "skipped" not in shown
    assert "1 failed, 1 passed" in shown


def test_long_tests_run_when_asked_for(tmp_path: Path) -> None:
    shown = run(tmp_path, "--long", "-n0")
    assert "left out" not in shown
    assert "1 failed, 2 passed" in shown


def test_a_failure_names_its_seed_and_the_seed_can_be_given(tmp_path: Path) -> None:
    shown = run(tmp_path, "-n0", "--seed", "42")
    assert "replay with --seed 42" in shown
    assert "assert 42 < 0" in shown
