"""What storage learns from the sizes, counts and requests of backups: a real run, looked at from the other side.

    python -m bench.leakage [--generator FILE] [--profile DIR] [--rounds N] [--json FILE]

Each round makes a vault, backs a profile up, and then does one thing at a time and backs up after it, in an order that
is drawn anew. The generator is as `scripts/bench` takes it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar
from unittest import mock

from bench.floor import databases, floor, page_digests
from bench.generate import Generator, chosen
from bench.numbers import parse_size
from bench.sight import Sight, acts_table, pairs_table, types_table
from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.cli.main import main as chatkeep
from chatkeep.providers import registry
from chatkeep.providers.base import Capabilities, ObjectStat, Provider
from chatkeep.providers.memo import Memo

PHOTOS = (60_000, 350_000, 360_000)
"""Bytes. The last two fall on one step of the padding or on two, as chance has it."""
MEDIA = 40
NOTHING = "nothing"
PAIRS = (
    (NOTHING, "1 message"),
    ("1 message", "2 messages"),
    ("1 message", "5 messages"),
    ("2 messages", "5 messages"),
    ("5 messages", "100 messages"),
    ("1 message", "a message deleted"),
    ("1 message", "photo of 60 kB"),
    ("photo of 60 kB", "photo of 350 kB"),
    ("photo of 350 kB", "photo of 360 kB"),
    ("photo of 350 kB", "the same photo again"),
    ("1 message", "a photo deleted"),
)


class Seen:
    """A provider that notes when it is asked what. `calls` are those of all: each command opens another."""

    calls: ClassVar[list[tuple[float, str]]] = []

    def __init__(self, inner: Provider) -> None:
        self.name = inner.name
        self._inner = inner

    def put(self, name: str, body: bytes) -> None:
        """As every verb: noted, and passed on."""
        self._note("put")
        self._inner.put(name, body)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See put."""
        self._note("get")
        return self._inner.get(name, offset, length)

    def stat(self, name: str) -> ObjectStat:
        """See put."""
        self._note("stat")
        return self._inner.stat(name)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See put."""
        self._note("list")
        return self._inner.list(prefix)

    def delete(self, name: str) -> None:
        """See put."""
        self._note("delete")
        self._inner.delete(name)

    def probe(self) -> Capabilities:
        """Not noted: no backup asks for it."""
        return self._inner.probe()

    def close(self) -> None:
        """Not noted."""
        self._inner.close()

    def _note(self, verb: str) -> None:
        self.calls.append((time.monotonic(), verb))


class Room:
    """A profile, its vault and everything that may happen to it."""

    def __init__(self, top: Path, generator: Generator, rng: random.Random) -> None:
        self._top = top
        self._profile = top / "profile"
        self._generator = generator
        self._rng = rng
        self._vault = top / "vault"
        self._config = top / "chatkeep.yaml"
        self._photos = 0
        self._last = b""

    def create(self) -> None:
        """A vault, and the profile in it."""
        self._vault.mkdir()
        provider = f"{{name: storage, type: folder, path: {self._vault}}}"
        self._config.write_text(
            f"sources: [{self._profile}]\nproviders: [{provider}]\nstate_dir: {self._top / 'state'}\n"
        )
        self._run("init", "--recovery-key-file", str(self._top / "key"))
        self.backup("everything", 0)

    def acts(self) -> dict[str, Callable[[], None]]:
        """What may happen, by name."""
        return {
            NOTHING: lambda: None,
            **{f"{n} message{'s' * (n > 1)}": partial(self._messages, n) for n in (1, 2, 5, 100)},
            "a message deleted": self._unsay,
            **{f"photo of {size // 1000} kB": partial(self._photo, size) for size in PHOTOS},
            "the same photo again": self._again,
            "photo and its message": self._photo_and_message,
            "a photo deleted": self._lose,
        }

    def watch(self, act: str) -> Sight:
        """One thing happens, and a backup."""
        tables = {path: page_digests(path) for path in databases(self._profile)}
        media = self._media()
        self.acts()[act]()
        changed = sum(floor(before, path).size for path, before in tables.items())
        return self.backup(act, changed + sum(size for path, size in self._media().items() if path not in media))

    def backup(self, act: str, truth: int) -> Sight:
        """The command, in this process, with storage that takes notes."""
        before = self._objects()
        Seen.calls.clear()
        self._run("backup")
        new = [(name, size) for name, size in self._objects().items() if name not in before]
        times = [at for at, _ in Seen.calls]
        return Sight(
            act,
            truth,
            tuple(sorted(size for name, size in new if "/p/" in name)),
            tuple(sorted(size for name, size in new if "/s/" in name)),
            tuple(verb for _, verb in Seen.calls),
            max(times, default=0) - min(times, default=0),
        )

    def _run(self, *words: str) -> None:
        def opened(config: ProviderConfig, memo: Memo | None = None, *, create: bool = False) -> Seen:
            return Seen(real(config, memo, create=create))

        real = registry.open_provider
        said = io.StringIO()
        with mock.patch.object(registry, "open_provider", opened), contextlib.redirect_stdout(said):
            code = chatkeep(["--config", str(self._config), *words, "--json"])
        if code != 0:
            raise SystemExit(f"chatkeep {words[0]} failed:\n{said.getvalue()}")

    def _objects(self) -> dict[str, int]:
        files = (path for path in self._vault.rglob("*") if path.is_file())
        return {str(path.relative_to(self._vault)): path.stat().st_size for path in files}

    def _media(self) -> dict[Path, int]:
        known = set(databases(self._profile))
        files = (path for path in self._profile.rglob("*") if path.is_file() and path not in known)
        return {path: path.stat().st_size for path in files}

    def _messages(self, count: int) -> None:
        self._generator.append(self._profile, count, self._rng.randrange(1 << 30))

    def _unsay(self) -> None:
        path = databases(self._profile)[0]
        with contextlib.closing(sqlite3.connect(path)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            table = "messages" if "messages" in names else "message"
            connection.execute(f"DELETE FROM {table} WHERE rowid = (SELECT max(rowid) FROM {table})")  # noqa: S608
            connection.commit()

    def _photo(self, size: int) -> None:
        self._last = self._rng.randbytes(size)
        self._store()

    def _photo_and_message(self) -> None:
        self._photo(PHOTOS[1])
        self._messages(1)

    def _again(self) -> None:
        paths = sorted(self._profile.glob("sent-*.jpg"))
        self._last = next(path.read_bytes() for path in paths if path.stat().st_size == PHOTOS[1])
        self._store()

    def _store(self) -> None:
        self._photos += 1
        (self._profile / f"sent-{self._photos}.jpg").write_bytes(self._last)

    def _lose(self) -> None:
        max(self._profile.glob("sent-*.jpg"), key=lambda path: path.stat().st_mtime_ns).unlink()


def run(generator: Generator, size: int, rounds: int, seed: int, profile: Path | None, work: Path) -> Iterator[Sight]:
    """Sights of `rounds` vaults."""
    given = work / "given"
    if profile is None:
        generator.make(given, size, seed, MEDIA)
    else:
        subprocess.run(["cp", "--archive", "--reflink=auto", str(profile), str(given)], check=True)
    for number in range(rounds):
        rng = random.Random(seed + number)
        top = work / f"round-{number}"
        top.mkdir()
        subprocess.run(["cp", "--archive", "--reflink=auto", str(given), str(top / "profile")], check=True)
        room = Room(top, generator, rng)
        room.create()
        acts = list(room.acts())
        rng.shuffle(acts)
        # A photo must have been sent before it can be sent again, and one of the day must be there to be deleted.
        first, second = f"photo of {PHOTOS[1] // 1000} kB", ("the same photo again", "a photo deleted")
        acts = [*(act for act in acts if act not in second), *second]
        acts.insert(0, acts.pop(acts.index(first)))
        for act in acts:
            yield room.watch(act)
        shutil.rmtree(top)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="chatkeep-leakage-", dir=options.work) as work:
        generator = chosen(options.generator)
        sights = list(run(generator, options.size, options.rounds, options.seed, options.profile, Path(work)))
    tables = (acts_table(sights), pairs_table(sights, PAIRS), types_table(sights))
    print("\n\n".join(table.markdown() if options.markdown else table.text() for table in tables))
    print(f"\n{len(sights)} backups, {options.rounds} vaults, seed {options.seed}")
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(sight) for sight in sights], indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.leakage", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--generator", type=Path, help="script that makes profiles and adds messages  [built in]")
    add("--profile", type=Path, help="an existing directory that this generator made; it is copied, never changed")
    add("--size", type=parse_size, default=5 * 10**6, help="of the message database  [5MB]")
    add("--rounds", type=int, default=20, help="vaults, and so runs of each kind of activity  [20]")
    add("--seed", type=int, default=time.time_ns() // 10**6 % 10**9, help="[new each time]")
    add("--json", type=Path, help="write every backup as storage saw it into this file")
    add("--markdown", action="store_true", help="tables for a page")
    add("--work", type=Path, help="where vaults lie while it runs  [the system's temporary directory]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
