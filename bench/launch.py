"""Runs one command and writes what it used as one line of JSON: python launch.py RESULT-FD COMMAND...

It is a program of its own, and small: Linux counts the memory of the process that started a program as that
program's peak until it needs more, so a large parent would measure itself.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main(arguments: list[str]) -> int:
    """Run the command, with this process's standard streams; returns 0 whatever the command returned."""
    result, command = int(arguments[0]), arguments[1:]
    os.set_inheritable(result, False)
    started = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, used = os.wait4(child, 0)
    wall = time.monotonic() - started
    measured = {
        "exit": os.waitstatus_to_exitcode(status),
        "user": used.ru_utime,
        "system": used.ru_stime,
        "wall": wall,
        "rss": used.ru_maxrss * 1024,
    }
    os.write(result, json.dumps(measured).encode() + b"\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
