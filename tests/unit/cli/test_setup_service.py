"""The step that installs the service, with programs in place of systemd's that say what they were asked."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.config.loader import parse
from chatkeep.config.model import Config
from chatkeep.daemon.cli import setup_work, user_services
from chatkeep.daemon.cli.errors import SystemdFailed, UnitNotOurs
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.init_command import Wishes
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.setup_plan import Name, State, Step, Why
from chatkeep.daemon.cli.setup_work import Work, unit_facts, wanted_unit, write_unit
from chatkeep.daemon.cli.unit_files import Standing

Fake = Callable[[str, str], Path]
TO_DO = Step(Name.SERVICE, State.TO_DO)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a program that is found before the real one; the file returned gets a line for each call."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    def make(name: str, script: str) -> Path:
        calls, program = tmp_path / f"{name}.calls", tools / name
        calls.touch()
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{calls}"\n{script}\n')
        program.chmod(stat.S_IRWXU)
        return calls

    return make


def config(home: Path, store: str = "/mnt/backup") -> Config:
    text = f"sources:\n  - {home}/chat\nproviders:\n  - {{name: disk, type: folder, path: {store}}}\n"
    return parse(text, home / "chatkeep.yaml")


def work(home: Path, *, linger: bool = False) -> Work:
    init = Wishes(None, False, False, False, None, 1.0)
    frame = Frame(out=Output(as_json=True))
    return Work(frame, config(home), None, home / "chatkeep.yaml", False, init, lambda: linger)


def test_it_is_written_and_started(home: Path, fake: Fake) -> None:
    systemctl, loginctl = fake("systemctl", "exit 0"), fake("loginctl", "echo yes")
    done = work(home)
    done.apply([TO_DO])
    assert [step.state for step in done.steps] == [State.DONE]
    assert systemctl.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable chatkeep.service",
        "--user restart chatkeep.service",
    ]
    file = home / ".config/systemd/user/chatkeep.service"
    assert file.read_text() == wanted_unit(done.config, None)
    assert done.values[Name.SERVICE] == {"unit": file, "lingers": True}
    assert "enable-linger" not in loginctl.read_text()  # it was so already


@pytest.mark.parametrize("wanted", [False, True])
def test_running_while_logged_out_is_only_as_wanted(home: Path, fake: Fake, wanted: bool) -> None:
    fake("systemctl", "exit 0")
    loginctl = fake("loginctl", '[ "$1" = show-user ] && echo no; exit 0')
    done = work(home, linger=wanted)
    done.apply([TO_DO])
    assert ("enable-linger" in loginctl.read_text()) == wanted
    assert done.values[Name.SERVICE]["lingers"] is wanted


def test_a_service_that_may_not_run_while_logged_out_runs_all_the_same(home: Path, fake: Fake) -> None:
    fake("systemctl", "exit 0")
    fake("loginctl", '[ "$1" = show-user ] && echo no && exit 0; echo "Access denied" >&2; exit 1')
    done = work(home, linger=True)
    done.apply([TO_DO])
    assert [step.state for step in done.steps] == [State.FAILED]
    assert isinstance(done.error, SystemdFailed)
    assert done.error.params == {"command": "loginctl enable-linger", "said": "Access denied"}
    assert done.values[Name.SERVICE]["lingers"] is False


def test_a_service_that_does_not_start_is_told(home: Path, fake: Fake) -> None:
    fake("systemctl", '[ "$2" = restart ] && { echo "Job for chatkeep.service failed." >&2; exit 1; }; exit 0')
    done = work(home)
    done.apply([TO_DO])
    assert [step.state for step in done.steps] == [State.FAILED]
    assert isinstance(done.error, SystemdFailed)
    assert done.error.params["said"] == "Job for chatkeep.service failed"
    assert done.exit() == 1


def test_a_unit_of_somebody_else_is_left_alone(home: Path, fake: Fake) -> None:
    systemctl = fake("systemctl", "exit 0")
    file = home / ".config/systemd/user/chatkeep.service"
    file.parent.mkdir(parents=True)
    file.write_text("[Service]\nExecStart=/bin/true\n")
    done = work(home)
    done.apply([TO_DO])
    assert isinstance(done.error, UnitNotOurs)
    assert systemctl.read_text() == ""
    assert file.read_text() == "[Service]\nExecStart=/bin/true\n"


def test_one_that_was_changed_is_started_and_not_rewritten(home: Path, fake: Fake) -> None:
    systemctl = fake("systemctl", "exit 0")
    fake("loginctl", "echo no")
    file = home / ".config/systemd/user/chatkeep.service"
    write_unit(file, wanted_unit(config(home), None))
    file.write_text(file.read_text() + "Nice=5\n")
    done = work(home)
    done.apply([Step(Name.SERVICE, State.TO_DO, Why.EDITED)])
    assert file.read_text().endswith("Nice=5\n")
    assert "restart" in systemctl.read_text()


def test_an_older_one_of_ours_is_brought_up_to_date(home: Path) -> None:
    file = home / ".config/systemd/user/chatkeep.service"
    write_unit(file, wanted_unit(config(home), None))
    newer = wanted_unit(config(home, "/data/backup"), None)
    assert 'ReadWritePaths="-/data/backup"' in newer
    write_unit(file, newer)
    assert file.read_text() == newer


def test_a_masked_unit_is_somebody_elses(home: Path) -> None:
    file = home / ".config/systemd/user/chatkeep.service"
    file.parent.mkdir(parents=True)
    file.symlink_to("/dev/null")
    with pytest.raises(UnitNotOurs):
        write_unit(file, wanted_unit(config(home), None))
    assert os.readlink(file) == "/dev/null"


def test_the_facts(home: Path, fake: Fake) -> None:
    wanted = wanted_unit(config(home), None)
    fake("systemctl", 'case "$2" in is-active) exit 3;; *) exit 0;; esac')
    facts = unit_facts(wanted)
    assert (facts.manager, facts.standing, facts.enabled, facts.active) == (True, Standing.ABSENT, True, False)
    calls = fake("systemctl", "exit 1")
    assert not unit_facts(wanted).manager
    assert calls.read_text().splitlines()[-1] == "--user show --property=Version"


def test_a_machine_without_systemd(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert not user_services.reachable()
    assert user_services.lingers() is None
    with pytest.raises(SystemdFailed):
        user_services.start()


def test_a_manager_that_hangs_is_not_waited_for(home: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake("systemctl", "exec sleep 600")
    monkeypatch.setattr(user_services, "QUICK", 0.5)
    assert not user_services.reachable()
    assert calls.read_text() != ""


def remove(*words: str) -> int:
    return main(["setup", "--remove-unit", *words])


def test_removing(home: Path, fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    systemctl = fake("systemctl", "exit 0")
    fake("loginctl", "echo yes")
    file = home / ".config/systemd/user/chatkeep.service"
    assert remove() == 0  # nothing is there
    assert systemctl.read_text() == ""
    write_unit(file, wanted_unit(config(home), None))
    assert remove("--dry-run") == 0
    assert file.exists()
    assert remove() == 0
    assert not file.exists()
    assert systemctl.read_text().splitlines() == [
        "--user show --property=Version",
        "--user disable --now chatkeep.service",
        "--user daemon-reload",
    ]
    assert "loginctl disable-linger" in capsys.readouterr().out


def test_removing_what_is_not_ours(home: Path, fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    systemctl = fake("systemctl", "exit 0")
    file = home / ".config/systemd/user/chatkeep.service"
    file.parent.mkdir(parents=True)
    file.write_text("")
    assert remove() == 1
    assert "did not write" in capsys.readouterr().err
    assert file.exists()
    assert systemctl.read_text() == ""


def test_removing_one_that_does_not_stop(home: Path, fake: Fake) -> None:
    fake("systemctl", '[ "$2" = disable ] && exit 1; exit 0')
    file = home / ".config/systemd/user/chatkeep.service"
    write_unit(file, wanted_unit(config(home), None))
    assert remove() == 1
    assert file.exists()


def test_the_file_of_a_unit_is_read_only_so_far(home: Path) -> None:
    file = home / "unit"
    file.write_bytes(b"#" * (setup_work.MOST_UNIT + 1))
    assert setup_work.read_unit(file) == b""
    assert setup_work.read_unit(home) == b""
    assert setup_work.read_unit(home / "nothing") is None
