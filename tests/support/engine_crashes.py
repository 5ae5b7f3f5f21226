"""An engine that is killed at a durable step, whichever comes then, while it uploads beside its snapshots and the
application goes on writing.

Run with the seam in it (`tests.support.seam`). What is below `root` is the device: its state and two folders. The
source is elsewhere and not a step; who writes there is another process, since SQLite's locks are of a process.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from chatkeep.daemon.service.engine.engine import Engine
from chatkeep.daemon.state.glance import Glance
from tests.support.engines import Home
from tests.support.seam import Fault, Seam
from tests.support.sources import database

TOP: Final = Path(__file__).resolve().parents[2]
STORES: Final = ("one", "two")
SNAPSHOTS: Final = 3

WRITER: Final = """
import pathlib, sqlite3, sys, time
path, note = map(pathlib.Path, sys.argv[1:])
db = sqlite3.connect(path, isolation_level=None)
while True:
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO message(text) VALUES(hex(randomblob(200)))")
    db.execute("UPDATE counter SET n = n + 1")
    db.execute("DELETE FROM message WHERE id <= (SELECT n FROM counter) - 200")
    db.execute("COMMIT")
    (count,) = db.execute("SELECT n FROM counter").fetchone()
    new = note.with_suffix(".new")
    new.write_text(str(count))
    new.rename(note)
    time.sleep(0.005)
