"""A machine that boots: this one's own files under another root, with systemd as process 1, a bus, logind, users.

Nothing that it writes reaches this machine: its disk is memory, laid over the files here (overlayfs), and it has no
network. Everything goes with the process that starts it, killed or not. Needs root, and systemd-nspawn.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).resolve().parents[2]
ALICE, ALICE_ID = "alice", 4001
HOME: Final = Path("/home") / ALICE
_BOOT_WITHIN, _RUN_WITHIN = 60.0, 60.0
# Mounts are made in a name space of their own, and the process tree hangs on the first process, which ends with us.
_START: Final = r"""
set -e
room=$1; cgroups=$2; image=$room/image; shift 2
for cgroup in $cgroups; do echo $$ > $cgroup/cgroup.procs; done
mount -t tmpfs -o mode=755 tmpfs $room
mkdir $room/upper $room/work $image
mount -t overlay overlay -o lowerdir=/,upperdir=$room/upper,workdir=$room/work $image
. "$MACHINE_FILES"
exec systemd-nspawn --quiet --boot --directory=$image --register=no --keep-unit --console=pipe --private-network \
  --link-journal=no --system-call-filter="@memlock @keyring memfd_secret" "$@"
"""
_FILES: Final = r"""
rm -rf $image/etc/systemd/system/*.wants $image/etc/systemd/system/default.target $image/etc/systemd/user/*.wants
rm -f $image/etc/machine-id $image/var/lib/systemd/linger/* $image/etc/nologin
: > $image/etc/machine-id
echo "{user}:x:{uid}:{uid}::{home}:/bin/sh" >> $image/etc/passwd
echo "{user}:x:{uid}:" >> $image/etc/group
echo "{user}:*:19000::::::" >> $image/etc/shadow
rm -rf $image{home}
mkdir -p $image{home} $image/var/lib/systemd/linger
chown {uid}:{uid} $image{home}
chmod 700 $image{home}
for way in {ways}; do chmod o+x $image$way; done
"""


class Machine:
    """One that runs."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def run(self, *words: str, user: bool = False, check: bool = True) -> str:
        """Runs a command in it, as root or as the user, and returns what it printed."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        command = ["nsenter", f"--target={self.leader}", *("-m", "-u", "-i", "-n", "-p", "-C"), "--wd=/"]
        if user:
            environment |= {"XDG_RUNTIME_DIR": f"/run/user/{ALICE_ID}", "HOME": str(HOME), "USER": ALICE}
            command += ["setpriv", f"--reuid={ALICE_ID}", f"--regid={ALICE_ID}", "--clear-groups"]
        command += ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), *words]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RUN_WITHIN, check=False
        )
        if check:
            assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def systemctl(self, *words: str, user: bool = True, check: bool = True) -> str:
        """`systemctl`, of the user's manager or the system's."""
        return self.run("systemctl", *(["--user"] if user else []), *words, user=user, check=check)

    def serves_user(self) -> bool:
        """Whether the user's manager has started."""
        return self.systemctl("is-system-running", check=False).strip() in ("running", "degraded")

    def shows(self, unit: str, name: str, user: bool = True) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit, user=user).rstrip("\n")

    def journal(self, unit: str, user: bool = True) -> str:
        """What a unit said, and what was said of it."""
        names = ("_SYSTEMD_USER_UNIT", "USER_UNIT") if user else ("_SYSTEMD_UNIT", "UNIT")
        matches = [f"{names[0]}={unit}", "+", f"{names[1]}={unit}"]
        return self.run("journalctl", "--no-pager", "--output=cat", *matches)

    def write(self, path: Path, text: str | bytes, mode: int = 0o644, user: bool = False) -> None:
        """A file in it. `user`: hers, with the directories that lead there."""
        inside = self.at(path)
        missing = [each for each in reversed(path.parents) if not self.at(each).exists()]
        for each in missing:
            self.at(each).mkdir()
            if user:
                os.chown(self.at(each), ALICE_ID, ALICE_ID)
        inside.write_bytes(text.encode() if isinstance(text, str) else text)
        inside.chmod(mode)
        if user:
            os.chown(inside, ALICE_ID, ALICE_ID)

    def at(self, path: Path) -> Path:
        """The same path, as seen from here."""
        return Path(f"/proc/{self.leader}/root") / path.relative_to("/")

    def until(self, holds: Callable[[], object], within: float = 20.0, tell: Callable[[], object] = str) -> None:
        """Waits until it holds, and fails when it does not."""
        deadline = time.monotonic() + within
        while not holds():
            assert time.monotonic() < deadline, tell()
            time.sleep(0.05)

    @contextlib.contextmanager
    def login(self, name: str) -> Iterator[str]:
        """The user is logged in; the id of that session."""
        before = self.sessions()
        self.run(
            *("systemd-run", "--quiet", f"--unit={name}", "--property=PAMName=login", f"--property=User={ALICE}"),
            *("--setenv=XDG_SESSION_CLASS=user", "sleep", "infinity"),
        )
        try:
            self.until(lambda: self.sessions() - before, tell=lambda: self.journal(name, user=False))
            yield (self.sessions() - before).pop()
        finally:
            self.run("systemctl", "stop", name, check=False)

    def sessions(self) -> set[str]:
        """Ids of her logins, as logind has them."""
        lines = self.run("loginctl", "list-sessions", "--no-legend").splitlines()
        return {line.split()[0] for line in lines if line.split()[1] == str(ALICE_ID)}


@contextlib.contextmanager
def booted(room: Path) -> Iterator[Machine]:
    """A machine that is up, with a user manager for the user. `room`: an empty directory."""
    assert os.geteuid() == 0, "a machine can be booted by root only"
    hidden = [name for name in ("tmp", "var/tmp", "run", "dev") if Path("/") / name in TOP.parents]
    assert not hidden, f"units have a /{hidden[0]} of their own, and do not see {TOP}: check it out elsewhere"
    assert shutil.which("systemd-nspawn"), "systemd-nspawn is missing: apt-get install systemd-container"
    cgroups = _cgroups(f"chatkeep-{os.getpid()}-{time.monotonic_ns()}")
    files = room.parent / f"{room.name}.sh"
    places = [Path(sys.base_prefix), TOP]
    ways = {each for place in places for each in (place, *place.parents)} - {Path("/")}
    text = _FILES.format(user=ALICE, uid=ALICE_ID, home=HOME, ways=" ".join(shlex.quote(str(way)) for way in ways))
    files.write_text(text)
    # What is on another disk is not below the root that is laid over.
    binds = [f"--bind-ro={place}" for place in places if place.stat().st_dev != Path("/").stat().st_dev]
    command = ["setpriv", "--pdeathsig=TERM", "unshare", "--mount", "--propagation=private"]
    command += ["bash", "-c", _START, "start", str(room), " ".join(cgroups), f"--machine=ck{time.monotonic_ns()}"]
    log = room.parent / f"{room.name}.log"
    with log.open("wb") as output:
        started = subprocess.Popen(
            [*command, *binds],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "MACHINE_FILES": str(files)},
            start_new_session=True,
        )
    try:
        yield _up(started, log)
    finally:
        leader = _leader(started)
        if leader is None:
            started.kill()
        else:
            os.kill(leader, signal.SIGKILL)  # with its process 1 a machine ends; without nspawn it would go on
        started.wait(30)
        _let_go(cgroups)


def _up(started: subprocess.Popen[bytes], log: Path) -> Machine:
    deadline = time.monotonic() + _BOOT_WITHIN
    while time.monotonic() < deadline:
        assert started.poll() is None, log.read_text(errors="replace")
        leader = _leader(started)
        if leader is not None:
            machine = Machine(leader)
            if machine.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"):
                machine.run("loginctl", "enable-linger", ALICE)
                machine.until(machine.serves_user)
                return machine
        time.sleep(0.05)
    raise AssertionError(f"it does not boot: {log.read_text(errors='replace')}")


def _leader(started: subprocess.Popen[bytes]) -> int | None:
    """Process 1 of the machine, by its number here. What runs before it must not be taken for it: a command for the
    machine would be run here."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for pid in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                numbers = line.removeprefix("NSpid:").split()
                if line.startswith("NSpid:") and len(numbers) > 1 and numbers[-1] == "1":
                    return int(pid)
    return None


def _cgroups(name: str) -> list[str]:
    """New control groups below our own, one of each tree: two machines must not have the same."""
    top = Path("/sys/fs/cgroup")
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = {controllers: path.lstrip("/") for _, controllers, path in lines}
    if (top / "cgroup.controllers").exists():
        places = [top / own[""]]
    else:
        places = [top / "systemd" / own["name=systemd"], top / "unified" / own.get("", "")]
    made = [place / name for place in places if place.is_dir()]
    for each in made:
        each.mkdir()
    return [str(each) for each in made]


def _let_go(cgroups: list[str]) -> None:
    """Removes what the machine left of them, once its last process is gone."""
    deadline = time.monotonic() + 20
    for top in cgroups:
        for below, _, _ in os.walk(top, topdown=False):
            while True:
                try:
                    os.rmdir(below)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    assert time.monotonic() < deadline, f"{below} does not end"
                    time.sleep(0.02)
