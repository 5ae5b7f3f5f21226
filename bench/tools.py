"""The three tools, each told to do the same work: a full backup, the next one, a restore.

Keys, caches and records of each lie in a directory of its own; nothing of the user's configuration is read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench.measure import Usage, measure

CHATKEEP = "chatkeep"
INSTALL = "sudo apt-get install restic borgbackup"
_PASSPHRASE = "benchmark"  # noqa: S105 - of vaults that live as long as the run


class Tool(Protocol):
    """A way to back up a directory. Raises CommandFailed when a command fails."""

    name: str

    def version(self) -> str:
        """Name and version of what is measured."""

    def create(self) -> None:
        """Begin anew: an empty place for backups, no memory of earlier ones. Not measured."""

    def backup(self, profile: Path) -> Usage:
        """Back up the directory, once more."""

    def restore(self, target: Path) -> tuple[Usage, Path]:
        """Restore the newest backup into `target`, a new directory; returns where its files are then."""

    def stored(self) -> int:
        """Bytes in the place for backups."""


class _Placed:
    name = ""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.log = place.with_name(f"{place.name}.log")
        self.vault = place / "vault"
        # A locale of its own keeps messages comparable; names are bytes to all three.
        self.env = {"PATH": os.environ["PATH"], "HOME": str(place / "home"), "LC_ALL": "C.UTF-8"}

    def stored(self) -> int:
        """Bytes of all files of the vault."""
        return tree_size(self.vault)

    def _clear(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        (self.place / "home").mkdir(parents=True)

    def _run(self, *command: str, cwd: Path | None = None) -> Usage:
        return measure(command, env=self.env, log=self.log, cwd=cwd)


class Chatkeep(_Placed):
    """The command of this tree, as a user runs it: without a daemon, one process for each command."""

    name = CHATKEEP

    def __init__(self, place: Path, profile: Path) -> None:
        super().__init__(place)
        self._profile = profile
        self._config = place / "chatkeep.yaml"
        self._key = place / "recovery-key"

    def version(self) -> str:
        """Version of the package; the tree may be ahead of it."""
        return _said([self._command, "--version"])

    @property
    def _command(self) -> str:
        return str(Path(sys.executable).with_name("chatkeep"))

    def create(self) -> None:
        """A new vault in a folder."""
        self._clear()
        self.vault.mkdir()
        self._config.write_text(
            f"sources:\n  - path: {self._profile}\n    name: profile\n"
            f"providers:\n  - name: disk\n    type: folder\n    path: {self.vault}\n"
            f"state_dir: {self.place / 'state'}\n"
        )
        self._run(*self.command("init", "--recovery-key-file", str(self._key)))

    def command(self, *words: str) -> list[str]:
        """The command line, with the configuration of this run."""
        return [self._command, "--config", str(self._config), *words]

    def backup(self, profile: Path) -> Usage:
        """Snapshot until nothing is pending, and upload."""
        assert profile == self._profile, "the configuration names another"
        return self._run(*self.command("backup"))

    def restore(self, target: Path) -> tuple[Usage, Path]:
        """From the folder and the recovery key alone."""
        words = self.command("restore", "latest", "--target", str(target), "--key-file", str(self._key))
        return self._run(*words), target


class Restic(_Placed):
    """restic with a repository of version 2 (compressed) and its own default of compression."""

    name = "restic"

    def version(self) -> str:
        """First line of what it says of itself."""
        return _said(["restic", "version"]).split(" compiled")[0]

    def create(self) -> None:
        """A new repository, an empty cache."""
        self._clear()
        self.env |= {"RESTIC_PASSWORD": _PASSPHRASE, "RESTIC_CACHE_DIR": str(self.place / "cache")}
        self._run("restic", "init", "--quiet", "--repository-version", "2", "--repo", str(self.vault))

    def backup(self, profile: Path) -> Usage:
        """Relative to the directory, as one would restore it elsewhere."""
        return self._run("restic", "backup", "--quiet", "--repo", str(self.vault), ".", cwd=profile)

    def restore(self, target: Path) -> tuple[Usage, Path]:
        """The newest snapshot."""
        words = ("restic", "restore", "--quiet", "--repo", str(self.vault), "latest", "--target", str(target))
        return self._run(*words), target


class Borg(_Placed):
    """Borg 1.x, compressing as strongly as the others: zstd,3.

    Its key mode is the one that took less CPU where the benchmark was made (HMAC-SHA-256, on a processor that has
    instructions for it).
    """

    name = "borg"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._count = 0

    def version(self) -> str:
        """What it says of itself."""
        return _said(["borg", "--version"])

    def create(self) -> None:
        """A new repository, an empty cache."""
        self._clear()
        self._count = 0
        self.env |= {"BORG_PASSPHRASE": _PASSPHRASE, "BORG_BASE_DIR": str(self.place / "base")}
        self._run("borg", "init", "--encryption", "repokey", str(self.vault))

    def backup(self, profile: Path) -> Usage:
        """A new archive."""
        self._count += 1
        return self._run("borg", "create", "--compression", "zstd,3", f"{self.vault}::{self._count}", ".", cwd=profile)

    def restore(self, target: Path) -> tuple[Usage, Path]:
        """The newest archive; it extracts into the current directory."""
        target.mkdir()
        return self._run("borg", "extract", f"{self.vault}::{self._count}", cwd=target), target


def available(work: Path, profile: Path, wanted: Sequence[str]) -> tuple[list[Tool], list[str]]:
    """The tools of `wanted` that can be run here, and the names of those that are not installed."""
    every: list[Tool] = [Chatkeep(work / CHATKEEP, profile), Restic(work / "restic"), Borg(work / "borg")]
    asked = [tool for tool in every if tool.name in wanted]
    found = [tool for tool in asked if isinstance(tool, Chatkeep) or shutil.which(tool.name)]
    return found, [tool.name for tool in asked if tool not in found]


def tree_size(top: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, files in os.walk(top) for name in files)


def _said(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().split("\n")[0]
