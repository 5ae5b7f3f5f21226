"""What systemd itself says of the units, without running them. The same units run in tests/systemd."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
USER, SYSTEM = "chatkeep.service", "chatkeep@.service"
# systemd-analyze's figure, times ten, that a unit may have at most; docs/systemd.md names it.
MOST = {USER: 18, SYSTEM: 15}
# Refused by a user's manager of systemd 252, or void there, as tried in it.
NOT_FOR_USERS = {"ProtectKernelLogs", "DynamicUser", "RootDirectory", "SecureBits", "User", "RemoveIPC", "KeyringMode"}


def analyzed(path: Path, *words: str, user: bool = False) -> tuple[int, str]:
    """What it returns, and all that it says."""
    command = ["systemd-analyze", *(["--user"] if user else []), *words, str(path)]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
    environment["XDG_RUNTIME_DIR"] = str(path.parent)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, timeout=60, check=False
    )
    return done.returncode, done.stdout


def written(directory: Path, name: str, change: tuple[str, str] = ("", "")) -> Path:
    """A unit with a program that exists; `change`: a text in it, and another for it."""
    text = (TOP / "systemd" / name).read_text(encoding="utf-8").replace("ExecStart=@CHATKEEP@", "ExecStart=/bin/true")
    assert change[0] in text
    path = directory / name
    path.write_text(text.replace(*change, 1) if change[0] else text)
    return path


@pytest.mark.parametrize("name", [USER, SYSTEM])
def test_systemd_has_nothing_to_say(tmp_path: Path, name: str) -> None:
    assert analyzed(written(tmp_path, name), "verify", user=name == USER) == (0, "")


@pytest.mark.parametrize("name", [USER, SYSTEM])
@pytest.mark.parametrize(
    "change",
    [
        ("PrivateTmp=", "PrivatTmp="),
        ("RestrictRealtime=yes", "RestrictRealtime=maybe"),
        ("@system-service", "@sistem-service"),
        ("/bin/true", "/bin/nothing-of-this-name"),
        ("[Install]", "[Instal]"),
    ],
)
def test_a_slip_is_noticed(tmp_path: Path, name: str, change: tuple[str, str]) -> None:
    """systemd takes most slips for a setting that it does not know, warns, and starts the service without it."""
    _, said = analyzed(written(tmp_path, name, change), "verify", user=name == USER)
    assert said


@pytest.mark.parametrize("name", [USER, SYSTEM])
def test_how_much_is_left_open(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    code, said = analyzed(path, "security", "--offline=true", "--no-pager", f"--threshold={MOST[name]}")
    assert code == 0, said
    less = written(tmp_path, name, ("NoNewPrivileges=yes", "NoNewPrivileges=no"))
    code, _ = analyzed(less, "security", "--offline=true", "--no-pager", f"--threshold={MOST[name]}")
    assert code != 0


@pytest.mark.parametrize("name", [USER, SYSTEM])
def test_every_line_is_explained(name: str) -> None:
    """A group of settings stands below a comment; nothing stands in a unit because it stood in another one."""
    explained, section = False, ""
    for line in (TOP / "systemd" / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
        if line.startswith("#"):
            explained = True
        elif not line or line.startswith("["):
            explained = False
        elif section == "[Service]" and not line.startswith("ExecStart="):
            assert explained, line


def test_a_user_has_only_what_works_for_users() -> None:
    text = (TOP / "systemd" / USER).read_text(encoding="utf-8")
    settings = set(re.findall(r"^(\w+)=", text, re.MULTILINE))
    assert not settings & NOT_FOR_USERS
    assert "PrivateUsers=yes" in text, "without it the file system rules of a user's unit do nothing, and say nothing"
    assert "RuntimeDirectory" not in settings, "a restart would end the session"


def test_callers_of_the_system_unit_are_known() -> None:
    text = (TOP / "systemd" / SYSTEM).read_text(encoding="utf-8")
    assert not re.search(r"^PrivateUsers=", text, re.MULTILINE), "every other user would seem to be nobody"


def test_both_are_installed_with_the_program() -> None:
    import importlib.resources

    shipped = importlib.resources.files("chatkeep.systemd")
    for name in (USER, SYSTEM):
        text = shipped.joinpath(name).read_text(encoding="utf-8")
        assert len(re.findall(r"^ExecStart=@CHATKEEP@ run$", text, re.MULTILINE)) == 1
