"""Everything that is sealed, seen at the library: which key, which nonce, by whom.

The product's names of the two things that seal (AES-GCM, HPKE) are replaced wherever a module of it imported them, so a
new module is watched without being told of. Every use is written to a file before it is made: also what a process did
that is killed at the next instant, and what a child did after a fork.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatkeep.daemon.keys import hybrid

_USE = struct.Struct(">B16s16sB16s")
_ENCAPSULATED = 1120  # bytes: the ephemeral keys that HPKE made for one message
_RECORD, _HPKE, _ONCE = 1, 2, 3
_NOTHING = bytes(32)
"""Sealed under itself it overwrites what the library left of a key (keys.wrapping), and is kept nowhere. Anything else
that is sealed under it was sealed with a key that had been wiped."""


class Use(NamedTuple):
    """One sealing. `owner`: the cipher object, in its process. `length`: of the nonce, of which 16 bytes are kept."""

    kind: int
    key: bytes
    owner: bytes
    length: int
    nonce: bytes


class _Cipher:
    """AESGCM, with a note before each sealing."""

    ledger: Ledger
    numbers = itertools.count()

    def __init__(self, key: Any) -> None:
        self._real = AESGCM(key)
        self._key = hashlib.sha256(bytes(key)).digest()[:16]
        self._owner = struct.pack(">QQ", os.getpid(), next(self.numbers))
        self._is_nothing = bytes(key) == _NOTHING

    def encrypt(self, nonce: bytes, content: Any, *rest: Any) -> bytes:
        """What the product does with keys of one message."""
        if not (self._is_nothing and content == _NOTHING):
            self.ledger.note(_ONCE, self._key, self._owner, nonce)
        return self._real.encrypt(nonce, content, *rest)

    def encrypt_into(self, nonce: bytes, *rest: Any) -> int:
        """What the product does with the records of a pack."""
        self.ledger.note(_RECORD, self._key, self._owner, nonce)
        return self._real.encrypt_into(nonce, *rest)

    def __getattr__(self, name: str) -> Any:
        assert name.startswith("decrypt"), f"{name} seals too: watch it"
        return getattr(self._real, name)


class _Suite:
    """The HPKE suite. What it chose is seen in what it made."""

    def __init__(self, real: Any, ledger: Ledger) -> None:
        self._real = real
        self._ledger = ledger

    def encrypt(self, *arguments: Any, **named: Any) -> bytes:
        sealed: bytes = self._real.encrypt(*arguments, **named)
        self._ledger.note(_HPKE, hashlib.sha256(sealed[:_ENCAPSULATED]).digest()[:16], bytes(16), bytes(12))
        return sealed

    def decrypt(self, *arguments: Any, **named: Any) -> bytes:
        opened: bytes = self._real.decrypt(*arguments, **named)
        return opened


@dataclass
class Verdict:
    """What the uses amount to. `wrong`: what must never be."""

    pairs: int = 0
    keys: int = 0
    once: int = 0
    capsules: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs of key and nonce under {self.keys} keys, {self.once} of them used once with the zero "
            f"nonce; {self.capsules} capsules and envelopes"
        )


class Ledger:
    """The file of all uses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def note(self, kind: int, key: bytes, owner: bytes, nonce: bytes) -> None:
        """One sealing is about to be made."""
        os.write(self._file, _USE.pack(kind, key, owner, min(255, len(nonce)), bytes(nonce[:16])))

    def uses(self) -> list[Use]:
        """All so far, of all processes."""
        return [Use(*fields) for fields in _USE.iter_unpack(self._path.read_bytes())]

    def verdict(self) -> Verdict:
        """The rules: a pair once, a key in one pack or message, a counter that counts, twelve bytes."""
        uses = self.uses()
        verdict = Verdict(capsules=sum(use.kind == _HPKE for use in uses))
        again = Counter(use.key for use in uses if use.kind == _HPKE)
        verdict.wrong += [f"a capsule's ephemeral key was used {n} times" for n in again.values() if n > 1]
        by_key: dict[bytes, list[Use]] = defaultdict(list)
        for use in uses:
            if use.kind != _HPKE:
                by_key[use.key].append(use)
        for key, those in by_key.items():
            verdict.keys += 1
            verdict.pairs += len({use.nonce for use in those})
            verdict.once += those[0].kind == _ONCE
            verdict.wrong += [f"key {key.hex()[:8]}: {what}" for what in _wrong(those)]
        return verdict

    def close(self) -> None:
        os.close(self._file)


def _wrong(uses: list[Use]) -> Iterator[str]:
    nonces = [use.nonce[: use.length] for use in uses]
    if len(set(nonces)) < len(nonces):
        yield f"a nonce twice, of {len(nonces)}"
    if len({use.owner for use in uses}) > 1:
        yield "used by two packs or messages"
    if len(uses) > 1 and any(use.kind == _ONCE for use in uses):
        yield "a key of one message seals more"
    if any(use.length != 12 for use in uses):
        yield "a nonce that is not of twelve bytes"
    elif [int.from_bytes(nonce, "big") for nonce in nonces] != list(range(len(nonces))):
        yield "the counter does not count"


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Ledger]:
    """Everything sealed while the block runs, also in children, is noted in the file at `path`."""
    ledger = Ledger(path)
    found = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Cipher, "ledger", ledger, raising=False)
        for name, module in list(sys.modules.items()):
            if name.startswith("chatkeep.") and getattr(module, "AESGCM", None) is AESGCM:
                patch.setattr(module, "AESGCM", _Cipher)
                found.add(name)
        patch.setattr(hybrid, "_SUITE", _Suite(hybrid._SUITE, ledger))
        sealing = {"chatkeep.daemon.vault.seal", "chatkeep.daemon.keys.wrapping"}
        assert found >= sealing, "the product seals in other modules than it used to"
        yield ledger
    ledger.close()
