"""What a command uses: CPU of it and its children, wall time, peak memory; and how busy the machine was with others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("launch.py")
_TAIL = 2000  # characters of a failed command's output that are shown


class CommandFailed(Exception):
    """A measured command ended badly: what it did is no measure of anything."""


@dataclass(frozen=True)
class Usage:
    """`cpu`, `wall` in seconds, `rss`: the largest resident size in bytes of any process of the command.

    `others`: how many cores were busy meanwhile with anything else, on average.
    """

    cpu: float
    wall: float
    rss: int
    others: float = 0.0


def measure(command: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path | None = None) -> Usage:
    """Run a command to its end, its output appended to `log`. Raises CommandFailed when it does not exit with 0."""
    # What the last command left to be written would slow this one down.
    os.sync()
    read, write = os.pipe()
    busy = busy_seconds()
    with log.open("ab") as output, os.fdopen(read, "rb") as result:
        output.write(f"\n$ {' '.join(command)}\n".encode())
        output.flush()
        launched = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), str(write), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            pass_fds=(write,),
        )
        os.close(write)
        raw = result.read()
        launched.wait()
    if not raw:
        raise CommandFailed(f"{command[0]}: cannot be started; see {log}")
    found = json.loads(raw)
    if found["exit"] != 0:
        tail = log.read_text("utf-8", "replace")[-_TAIL:]
        raise CommandFailed(f"{' '.join(command)}\nended with {found['exit']}:\n{tail}")
    cpu = found["user"] + found["system"]
    others = max(0.0, busy_seconds() - busy - cpu) / max(found["wall"], 1e-3)
    return Usage(cpu, found["wall"], found["rss"], others)


def busy_seconds() -> float:
    """CPU seconds that the whole machine spent since it started, from /proc/stat (proc(5)); 0 where there is none."""
    try:
        fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, soft_irq, steal = (int(field) for field in fields[1:9])
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
