"""Profiles to measure with: from a generator script of the user's, or made here like the demonstration's.

A script is called as `FILE DIR --messages N --media N --seed S`, and to write more as `FILE DIR --append N --seed S
--media-every N`; it leaves databases closed, so that everything is in their files.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from scripts.demo_profile import EPOCH_MS, PEOPLE, make, message_row, open_messages

# What one message takes in a database with indexes and full-text search, and what media files weigh on average: about
# half of a profile is then media, and a database of 1 GB has 3,000 files beside it.
MESSAGE_BYTES = 560
MEDIA_BYTES = 350_000
_DEMO_MESSAGE_BYTES = 560
_DEMO_MEDIA_BYTES = 41_000
_NEVER = 10**9


class Generator(Protocol):
    """Makes a profile, and adds messages to its message database without adding media."""

    def make(self, profile: Path, size: int, seed: int, media: int | None = None) -> None:
        """A new profile whose message database has about `size` bytes; by default the media files weigh the same."""

    def append(self, profile: Path, messages: int, seed: int) -> None:
        """`messages` new ones, everything checkpointed and closed. A seed must be new to the profile."""


class Script:
    """A generator of the user's."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def make(self, profile: Path, size: int, seed: int, media: int | None = None) -> None:
        """See Generator."""
        count = size // MEDIA_BYTES if media is None else media
        self._call(profile, "--messages", size // MESSAGE_BYTES, "--media", count, "--seed", seed)

    def append(self, profile: Path, messages: int, seed: int) -> None:
        """See Generator."""
        self._call(profile, "--append", messages, "--seed", seed, "--media-every", _NEVER)

    def _call(self, profile: Path, *words: object) -> None:
        command = [sys.executable, str(self._file), str(profile), *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class BuiltIn:
    """The demonstration's profile, larger. Its texts are few words over and over, so they compress better than most."""

    def make(self, profile: Path, size: int, seed: int, media: int | None = None) -> None:
        """See Generator."""
        count = size // _DEMO_MEDIA_BYTES if media is None else media
        make(profile, seed=seed, messages=size // _DEMO_MESSAGE_BYTES, media=count)

    def append(self, profile: Path, messages: int, seed: int) -> None:
        """See Generator. Bursts of one to five, each a transaction that also marks older messages as read."""
        rng = random.Random(seed)
        with contextlib.closing(open_messages(profile)) as connection:
            (newest,) = connection.execute("SELECT max(id) FROM messages").fetchone()
            last = newest + messages
            while newest < last:
                burst = min(rng.randint(1, 5), last - newest)
                with _transaction(connection):
                    for number in range(newest + 1, newest + burst + 1):
                        _say(connection, rng, number)
                    newest += burst
                    for _ in range(rng.randint(0, 3)):
                        old = max(1, newest - int(rng.paretovariate(0.7)))
                        seen = EPOCH_MS + newest * 61_000
                        connection.execute("UPDATE receipts SET read_ms = ? WHERE message = ?", (seen, old))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _say(connection: sqlite3.Connection, rng: random.Random, number: int) -> None:
    row = (number, *message_row(rng, number, None))
    connection.execute("INSERT INTO messages VALUES(?, ?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO receipts VALUES(?, ?, NULL)", (number, rng.randint(0, PEOPLE)))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def chosen(script: Path | None) -> Generator:
    """The script's generator, or the one built in."""
    return BuiltIn() if script is None else Script(script)
