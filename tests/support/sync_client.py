"""A client that synchronises a folder badly: a thread that takes files away, is late, renames and doubles."""

from __future__ import annotations

import os
import plistlib
import random
import shutil
import threading
from collections import Counter
from pathlib import Path

from chatkeep.providers.base import named_sha256


class SyncClient:
    """Works in `root` from `start` to `settle`. What it does is drawn from `seed`; when it does it is not.

    It never destroys what it was handed: bytes that it takes off the disk are in `cloud`, until it brings them back.

    Attributes:
        did: how often it did what, by word.
        problems: what went wrong in its thread; empty.
    """

    def __init__(self, root: Path, cloud: Path, seed: int, pause: float = 0.002) -> None:
        self.did: Counter[str] = Counter()
        self.problems: list[BaseException] = []
        self._root, self._cloud, self._chance, self._pause = root, cloud, random.Random(seed), pause
        self._away: dict[Path, tuple[Path, Path | None]] = {}  # file > its bytes, its stand-in
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sync-client")
        cloud.mkdir()

    def start(self) -> None:
        self._thread.start()

    def settle(self) -> None:
        """Stops, and brings everything back that it took. Copies and new names stay."""
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        for path in list(self._away):
            self._fetch(path)

    def _run(self) -> None:
        try:
            while not self._over.wait(self._pause):
                act = self._chance.choice(
                    [self._evict, self._hollow, self._rename, self._double, self._spoil, *[None] * 4]
                )
                files = self._files()
                if act is not None and files:
                    act(self._chance.choice(files))
                else:
                    self._late()
        except BaseException as problem:  # shown by the test, which would wait for faults that never come
            self.problems.append(problem)

    def _files(self) -> list[Path]:
        """Objects under their own names, as they lie there now."""
        found = []
        for folder, _, names in os.walk(self._root):
            found += [Path(folder, name) for name in names if not set(name) & set(" ()~_") and name[0] != "."]
        return [path for path in found if path not in self._away]

    def _take(self, path: Path, stand_in: Path | None) -> bool:
        kept = self._cloud / f"{len(self._away)}-{self._chance.getrandbits(64):x}"
        try:
            shutil.copyfile(path, kept)
        except FileNotFoundError:
            return False
        self._away[path] = kept, stand_in
        return True

    def _evict(self, path: Path) -> None:
        stand_in = path.with_name(f".{path.name}.icloud")
        if self._take(path, stand_in):
            told = {"NSURLNameKey": path.name, "NSURLFileSizeKey": self._away[path][0].stat().st_size}
            self._put(stand_in, plistlib.dumps(told))
            path.unlink()
            self.did["evicted"] += 1

    def _hollow(self, path: Path) -> None:
        """Takes the bytes and leaves the size."""
        if self._take(path, None):
            passing = self._cloud / "hollow"
            with passing.open("wb") as file:
                file.truncate(self._away[path][0].stat().st_size)
            os.replace(passing, path)
            self.did["hollowed"] += 1

    def _late(self) -> None:
        """Brings back something that it took, some time after."""
        if self._away:
            self._fetch(self._chance.choice(list(self._away)))
            self.did["late"] += 1

    def _fetch(self, path: Path) -> None:
        kept, stand_in = self._away.pop(path)
        os.replace(kept, path)
        if stand_in is not None:
            stand_in.unlink(missing_ok=True)

    def _rename(self, path: Path) -> None:
        """Takes a file for another version of itself, and leaves it under another name only."""
        os.rename(path, self._free(path, "renamed"))
        self.did["renamed"] += 1

    def _double(self, path: Path) -> None:
        self._put(self._free(path, "doubled"), path.read_bytes())
        self.did["doubled"] += 1

    def _spoil(self, path: Path) -> None:
        """Cuts a file of which it left a whole copy beside it."""
        copies = [each for each in path.parent.iterdir() if each.name.startswith(f"{path.name} ")]
        body = path.read_bytes()
        if named_sha256(path.name) and any(each.read_bytes() == body for each in copies):
            self._put(path, body[: len(body) // 2])
            self.did["spoiled"] += 1

    def _free(self, path: Path, word: str) -> Path:
        """A name of a conflict copy that nothing has yet."""
        stem, dot, end = path.name.partition(".")
        for number in range(2, 1000):
            marks = [f" {number}", f" ({number})", f" ({word}'s conflicted copy 2026-01-02 ({number}))"]
            found = path.with_name(f"{stem}{self._chance.choice(marks)}{dot}{end}")
            if not found.exists():
                return found
        raise AssertionError("a thousand copies of one file")

    def _put(self, path: Path, body: bytes) -> None:
        passing = self._cloud / "passing"
        passing.write_bytes(body)
        os.replace(passing, path)
