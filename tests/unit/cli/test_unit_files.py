"""The unit as it is written for a user, and whose it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chatkeep.daemon.cli.unit_files import Standing, quoted, rendered, standing

SHIPPED = "[Service]\nType=notify\nExecStart=/usr/bin/chatkeep run\nExecReload=/bin/kill -HUP $MAINPID\n"


def exec_start(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return line


def test_the_program_of_this_user_is_started() -> None:
    text = rendered(SHIPPED, ["/home/a/.local/bin/chatkeep"], None)
    assert exec_start(text) == "ExecStart=/home/a/.local/bin/chatkeep run"
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text


def test_a_configuration_elsewhere_is_named() -> None:
    text = rendered(SHIPPED, ["/opt/python", "-m", "chatkeep"], Path("/srv/my chat/100%.yaml"))
    assert exec_start(text) == 'ExecStart=/opt/python -m chatkeep run --config "/srv/my chat/100%%.yaml"'


@pytest.mark.parametrize("word", ["/a b", 'a"b', "a\\b", "50%", "$HOME", "'", "a;b", "ü", 'x y\\z"%$', "plain"])
def test_words_reach_the_program_as_they_are(word: str, tmp_path: Path) -> None:
    """Read back by systemd itself: it takes the line apart, and shows what it would run."""
    target = tmp_path / "unit"
    target.mkdir()
    (target / "words.service").write_text(f"[Service]\nType=oneshot\nExecStart=/bin/echo {quoted(word)}\n")
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(target / "words.service")],
        capture_output=True,
        text=True,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (quoted(word)[0] == '"') == (word not in {"50%", "$HOME", "plain"})


def test_whose_file_it_is() -> None:
    now = rendered(SHIPPED, ["/new/chatkeep"], None)
    before = rendered(SHIPPED, ["/old/chatkeep"], None)
    assert standing(None, now) is Standing.ABSENT
    assert standing(now.encode(), now) is Standing.SAME
    assert standing(before.encode(), now) is Standing.OLDER
    assert standing((before + "Nice=5\n").encode(), now) is Standing.EDITED
    assert standing((now + "Nice=5\n").encode(), now) is Standing.EDITED
    assert standing(SHIPPED.encode(), now) is Standing.FOREIGN
    assert standing(b"", now) is Standing.FOREIGN


def test_it_is_python_that_runs_where_there_is_no_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from chatkeep.daemon.cli import user_services

    script = tmp_path / "chatkeep"
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert user_services.own_command() == (str(script),)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "main.py")])
    assert user_services.own_command() == (sys.executable, "-m", "chatkeep.daemon.cli.main")
