"""Opening the page in a browser: the link goes by a file of our own, and into no process's arguments or environment."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
from pathlib import Path

import pytest

from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import Ready
from chatkeep.daemon.control.ceremony.opening import Redirect, has_desktop, open_file
from chatkeep.daemon.keys.passkey import Question
from tests.support.soft_passkey import Person, SoftPage, SoftPasskey

URL = "http://localhost:1/#" + "t" * 43


SECONDS = 20.0  # for a gesture that takes one: what fails is not waited for
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, False),
        ({"DISPLAY": ""}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "a b c d"}, False),
        ({"DISPLAY": ":0", "SSH_TTY": "/dev/pts/1"}, False),
    ],
)
def test_whether_a_browser_would_be_in_front_of_the_person(environment: dict[str, str], found: bool) -> None:
    assert has_desktop(environment) is found


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    return folder


def test_the_file_is_ours_alone_and_goes(runtime: Path) -> None:
    redirect = Redirect(URL, {"XDG_RUNTIME_DIR": str(runtime)})
    facts = os.stat(redirect.path)
    assert os.path.dirname(redirect.path) == str(runtime)
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o600, os.geteuid())
    assert URL in Path(redirect.path).read_text()
    assert URL not in redirect.path
    redirect.remove()
    redirect.remove()
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("why", ["absent", "unset", "open to others"])
def test_without_a_directory_of_our_own_one_is_made(runtime: Path, why: str) -> None:
    given = {"absent": str(runtime / "x"), "unset": None, "open to others": str(runtime)}[why]
    runtime.chmod(0o755)
    redirect = Redirect(URL, {} if given is None else {"XDG_RUNTIME_DIR": given})
    folder = os.path.dirname(redirect.path)
    assert folder != str(runtime)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(redirect.path).st_mode) == 0o600
    redirect.remove()
    assert not os.path.exists(folder)


def test_without_a_program_that_opens_it_nothing_is_opened(tmp_path: Path) -> None:
    assert open_file("/x.html", {"PATH": str(tmp_path)}) is False
    (tmp_path / "xdg-open").write_text("no program")
    (tmp_path / "xdg-open").chmod(0o755)
    assert open_file("/x.html", {"PATH": str(tmp_path)}) is False


def desktop(folder: Path) -> str:
    """A directory with an xdg-open that notes what it is given, and says through a pipe when it has."""
    folder.mkdir()
    os.mkfifo(folder / "done")
    program = folder / "xdg-open"
    program.write_text(
        "#!/bin/sh\n"
        f'env > "{folder}/environment"; printf %s "$*" > "{folder}/arguments"; cat "$1" > "{folder}/content"\n'
        f'ls -l /proc/self/fd > "{folder}/open"; grep ^SigIgn /proc/$$/status > "{folder}/ignored"\n'
        f'echo done > "{folder}/done"\n'
    )
    program.chmod(0o755)
    return str(folder)


def wait_for(desktop: Path) -> None:
    """Waits until xdg-open was run."""
    descriptor = os.open(desktop / "done", os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(30_000), "nothing was opened"
    finally:
        os.close(descriptor)


def test_a_ceremony_opens_the_desktops_browser(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", desktop(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setenv("A_SECRET_OF_THE_SHELL", "x")
    monkeypatch.setenv("LD_PRELOAD", "")
    for name in ("SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    passkey = SoftPasskey()

    def act(page: SoftPage) -> None:
        wait_for(tmp_path / "bin")
        assert len(list(runtime.iterdir())) == 1
        page.begin()
        assert list(runtime.iterdir()) == []  # the link has been used, and lies about no longer
        page.got(page.say(say="next"), passkey)

    person = Person(act)
    with ChildCeremony("browser", vault="V", user="U", steps=1, tell=person.tell, deadline=SECONDS) as asked:
        asked.ask([Question(passkey.credential, bytes(32))])
        asked.end()
    person.leave()
    ready = person.told[0]
    assert isinstance(ready, Ready)
    assert ready.opened
    seen = {path.name: path.read_text() for path in (tmp_path / "bin").iterdir() if path.is_file()}
    token = ready.url.partition("#")[2]
    assert token in seen["content"]
    assert seen["arguments"].startswith(f"{runtime}/chatkeep-")
    assert token not in seen["arguments"] + seen["environment"]
    names = {line.partition("=")[0] for line in seen["environment"].splitlines()}
    assert {"PATH", "DISPLAY", "XDG_RUNTIME_DIR"} <= names
    assert not {"A_SECRET_OF_THE_SHELL", "LD_PRELOAD"} & names
    assert "socket:" not in seen["open"]  # neither the channel nor the page's port
    ignored = int(seen["ignored"].split()[1], 16)
    assert not [number for number in ENDS if ignored >> (number - 1) & 1]


def test_what_ends_the_whole_group_leaves_no_link_behind(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal is closed, say: the ceremony is told as the command is, and the command ends."""
    monkeypatch.setenv("PATH", desktop(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("DISPLAY", ":7")
    for name in ("SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    with ChildCeremony("browser", vault="V", user="U", steps=1, tell=lambda _: None, deadline=SECONDS) as asked:
        wait_for(tmp_path / "bin")
        assert len(list(runtime.iterdir())) == 1
        for number in ENDS:
            os.kill(asked._process.pid, number)
        asked._channel._socket.shutdown(socket.SHUT_RDWR)
        assert asked._process.wait(60) == 1
        assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("gone", ["nothing to open it with", "told not to"])
def test_a_page_that_is_not_opened_says_so(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path) if gone == "nothing to open it with" else desktop(tmp_path / "bin"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("DISPLAY", ":7")
    for name in ("SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    passkey = SoftPasskey()

    def act(page: SoftPage) -> None:
        page.begin()
        page.got(page.say(say="next"), passkey)

    person, told_to = Person(act), gone != "told not to"
    with ChildCeremony(
        "browser", vault="V", user="U", steps=1, tell=person.tell, deadline=SECONDS, open_browser=told_to
    ) as asked:
        asked.ask([Question(passkey.credential, bytes(32))])
        asked.end()
    person.leave()
    assert isinstance(person.told[0], Ready)
    assert not person.told[0].opened
    assert list(runtime.iterdir()) == []
    assert not (tmp_path / "bin" / "arguments").exists()
