"""In place of the daemon in a unit: speaks to systemd and to logind with the daemon's own code, and tries what the unit
forbids. `go` in the home directory: it serves from then on. What it tried is in `probes.json` there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from chatkeep.daemon.service.logind import Login
from chatkeep.daemon.service.notify import Supervisor

HOME = Path.home()


def _outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def _writes(directory: str) -> str:
    path = Path(directory) / ".chatkeep-probe"

    def act() -> None:
        path.write_text("x")
        path.unlink()

    return _outcome(act)


def _libc(name: str, *arguments: int | bytes) -> str:
    def act() -> None:
        if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)

    return _outcome(act)


def _status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


def _peer() -> int:
    """Who connects to a socket of ours, as the kernel tells us: ourselves."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        return int.from_bytes(ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)


def probes() -> dict[str, object]:
    """What this process can do."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    return {
        "home": _writes(str(HOME)),
        "state": _writes(str(HOME / ".local/state/chatkeep")),
        "protected": _writes(str(HOME / "chat")),
        "other-home": _writes("/home/other"),
        "media": _writes("/media"),
        "etc": _writes("/etc"),
        "usr": _writes("/usr"),
        "sysctl": _outcome(lambda: Path("/proc/sys/kernel/domainname").open("w").close()),
        "tmp": sorted(os.listdir("/tmp")),  # noqa: S108
        "devices": sorted({"kmsg", "null", "urandom", "hidraw0", "vda", "sda"} & set(os.listdir("/dev"))),
        "capabilities": int(_status("CapEff"), 16) | int(_status("CapBnd"), 16),
        "no-new-privileges": _status("NoNewPrivs"),
        "seccomp": _status("Seccomp"),
        "write-and-execute": _outcome(lambda: mmap.mmap(-1, 4096, prot=7)),
        "namespace": _libc("unshare", 0x10000000),
        "mount": _libc("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
        "packet": _outcome(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
        "internet": _outcome(lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()),
        "lower-limit": _outcome(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))),
        "set-user-id": _outcome(lambda: os.chmod(_file("suid"), 0o4700)),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "umask": os.stat(_file("made")).st_mode & 0o777,
        "peer": _peer() == os.getuid(),
        "credential": credentials and _outcome(lambda: Path(credentials, "chatkeep-writer").read_text()),
        "runtime": os.environ.get("XDG_RUNTIME_DIR"),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
    }


def _file(name: str) -> Path:
    path = HOME / name
    path.touch()
    return path


async def serve() -> None:
    """Until SIGTERM."""
    # A program that it starts, and that has not been kept from knowing where to say it.
    subprocess.run(["systemd-notify", "--status=stranger"], check=False)
    supervisor, said, reloads = Supervisor.from_environment(), list[str](), 0
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    (HOME / "probes.json").write_text(json.dumps(probes()))
    supervisor.status("waiting")

    def say(word: str) -> None:
        said.append(word)
        supervisor.status(" ".join(said))

    def reload() -> None:
        nonlocal reloads
        reloads += 1
        supervisor.reloading()
        supervisor.ready(f"reloaded {reloads}")

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    while not (HOME / "go").exists():
        await asyncio.sleep(0.02)
    login = Login(lambda signal: say(signal.value), lambda note: say(note.value), look_every=0.1)
    login.hold(True)
    listening = asyncio.ensure_future(login.run())
    while not login.holds and not said:
        await asyncio.sleep(0.02)
    supervisor.ready("serves")
    while not stop.is_set():
        supervisor.watchdog()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(supervisor.watchdog_interval()):
                await stop.wait()
    supervisor.stopping("stops")
    listening.cancel()


if __name__ == "__main__":
    asyncio.run(serve())
