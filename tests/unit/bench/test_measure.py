"""What a command uses is what is reported: its own, its children's, and nothing of the benchmark's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.measure import CommandFailed, measure

SPIN = "import time\nwhile time.process_time() < 0.3: pass\n"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}], check=True)"
GROW = "block = b'x' * (80 << 20); assert block"


def run(tmp_path: Path, *command: str) -> tuple[float, int]:
    used = measure(command, env=os.environ, log=tmp_path / "log")
    return used.cpu, used.rss


def test_cpu_of_children_counts(tmp_path: Path) -> None:
    cpu, _ = run(tmp_path, sys.executable, "-c", CHILD)
    assert 0.3 <= cpu < 5


def test_memory_is_the_command_s_own(tmp_path: Path) -> None:
    ballast = b"x" * (300 << 20)  # of the process that measures
    _, small = run(tmp_path, "true")
    _, large = run(tmp_path, sys.executable, "-c", GROW)
    del ballast
    assert small < 40 << 20
    assert 80 << 20 < large < 200 << 20


def test_a_command_that_fails_is_no_measure(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"(?s)ended with 3.*the reason"):
        run(tmp_path, sys.executable, "-c", "print('the reason'); raise SystemExit(3)")
    with pytest.raises(CommandFailed, match="cannot be started"):
        run(tmp_path, str(tmp_path / "nothing"))


def test_output_goes_to_the_log_and_the_place_is_given(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    measure(["pwd"], env=os.environ, log=tmp_path / "log", cwd=tmp_path / "here")
    assert (tmp_path / "log").read_text().strip().endswith("/here")
