"""The unit as it is written for a user, and whose it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chatkeep.daemon.cli.unit_files import ForUser, Standing, out_of_reach, quoted, rendered, shipped, standing

SHIPPED = "[Service]\nType=notify\nExecStart=/usr/bin/chatkeep run\nExecReload=/bin/kill -HUP $MAINPID\n"


def exec_start(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return line


def test_the_program_of_this_user_is_started() -> None:
    text = rendered(SHIPPED, ForUser(["/home/a/.local/bin/chatkeep"]))
    assert exec_start(text) == "ExecStart=/home/a/.local/bin/chatkeep run"
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text


def test_a_configuration_elsewhere_is_named() -> None:
    text = rendered(SHIPPED, ForUser(["/opt/python", "-m", "chatkeep"], Path("/srv/my chat/100%.yaml")))
    assert exec_start(text) == 'ExecStart=/opt/python -m chatkeep run --config "/srv/my chat/100%%.yaml"'


def test_where_else_it_writes() -> None:
    home = Path("/home/a")
    own = [home / "backup", Path("/mnt/disk/vault"), Path("/media/a/disk"), Path("/run/media/a/disk"), home]
    elsewhere = [Path("/data/my vault"), Path("/home/ab"), Path("/mnt2/x")]
    assert out_of_reach([*own, *elsewhere, *elsewhere], home) == sorted(elsewhere)


def verified(text: str, tmp_path: Path) -> tuple[int, str]:
    """What systemd itself says of a unit."""
    file = tmp_path / "unit" / "chatkeep.service"
    file.parent.mkdir()
    file.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(file)],
        capture_output=True,
        text=True,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=False,
    )
    return done.returncode, done.stderr


def test_systemd_takes_what_is_made_of_the_shipped_unit(tmp_path: Path) -> None:
    user = ForUser(
        [sys.executable, "-m", "chatkeep.daemon.cli.main"],
        Path("/srv/my chat/100%.yaml"),
        [Path('/data/my "vault" 100%')],
        {"XDG_STATE_HOME": "/data/my state"},
    )
    text = rendered(shipped(), user)
    assert verified(text, tmp_path) == (0, "")
    assert 'ReadWritePaths="-/data/my \\"vault\\" 100%%"' in text
    assert 'Environment="XDG_STATE_HOME=/data/my state"' in text
    assert not any("@CHATKEEP@" in line for line in text.splitlines() if not line.startswith("#"))
    assert exec_start(text).startswith(f"ExecStart={sys.executable} -m chatkeep.daemon.cli.main run --config ")


def test_a_mistake_in_a_unit_would_be_seen(tmp_path: Path) -> None:
    code, said = verified("[Service]\nExecStart=/bin/true\nReadWritePath=/x\n", tmp_path)
    assert (code, "ReadWritePath" in said) == (0, True)


@pytest.mark.parametrize("word", ["/a b", 'a"b', "a\\b", "50%", "$HOME", "'", "a;b", "ü", 'x y\\z"%$', "plain"])
def test_words_reach_the_program_as_they_are(word: str, tmp_path: Path) -> None:
    """Read back by systemd itself: it takes the line apart, and shows what it would run."""
    assert verified(f"[Service]\nType=oneshot\nExecStart=/bin/echo {quoted(word)}\n", tmp_path) == (0, "")
    assert (quoted(word)[0] == '"') == (word not in {"50%", "$HOME", "plain"})


def test_whose_file_it_is() -> None:
    now = rendered(SHIPPED, ForUser(["/new/chatkeep"]))
    before = rendered(SHIPPED, ForUser(["/old/chatkeep"]))
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
