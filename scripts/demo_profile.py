"""The profile of the demonstration's chat application: two databases, media, and the odd things that real folders hold.

Everything comes from one seed: the same seed makes the same profile, byte for byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sqlite3
from pathlib import Path

EPOCH_MS = 1_700_000_000_000
PEOPLE = 24
CHATS = 12
SPARSE_SIZE = 48 << 20  # bytes; far more than it occupies
SIGNS = ("\N{THUMBS UP SIGN}", "\N{HEAVY BLACK HEART}", "\N{FACE WITH TEARS OF JOY}", "\N{PARTY POPPER}")
NAMES = ("Ada", "Bo", "Chidi", "Dagný", "Eun-ji", "Farid", "Gita", "Hugo", "Inés", "Jun", "Kofi", "Łucja")
_VOCABULARY = """
    about after again almost back bread bring bus call can't coffee come dinner early evening fine found
    garden great happy heard here home house just keys kids late later lunch maybe meet message minute
    money moon morning move never news night okay old open paint park phone photo plan please rain
    really road school see she's shop sister sleep soon sorry station still street summer sunday table
    thanks there ticket today tomorrow train tried wait walk water weekend window work wrote yes
    yesterday
"""
VOCABULARY = _VOCABULARY.split()

MESSAGES_SCHEMA = """
CREATE TABLE chats(id INTEGER PRIMARY KEY, title TEXT NOT NULL, muted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE media(id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE messages(
    id INTEGER PRIMARY KEY AUTOINCREMENT, chat INTEGER NOT NULL REFERENCES chats, sender INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL, body TEXT NOT NULL, media INTEGER REFERENCES media, uid TEXT NOT NULL UNIQUE);
CREATE INDEX messages_by_chat ON messages(chat, sent_ms);
CREATE INDEX messages_by_sender ON messages(sender, sent_ms);
CREATE TABLE receipts(
    message INTEGER NOT NULL REFERENCES messages, reader INTEGER NOT NULL, read_ms INTEGER,
    PRIMARY KEY(message, reader)) WITHOUT ROWID;
CREATE TABLE reactions(
    id INTEGER PRIMARY KEY, message INTEGER NOT NULL REFERENCES messages, sender INTEGER NOT NULL, sign TEXT NOT NULL);
CREATE INDEX reactions_by_message ON reactions(message);
CREATE TABLE ticks(id INTEGER PRIMARY KEY CHECK(id = 1), commits INTEGER NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(body, content='messages', content_rowid='id');
CREATE TRIGGER words_insert AFTER INSERT ON messages BEGIN
    INSERT INTO words(rowid, body) VALUES(new.id, new.body); END;
CREATE TRIGGER words_delete AFTER DELETE ON messages BEGIN
    INSERT INTO words(words, rowid, body) VALUES('delete', old.id, old.body); END;
CREATE TRIGGER words_update AFTER UPDATE OF body ON messages BEGIN
    INSERT INTO words(words, rowid, body) VALUES('delete', old.id, old.body);
    INSERT INTO words(rowid, body) VALUES(new.id, new.body); END;
INSERT INTO ticks VALUES(1, 0);
"""
CONTACTS_SCHEMA = """
CREATE TABLE contacts(
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, number TEXT NOT NULL UNIQUE, about TEXT, seen_ms INTEGER);
CREATE INDEX contacts_by_name ON contacts(name);
CREATE TABLE ticks(id INTEGER PRIMARY KEY CHECK(id = 1), commits INTEGER NOT NULL);
INSERT INTO ticks VALUES(1, 0);
"""


def make(profile: Path, *, seed: int = 1, messages: int = 3000, media: int = 40) -> None:
    """Makes a profile at `profile`, which must not exist. The databases are closed: no WAL is left.

    Raises FileExistsError.
    """
    rng = random.Random(seed)
    profile.mkdir(parents=True)
    _make_folders(profile, rng)
    with contextlib.closing(open_messages(profile)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(MESSAGES_SCHEMA)
        connection.execute("BEGIN")
        titles = [
            (chat, f"{rng.choice(NAMES)} & {sentence(rng, 2)}", int(chat % 5 == 0)) for chat in range(1, CHATS + 1)
        ]
        connection.executemany("INSERT INTO chats VALUES(?, ?, ?)", titles)
        for number in range(1, media + 1):
            connection.execute("INSERT INTO media VALUES(?, ?, ?, ?)", (number, *add_media(profile, rng, number)))
        for number in range(1, messages + 1):
            _add_message(connection, rng, number, number * media // messages if number % 7 == 0 else 0)
        connection.execute("COMMIT")
    _make_contacts(profile, rng)


def open_messages(profile: Path) -> sqlite3.Connection:
    """The message database, without Python's own idea of when transactions begin."""
    return sqlite3.connect(profile / "messages.db", isolation_level=None, timeout=30)


def open_contacts(profile: Path) -> sqlite3.Connection:
    """The contact database; it stays in rollback journal mode."""
    return sqlite3.connect(profile / "contacts.db", isolation_level=None, timeout=30)


def sentence(rng: random.Random, words: int) -> str:
    """Something that a person might write."""
    return " ".join(rng.choices(VOCABULARY, k=words))


def message_row(rng: random.Random, number: int, media: int | None) -> tuple[int, int, int, str, int | None, str]:
    """A new message without its id: chat, sender, time, text, media, and a unique id that no index likes."""
    chat = min(int(rng.paretovariate(1.1)), CHATS)  # most of what is said is said in few chats
    body = sentence(rng, rng.randint(1, 24)) + rng.choice(("", ".", "!", " ?", " " + rng.choice(SIGNS)))
    return chat, rng.randint(0, PEOPLE), EPOCH_MS + number * 61_000, body, media, rng.randbytes(16).hex()


def add_media(profile: Path, rng: random.Random, number: int) -> tuple[str, int, str]:
    """Writes one media file as applications do, beside and then renamed: path, size, SHA-256."""
    if number % 8 == 0:
        path, body = f"media/notes/{number:05d} {rng.choice(NAMES)}.txt", (sentence(rng, 400) + "\n").encode()
    else:
        size = int(2 ** rng.uniform(11, 17.5))
        path = f"media/photos/{number // 16:02d}/IMG_{number:05d}.jpg"
        body = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + rng.randbytes(size) + b"\xff\xd9"
    file = profile / path
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".part")
    beside.write_bytes(body)
    beside.rename(file)
    return path, len(body), hashlib.sha256(body).hexdigest()


def _add_message(connection: sqlite3.Connection, rng: random.Random, number: int, media: int) -> None:
    connection.execute(
        "INSERT INTO messages VALUES(?, ?, ?, ?, ?, ?, ?)", (number, *message_row(rng, number, media or None))
    )
    sent_ms = EPOCH_MS + number * 61_000
    for reader in sorted(rng.sample(range(PEOPLE), 2)):
        connection.execute("INSERT INTO receipts VALUES(?, ?, ?)", (number, reader, sent_ms + rng.randint(1, 60_000)))
    if number % 9 == 0:
        reaction = (number, rng.randint(0, PEOPLE), rng.choice(SIGNS))
        connection.execute("INSERT INTO reactions(message, sender, sign) VALUES(?, ?, ?)", reaction)


def _make_contacts(profile: Path, rng: random.Random) -> None:
    with contextlib.closing(open_contacts(profile)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.executescript(CONTACTS_SCHEMA)
        connection.execute("BEGIN")
        for person in range(1, PEOPLE + 1):
            row = (f"{NAMES[person % len(NAMES)]} {person}", f"+99 {rng.randrange(10**9):09d}", sentence(rng, 4), None)
            connection.execute("INSERT INTO contacts(name, number, about, seen_ms) VALUES(?, ?, ?, ?)", row)
        connection.execute("COMMIT")


def _make_folders(profile: Path, rng: random.Random) -> None:
    (profile / "drafts").mkdir()  # empty, and must be there again after a restore
    (profile / "settings.json").write_text('{"theme": "dark", "language": "en"}\n', encoding="utf-8")
    (profile / "latest").symlink_to("media/photos")
    with (profile / "cache.bin").open("wb") as file:
        file.truncate(SPARSE_SIZE)
        file.seek(SPARSE_SIZE // 3)
        file.write(rng.randbytes(5000))
    odd = os.path.join(os.fsencode(profile), b"old\xff\nname")  # neither text nor one line
    with open(odd, "wb") as stream:
        stream.write(b"still here\n")
