"""What goes between the process that holds the keys and those that ask it: fixed binary frames. Pure.

A person's secret is in none of them but the first, which goes through a pair of sockets that nobody else has.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

MAGIC: Final = b"CKSESS\0\1"
MOST_EPOCHS: Final = 1024
SEED_SIZE: Final = 32
MOST_PATH: Final = 4096  # PATH_MAX
MOST_TEXT: Final = 512  # of a kind or a label, in bytes
KEY_ID: Final = 16
VERIFY_KEY: Final = 32
SIGNATURE: Final = 64

# What is asked.
ABOUT: Final = 1
OPEN: Final = 2
SIGN: Final = 3

# What is answered.
DONE: Final = 0
REFUSED: Final = 1  # nothing of this vault, or nothing that is opened or signed
UNSEALABLE: Final = 2
UNKNOWN_KEY: Final = 3

FRAME: Final = struct.Struct(">BI")
"""Begins every request and every answer: which, and how many bytes follow."""

EPOCH: Final = struct.Struct(">I")
ENTRY_SIZE: Final = EPOCH.size + SEED_SIZE
"""An epoch and the seed of its `open` key. Never packed into one, nor taken apart, by `struct`: what that returns
nobody can overwrite."""

_HELLO: Final = struct.Struct(">8s16s32s16sQQHHHI")
_ABOUT: Final = struct.Struct(">16s32s16sQQQQBHHI32s")
_OPEN: Final = struct.Struct(">I16sH")
HELLO_SIZE: Final = _HELLO.size
MOST_ABOUT: Final = _ABOUT.size + 2 * MOST_TEXT + MOST_EPOCHS * KEY_ID
READY: Final = struct.Struct(">BBI")
"""The answer to the hello: 0 or why not, what was hardened (as in `About`), errno."""

READY_DONE: Final = 0
READY_SOCKET: Final = 1
READY_HELLO: Final = 2

STAY: Final = b"+"
"""Said by whoever started it, once it knows that it is ready."""

NO_CORE, NOT_DUMPABLE, KEYS_LOCKED, ALL_LOCKED = 1, 2, 4, 8
"""Bits of what was hardened."""


class Unreadable(ValueError):
    """Bytes that are no frame of this version."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a session is, without its keys.

    Attributes:
        vault_id: the vault that is unlocked.
        head: hash of the newest epoch record when it was.
        slot_id, kind, label: the way in that opened it; the label may be empty.
        until: when it ends, in ns of CLOCK_BOOTTIME: time asleep counts, and setting the clock changes nothing.
        since: when it began, in ns since 1970 UTC, to be shown.
    """

    vault_id: bytes
    head: bytes
    slot_id: bytes
    kind: str
    label: str
    until: int
    since: int


class Hello(NamedTuple):
    """What the process is told first, seeds apart: they follow, `epochs` of them, and the one for checkpoints."""

    facts: Facts
    directory: bytes
    epochs: int

    def encode(self) -> bytes:
        """Raises `Unreadable` when something is longer than is taken."""
        facts = self.facts
        kind, label = facts.kind.encode(), facts.label.encode("utf-8", "replace")
        _check(len(kind), len(label), len(self.directory), self.epochs)
        head = _HELLO.pack(
            MAGIC,
            facts.vault_id,
            facts.head,
            facts.slot_id,
            facts.until,
            facts.since,
            len(kind),
            len(label),
            len(self.directory),
            self.epochs,
        )
        return head + kind + label + self.directory

    @staticmethod
    def rest(head: bytes) -> int:
        """How many bytes follow the first `HELLO_SIZE`, until the seeds. Raises `Unreadable`."""
        magic, *_, kind, label, directory, epochs = _HELLO.unpack(head)
        if magic != MAGIC:
            raise Unreadable
        _check(kind, label, directory, epochs)
        return int(kind + label + directory)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Raises `Unreadable`."""
        rest = cls.rest(raw[:HELLO_SIZE])
        _, vault_id, head, slot_id, until, since, kind, label, _, epochs = _HELLO.unpack(raw[:HELLO_SIZE])
        texts = raw[HELLO_SIZE:]
        if len(texts) != rest:
            raise Unreadable
        facts = Facts(vault_id, head, slot_id, _text(texts[:kind]), _text(texts[kind : kind + label]), until, since)
        return cls(facts, texts[kind + label :], epochs)


@dataclass(frozen=True, slots=True)
class About:
    """What a session says of itself: nothing secret.

    Attributes:
        facts: what it is.
        opened, signed: how often it did that.
        hardened: bits: `NO_CORE`, `NOT_DUMPABLE`, `KEYS_LOCKED`, `ALL_LOCKED`.
        checkpoint: the public key of what it signs with.
        key_ids: of what it opens with, by epoch from 1 on.
    """

    facts: Facts
    opened: int
    signed: int
    hardened: int
    checkpoint: bytes
    key_ids: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The bytes of it."""
        facts = self.facts
        kind, label = facts.kind.encode(), facts.label.encode()
        head = _ABOUT.pack(
            facts.vault_id,
            facts.head,
            facts.slot_id,
            facts.until,
            facts.since,
            self.opened,
            self.signed,
            self.hardened,
            len(kind),
            len(label),
            len(self.key_ids),
            self.checkpoint,
        )
        return head + kind + label + b"".join(self.key_ids)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Raises `Unreadable`."""
        if len(raw) < _ABOUT.size:
            raise Unreadable
        fields = _ABOUT.unpack(raw[: _ABOUT.size])
        vault_id, head, slot_id, until, since, opened, signed, hardened, kind, label, count, checkpoint = fields
        rest = raw[_ABOUT.size :]
        if len(rest) != kind + label + count * KEY_ID:
            raise Unreadable
        facts = Facts(vault_id, head, slot_id, _text(rest[:kind]), _text(rest[kind : kind + label]), until, since)
        keys = rest[kind + label :]
        ids = tuple(keys[at : at + KEY_ID] for at in range(0, len(keys), KEY_ID))
        return cls(facts, opened, signed, hardened, checkpoint, ids)


class Opening(NamedTuple):
    """A request to open something sealed to the key of an epoch."""

    epoch: int
    key_id: bytes
    bound: bytes
    sealed: bytes

    def encode(self) -> bytes:
        """The bytes of it."""
        return _OPEN.pack(self.epoch, self.key_id, len(self.bound)) + self.bound + self.sealed

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Raises `Unreadable`."""
        if len(raw) < _OPEN.size:
            raise Unreadable
        epoch, key_id, size = _OPEN.unpack(raw[: _OPEN.size])
        rest = raw[_OPEN.size :]
        if size > len(rest):
            raise Unreadable
        return cls(epoch, key_id, rest[:size], rest[size:])


def _check(kind: int, label: int, directory: int, epochs: int) -> None:
    if kind > MOST_TEXT or label > MOST_TEXT or not 0 < directory <= MOST_PATH or not 1 <= epochs <= MOST_EPOCHS:
        raise Unreadable


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise Unreadable from exc
