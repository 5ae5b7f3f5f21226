"""The program that is given problems: what it gets, what it does not, and that it cannot hold anything up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.telling.command import KEPT, Command, environment, run
from chatkeep.daemon.service.telling.errors import Undelivered
from chatkeep.daemon.service.telling.notice import Notice, Problem, Said
from tests.support.telling import AT, TOKEN

NOTICE = Notice(Problem.HELD, "", False, AT.wall_ns, AT)
SAID = Said("Uploads wait", "They wait for an unlock.", "chatkeep unlock")


def python(directory: Path, text: str) -> list[str]:
    script = directory / "told.py"
    script.write_text(text)
    return [sys.executable, "-I", str(script), str(directory)]


def gone(pid: int) -> bool:
    """Whether a process has ended, or soon does."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def told(arguments: list[str], seconds: float = 30) -> tuple[str, list[Event]]:
    """Why it failed, and what happened."""
    bus, heard = Bus(), []  # type: ignore[var-annotated]
    bus.subscribe(heard.append)

    async def deliver() -> str:
        command = Command(arguments, bus, seconds)
        try:
            await command.deliver(NOTICE, SAID)
        except Undelivered as error:
            assert error.params["channel"] == "command"  # noqa: PT017
            return f"{error.params['reason']} {error.params.get('status', error.params.get('errno', ''))}".strip()
        finally:
            await command.close()
        return ""

    return asyncio.run(deliver()), heard


def test_it_gets_the_problem_as_json_and_an_environment_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "CHATKEEP_KEY", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD_X"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    arguments = python(
        tmp_path,
        "import json, os, sys\n"
        "seen = {'env': dict(os.environ), 'in': sys.stdin.read(), 'cwd': os.getcwd(),"
        " 'fds': os.listdir('/proc/self/fd'), 'leads': os.getsid(0) == os.getpid()}\n"
        "open(sys.argv[1] + '/seen', 'w').write(json.dumps(seen))\n",
    )
    reason, heard = told(arguments)
    assert (reason, heard) == ("", [])
    seen: dict[str, Any] = json.loads((tmp_path / "seen").read_text())
    assert json.loads(seen["in"])["problem"] == "held-too-long"
    assert json.loads(seen["in"])["message"] == "They wait for an unlock.\nchatkeep unlock"
    assert TOKEN not in json.dumps(seen)
    assert seen["env"]["LC_TIME"] == "C.UTF-8"
    assert seen["env"]["PATH"]
    assert seen["cwd"] == "/"
    assert seen["leads"]
    assert len(seen["fds"]) == 4  # three, and the listing itself


def test_what_is_passed_on() -> None:
    ours = {"HOME": "/h", "LC_ALL": "C", "SECRET": "x", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/x", "PATH": "/p"}
    assert environment(ours) == {k: v for k, v in ours.items() if k != "SECRET"}
    assert environment({}) == {"PATH": os.defpath}


def test_its_output_is_bounded_and_for_debugging_only(tmp_path: Path) -> None:
    arguments = python(
        tmp_path, "import sys\nsys.stdout.write('a' * 3_000_000)\nsys.stderr.write('end')\nsys.exit(3)\n"
    )
    reason, heard = told(arguments)
    assert reason == "failed 3"
    (event,) = heard
    assert (event.kind, event.values, len(event.detail["output"])) == (Kind.COMMAND_ENDED, {"status": 3}, KEPT)


def test_one_that_reads_nothing_is_no_failure(tmp_path: Path) -> None:
    ended = run([sys.executable, "-I", "-c", "pass"], b"x" * 1_000_000, {}, 30, threading.Event())
    assert ended == (0, b"")


def test_one_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    arguments = python(
        tmp_path,
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1] + '/pids', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "time.sleep(600)\n",
    )
    before = time.monotonic()
    reason, _ = told(arguments, 3)
    assert reason == "silent"
    assert time.monotonic() - before < 30
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_one_that_ends_politely_leaves_nothing_behind(tmp_path: Path) -> None:
    arguments = python(
        tmp_path,
        "import os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-I', '-c',"
        " 'import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)'],"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "open(sys.argv[1] + '/pids', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n",
    )
    stop, ends = threading.Event(), []
    runner = threading.Thread(target=lambda: ends.append(run(arguments, b"", dict(os.environ), 60, stop)))
    runner.start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    while not (text := (tmp_path / "pids").read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    runner.join(20)
    assert ends[0].status is None
    assert gone(int(text))


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    arguments = python(
        tmp_path,
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1] + '/pids', 'w').write(str(child.pid))\n"
        "print('said')\n",
    )
    before = time.monotonic()
    reason, heard = told(arguments, 60)
    assert reason == ""
    assert time.monotonic() - before < 30
    assert heard[0].detail["output"] == "said\n"
    os.kill(int((tmp_path / "pids").read_text()), 9)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["/nonexistent/program"], "start 2"),
        (["/"], "start 13"),
        (["a\0b"], "start 0"),
        (["/bin/sh", "-c", "kill -9 $$"], "failed -9"),
    ],
)
def test_one_that_cannot_be_run(arguments: list[str], reason: str) -> None:
    assert told(arguments)[0] == reason


def test_arguments_are_no_words_of_a_shell(tmp_path: Path) -> None:
    evil = f"$(touch {tmp_path}/evil); `touch {tmp_path}/evil`"
    reason, heard = told(["/bin/echo", evil])
    assert reason == ""
    assert heard[0].detail["output"] == f"{evil}\n"
    assert not (tmp_path / "evil").exists()
