"""What the demonstration proves: rows compared one by one, and a search for plaintext that is known to find it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from scripts.demo_state import tables

LEAST = 8  # bytes: shorter ones occur in random bytes by chance
MAGIC = (b"SQLite format 3\x00", b"JFIF\x00", b"CREATE TABLE ", b"CREATE VIRTUAL TABLE ")
TEXTS = """
SELECT body FROM messages WHERE length(body) >= 24 ORDER BY id LIMIT 400
"""


class Failed(Exception):
    """Something that was to be shown is not so."""


@dataclasses.dataclass
class Proof:
    """What was found to be so: about what, and the facts."""

    found: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, about: str, fact: str) -> None:
        """A fact."""
        self.found.setdefault(about, []).append(fact)

    def rows(self) -> list[tuple[str, str]]:
        """For the table at the end."""
        return [(about, "\n".join(facts)) for about, facts in self.found.items()]


def needles(profile: Path) -> list[bytes]:
    """Texts, names and headers that stand in the profile's files as they are: what a thief would look for."""
    found = {magic for magic in MAGIC if len(magic) >= LEAST}
    with contextlib.closing(sqlite3.connect(profile / "messages.db")) as messages:
        found |= {row[0].encode() for row in messages.execute(TEXTS)}
        found |= {row[0].encode() for row in messages.execute("SELECT path FROM media")}
        found |= {row[0].encode() for row in messages.execute("SELECT title FROM chats")}
    with contextlib.closing(sqlite3.connect(profile / "contacts.db")) as contacts:
        for row in contacts.execute("SELECT name, number FROM contacts"):
            found |= {text.encode() for text in row}
    return sorted(text for text in found if len(text) >= LEAST)


def hidden(top: Path, wanted: list[bytes]) -> tuple[int, int, list[bytes]]:
    """Searches every file below `top`, hidden ones too: files, bytes, and which of the wanted texts are there."""
    found: set[bytes] = set()
    count = total = 0
    for path in _files(top):
        body = path.read_bytes()
        count += 1
        total += len(body)
        found |= {text for text in wanted if text in body}
    return count, total, sorted(found)


def squeezed(top: Path) -> tuple[int, int]:
    """Bytes of the sealed objects below `top` before and after compression: what is encrypted does not shrink."""
    before = after = 0
    for path in _files(top):
        if path.suffix != ".json":
            body = path.read_bytes()
            before += len(body)
            after += min(len(body), len(zlib.compress(body, 1)))
    return before, after


def rows_equal(one: Path, other: Path) -> int:
    """How many rows two databases have, which are the same rows in every table. Raises Failed."""
    count = 0
    with contextlib.closing(sqlite3.connect(one)) as left, contextlib.closing(sqlite3.connect(other)) as right:
        if tables(left) != tables(right):
            raise Failed(f"{one.name}: other tables")
        for table in tables(left):
            query = f'SELECT * FROM "{table}"'  # noqa: S608 - names from the schema
            mine, theirs = sorted(map(repr, left.execute(query))), sorted(map(repr, right.execute(query)))
            if mine != theirs:
                raise Failed(f"{one.name}: {table} differs")
            count += len(mine)
    return count


def _files(top: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path
