"""A chat room in which a peer guesses what somebody else wrote to the victim, and storage tells him sizes.

Between two backups the victim gets a message with a code. The peer sends one that repeats the sentence with a code of
his own, and filler of which he chooses every byte. Both end up in the pages of one blob, and pages are compressed
together: a right guess makes the blob a few bytes smaller.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from chatkeep.config.model import Source
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.works import FRESH_LEVEL
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.upload import release, upload
from chatkeep.daemon.vault.blob import BlobKind, compress
from tests.support.whole import Device

SENTENCE = "Your login code is {}. It is valid for ten minutes. Do not tell it to anybody, not even to us."
PAGE = 4096
HISTORY = 400
_SCHEMA = """
    PRAGMA page_size=4096;
    CREATE TABLE message(id INTEGER PRIMARY KEY, chat INTEGER, text TEXT, thumbnail BLOB);
    CREATE INDEX by_chat ON message(chat, id);
"""


def code(rng: random.Random) -> str:
    """Six digits."""
    return f"{rng.randrange(10**6):06d}"


def text(rng: random.Random) -> str:
    """A message of a few words."""
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(4, 20)))


_letters = random.Random(3)
_WORDS = ["".join(_letters.choices("etaoinshrdlu", k=_letters.randint(2, 9))) for _ in range(3000)]


class Room:
    """The message database, in memory, with some history."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(_SCHEMA)
            connection.executemany(
                "INSERT INTO message(chat, text) VALUES(?, ?)",
                [(rng.randrange(20), text(rng)) for _ in range(HISTORY)],
            )
            connection.commit()
            self.image = connection.serialize()

    def after(self, secret: str, guess: str, filler: bytes = b"") -> bytes:
        """The database after the victim's message and the peer's."""
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(self.image)
            received(connection, secret, guess, filler)
            return connection.serialize()

    def changed(self, secret: str, guess: str, filler: bytes = b"") -> bytes:
        """The changed pages, joined: what one blob of the snapshot holds."""
        old, new = self.image, self.after(secret, guess, filler)
        pages = (new[at : at + PAGE] for at in range(0, len(new), PAGE))
        return b"".join(page for number, page in enumerate(pages) if page != old[number * PAGE : (number + 1) * PAGE])

    def payload(self, secret: str, guess: str, filler: bytes = b"", level: int | None = FRESH_LEVEL) -> int:
        """How many bytes of those pages are sealed."""
        return len(compress(BlobKind.PAGES, self.changed(secret, guess, filler), level)[1])


def received(connection: sqlite3.Connection, secret: str, guess: str, filler: bytes = b"") -> None:
    """The two messages, committed."""
    connection.execute("INSERT INTO message(chat, text) VALUES(1, ?)", (SENTENCE.format(secret),))
    connection.execute(
        "INSERT INTO message(chat, text, thumbnail) VALUES(2, ?, ?)", (SENTENCE.format(guess), filler or None)
    )
    connection.commit()


class Watched:
    """A device whose backups are watched by storage.

    The state stays open between backups, so a thousand take half a minute.
    """

    def __init__(self, device: Device, source: Path, state: State, compression: str) -> None:
        self.device = device
        self._state = state
        self._source = Source(source, name="chat", compression="off" if compression == "off" else "auto")
        self._writer = Writer(device.credential, state, clock=device.clock)

    def back_up(self) -> dict[str, bytes]:
        """One backup, uploaded: the objects it brought, in the order in which they came."""
        before = set(self.device.provider.objects)
        back_up(self._writer, self._source)
        sent = upload(self._state.outbox, self.device.provider)
        assert not sent.problems
        release(self._state.outbox, [self.device.provider.name])
        return {name: body for name, body in self.device.provider.objects.items() if name not in before}


@contextlib.contextmanager
def watched(device: Device, source: Path, compression: str = "auto") -> Iterator[Watched]:
    """A watched device; what is in the source before the block is backed up in it, first."""
    with device.open_state() as state:
        yield Watched(device, source, state, compression)


def sizes(objects: dict[str, bytes]) -> list[int]:
    """What storage learns from sizes: those of the packs in ascending order, then that of the manifest."""
    packs = sorted(len(body) for name, body in objects.items() if "/p/" in name)
    return [*packs, *(len(body) for name, body in objects.items() if "/s/" in name)]