"""
"""A message every few milliseconds; what a restored copy must agree with itself about is how many there were. `note`
has the count of one that is committed."""


class Crashes:
    """A device with one snapshot everywhere, to be killed in what follows; and everything that is looked at then."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.root = room / "root"
        self.root.mkdir()
        (room / "sources").mkdir()
        self.home = Home(self.root, STORES, sources=room / "sources")
        with database(self.database, journal_mode="WAL", page_size=1024) as db:
            db.execute("CREATE TABLE message(id INTEGER PRIMARY KEY, text TEXT)")
            db.execute("CREATE TABLE counter(n INTEGER)")
            db.execute("INSERT INTO counter VALUES(0)")
        self.home.write("photo", 20_000)
        with self.home.open() as engine:
            self.back_up(engine)
        shutil.copytree(self.root, room / "template")

    @property
    def database(self) -> Path:
        """What the application writes."""
        return self.home.source / "messages.db"

    @contextlib.contextmanager
    def writer(self) -> Iterator[None]:
        """The application, at work."""
        command = [sys.executable, "-c", WRITER, str(self.database), str(self.room / "count")]
        with subprocess.Popen(
            command, env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        ) as process:
            try:
                while not (self.room / "count").exists():
                    assert process.poll() is None, "nobody writes"
                yield
                assert process.poll() is None, "nobody wrote any more"
            finally:
                process.kill()

    def count(self) -> int:
        """So many messages are committed at least."""
        return int((self.room / "count").read_text())

    def exchange_photo(self, number: int) -> None:
        """Another one, whole at any moment: whoever does this is killed in it too."""
        new = self.room / "new"
        new.write_bytes(random.Random(number).randbytes(20_000))
        new.rename(self.home.source / "photo")

    # -- what is killed ---------------------------------------------------------------------------------------------

    def back_up(self, engine: Engine) -> None:
        """A snapshot, everywhere; nothing may be in the way."""
        report = engine.snapshot("chat")
        assert report.error is None, report.error
        for name in STORES:
            problems = engine.upload(name).problems
            assert problems == (), problems

    def work(self, say: int) -> None:
        """Snapshots, and beside them uploads to both. What is acknowledged, and every put that begins, goes to the
        descriptor `say`."""

        def putting(name: str, verb: str, about: str) -> None:
            if verb == "put":
                _tell(say, "put", name, about)

        def upload(name: str) -> None:
            last = False
            while not last:
                last, known = over.is_set(), dict(counts)
                sent = engine.upload(name)
                assert sent.problems == (), sent.problems
                for seq in sent.frontiers.values():
                    _tell(say, "acknowledged", name, seq, known.get(seq, 0))

        over, counts = threading.Event(), dict[int, int]()
        for name, store in self.home.stores.items():
            store.before = functools.partial(putting, name)
        with self.home.open() as engine:
            threads = [threading.Thread(target=upload, args=(name,)) for name in STORES]
            for thread in threads:
                thread.start()
            for number in range(SNAPSHOTS):
                known = self.count()
                self.exchange_photo(number)
                report = engine.snapshot("chat")
                assert report.error is None, report.error
                assert report.captured is not None
                counts[report.captured.last_seq] = known
                _tell(say, "committed", report.captured.last_seq)
            over.set()
            for thread in threads:
                thread.join()
        _tell(say, "ended")

    # -- at one step ------------------------------------------------------------------------------------------------

    def killed(self, seam: Seam, at: int) -> list[list[str]]:
        """What the work had said when it was killed at step `at`; `ended` if there is none."""
        shutil.rmtree(self.root)
        shutil.copytree(self.room / "template", self.root)
        for store in self.home.stores.values():
            store.sent.clear()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                seam.begin(self.root, None, at, Fault.KILL)
                self.work(writing)
            finally:
                os._exit(7)
        os.close(writing)
        with open(reading, encoding="utf-8") as pipe:
            said = [line.split() for line in pipe]
        status = os.waitpid(pid, 0)[1]
        assert os.WIFSIGNALED(status) or said[-1] == ["ended"], f"step {at}: {said}"
        return said

    def check(self, said: list[list[str]]) -> int:
        """What must be true of what was left. Returns how many objects were put again."""
        begun = {(words[1], words[2]) for words in said if words[0] == "put"}
        assert len(begun) == sum(words[0] == "put" for words in said), "put twice by one process"
        received = self._receipts()
        for words in said:
            if words[0] == "acknowledged":
                self._look(words[1], int(words[2]), int(words[3]))
        again: Counter[str] = Counter()

        def putting(name: str, verb: str, about: str) -> None:
            if verb == "put":
                assert about not in received[name], f"{about} had arrived at {name}, and that was on record"
                again[name] += (name, about) in begun

        for name, store in self.home.stores.items():
            store.before = functools.partial(putting, name)
        known = self.count()
        with self.home.open() as engine:
            self.back_up(engine)
            news = engine.take_news()
            assert [*news.notices, *news.findings, *news.renewed] == []
            assert engine.waiting() == (0, 0)
            last = engine.standing().sources[0].seq
        assert all(count <= 1 for count in again.values()), f"put again: {again}"
        for name in STORES:
            assert [one.header.seq for one in self.home.snapshots(name)] == list(range(last, 0, -1))
            self._look(name, last, known)
        return again.total()

    def _receipts(self) -> dict[str, set[str]]:
        with Glance(self.home.config.state_dir) as seen:
            return {name: {about for about, _ in seen.expected(name)} for name in STORES}

    def _look(self, provider: str, seq: int, least: int) -> None:
        """A snapshot restores, agrees with itself, and has what was committed before it was begun."""
        snapshot = next(one for one in self.home.snapshots(provider) if one.header.seq == seq)
        where = self.home.restore("restored", snapshot, provider)
        with closing(sqlite3.connect(where / "messages.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (count,) = db.execute("SELECT n FROM counter").fetchone()
            found = db.execute("SELECT count(*), coalesce(max(id), 0) FROM message").fetchone()
        assert found == (min(count, 200), count), f"{count} messages were counted, and there are {found}"
        assert count >= least, f"{least} messages were committed before, and {count} restored"
        assert (where / "photo").stat().st_size == 20_000
        shutil.rmtree(where)


def _tell(descriptor: int, *words: object) -> None:
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())  # one write: lines of two threads do not mix


def main() -> None:
    """Arguments as JSON: room, stride (one of so many steps is tried), seed. Prints counts as JSON."""
    asked = json.loads(sys.argv[1])
    seam = Seam()
    crashes = Crashes(Path(asked["room"]))
    tried, again, acknowledged = 0, 0, 0
    at = random.Random(asked["seed"]).randrange(asked["stride"])
    with crashes.writer():
        while True:
            said = crashes.killed(seam, at)
            if said[-1:] == [["ended"]]:
                break
            try:
                again += crashes.check(said)
            except Exception as exc:
                raise AssertionError(f"killed at step {at}, after {said}") from exc
            tried += 1
            acknowledged += sum(words[0] == "acknowledged" for words in said)
            at += asked["stride"]
    sys.stdout.write(json.dumps({"tried": tried, "steps": at, "again": again, "acknowledged": acknowledged}) + "\n")


if __name__ == "__main__":
    main()
