"""A vault with every way in, two epochs and two snapshots, and every secret that reads it, worked out from its objects
the way docs/format.md and the libraries' own papers say, down to what the libraries make of a key for themselves.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from chatkeep.daemon.keys.methods import PasskeyMethod, PassphraseMethod, RecoveryMethod
from chatkeep.daemon.keys.passkey import Answer, NewCredential, PasskeyParams, Question, evaluation
from chatkeep.daemon.keys.passphrase import Argon2Params
from chatkeep.daemon.keys.recovery import RecoveryKey, generate, parse
from chatkeep.daemon.keys.root import SigningKey
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.vault.create import Way, add_slot
from chatkeep.daemon.vault.names import SlotName
from chatkeep.daemon.vault.unlock import unlock_to_enrol
from chatkeep.providers.folder import FolderProvider
from tests.support.memory_scan import wide
from tests.support.secret_hunt import Hunt, hkdf
from tests.support.soft_passkey import SoftPasskey, from_b64, to_b64
from tests.support.station import Station, fill

KINDS: Final = ("recovery", "passphrase", "passkey")
BIG: Final = "photo"
SIZE: Final = 3 << 20  # bytes of it: more than any pipe holds


class AtHand:
    """Somebody with this passkey."""

    def __init__(self, passkey: SoftPasskey) -> None:
        self.passkey = passkey

    def enrol(self, exclude: Sequence[bytes]) -> NewCredential:
        return NewCredential(self.passkey.credential, synced=False)

    def ask(self, questions: Sequence[Question]) -> Answer:
        (one,) = [one for one in questions if one.credential == self.passkey.credential]
        return Answer(one.credential, bytearray(self.passkey.prf(one.evaluation)))


class Vault:
    """The vault, below `room`.

    Attributes:
        station: the machine that made it.
        passkey, wrong_passkey: one that opens it, and one with the same name and another seed.
        secrets: by name, with what derives from them.
        typed: of those, what a person types.
        reads: of those, each that opens packs and manifests; `certifies`: each that adds ways in, and `roots`.
        of_objects: the keys of single packs and manifests.
    """

    def __init__(self, room: Path) -> None:
        room.mkdir()
        self.station = Station(room)
        self.storage = self.station.storage()
        self.station.init()
        self._file("passphrase", f"Zwölf Boxkämpfer jagen {secrets.token_hex(6)}\n")
        self._file("wrong-passphrase", f"Zwölf Boxkämpfer jagten {secrets.token_hex(6)}\n")
        self._file("recovery", self.station.key.read_text())
        self._file("wrong-recovery", "".join(f"{line}\n" for line in generate().lines))
        self.passkey = SoftPasskey()
        self.wrong_passkey = SoftPasskey(credential=self.passkey.credential)
        fill(self.station.source / "messages.db")
        self.station.backup()
        key = parse(self.station.key.read_text())
        self._add_slots(key)
        self.station.ok("key", "rotate", "--yes", "--key-file", self.station.key)
        (self.station.source / BIG).write_bytes(random.Random(1).randbytes(SIZE))
        self.station.backup()
        self._work_out(key)

    @property
    def held(self) -> set[str]:
        """What the libraries keep of the keys that open, while there are any."""
        return {name for name in self.reads if name.endswith(("ML-KEM d", "ML-KEM z", "X25519"))}

    def file(self, name: str) -> Path:
        """The file with this secret."""
        return self.station.room / f"{name}.txt"

    def wrong(self, kind: str) -> Mapping[str, bytes]:
        """The wrong secret of this kind, as it would be in memory."""
        if kind == "passkey":
            return {"wrong passkey": self.wrong_passkey.prf(self._evaluation)}
        if kind == "passphrase":
            return wide("wrong passphrase", self.file("wrong-passphrase").read_text().strip())
        return _written("wrong recovery", parse(self.file("wrong-recovery").read_text()))

    def _file(self, name: str, text: str) -> None:
        self.file(name).touch(mode=0o600)
        self.file(name).write_text(text)

    def _methods(self, key: RecoveryKey) -> dict[str, RecoveryMethod | PassphraseMethod | PasskeyMethod]:
        passphrase = self.file("passphrase").read_text().strip()
        quick = PassphraseMethod(lambda: passphrase, lambda: Argon2Params.fresh(65_536, 1, 1))
        return {
            "recovery": RecoveryMethod(key),
            "passphrase": quick,
            "passkey": PasskeyMethod(AtHand(self.passkey)),
        }

    def _add_slots(self, key: RecoveryKey) -> None:
        provider = FolderProvider("disk", self.storage)
        methods = self._methods(key)
        with unlock_to_enrol(provider, methods["recovery"]) as enrolment:
            for kind in ("passphrase", "passkey"):
                add_slot([provider], enrolment, Way(methods[kind], kind), time.time_ns())

    @property
    def _evaluation(self) -> bytes:
        (slot,) = [slot for slot in self.slots() if isinstance(slot.params, PasskeyParams)]
        assert isinstance(slot.params, PasskeyParams)
        return evaluation(slot.vault_id, slot.slot_id, slot.params.salt)

    @property
    def vault_id(self) -> bytes:
        """Its id."""
        return self.slots()[0].vault_id

    def slots(self) -> list[SlotFile]:
        """The slots in storage."""
        return [SlotFile.parse(path.read_bytes()) for path in sorted((self.storage / "slots").iterdir())]

    def damaged(self, storage: Path, kind: str) -> Path:
        """A copy of storage in which the slot of this kind is one that its secret is right for, and no more."""
        shutil.copytree(self.storage, storage)
        (slot,) = [slot for slot in self.slots() if slot.kind.startswith("webauthn" if kind == "passkey" else kind)]
        second = json.loads(slot.raw.split(b"\n")[1])
        # The tag alone: what is decrypted is the true seed, and must not be left behind for all that.
        wrapped = bytearray(from_b64(second["wrapped"]))
        wrapped[-1] ^= 1
        second["wrapped"] = to_b64(bytes(wrapped))
        lines = [slot.first_line, json.dumps(second, separators=(",", ":")).encode()]
        raw = sign_text("slot", slot.vault_id, lines, SigningKey(self.secrets["sign 1"]))
        (storage / str(SlotName(slot.slot_id))).write_bytes(raw)
        return storage

    def cut_short(self, storage: Path) -> Path:
        """A copy of storage without the first epoch: every slot opens, and leads nowhere."""
        shutil.copytree(self.storage, storage)
        (record,) = [path for path in (storage / "epochs").iterdir() if path.name.startswith("00000001-")]
        record.unlink()
        return storage

    def _work_out(self, key: RecoveryKey) -> None:
        hunt = Hunt({name: path.read_bytes() for name, path in self.station.objects().items()})
        hunt.slots(**self._methods(key))
        self.reads = set()
        found = dict(hunt.secrets)
        for name, secret in hunt.secrets.items():
            if name.startswith("open ") or name.endswith(" key"):
                found |= _hybrid(name, secret)
            elif name.startswith(("sign ", "checkpoint ")):
                found |= _signing(name, secret)
            elif name.startswith("root "):
                found[f"{name}, extracted"] = hmac.digest(bytes(32), secret, "sha256")
        typed = _written("recovery", key) | wide("passphrase", self.file("passphrase").read_text().strip())
        hunt.objects()
        self.of_objects = {
            name: secret for name, secret in hunt.secrets.items() if name.startswith(("pack ", "manifest "))
        }
        # What is used is derived from what is sealed (docs/format.md, sections 10 and 13).
        for name, secret in list(self.of_objects.items()):
            for epoch in (1, 2):
                info = b"chatkeep/v1/" + name.split()[0].encode() + b"\0" + self.vault_id + epoch.to_bytes(4, "big")
                self.of_objects[f"{name}, cipher of epoch {epoch}"] = hkdf(secret, info, 64)[:32]
        assert len(self.of_objects) >= 4, self.of_objects.keys()
        self.typed = set(typed)
        self.reads = {name for name in found if name.startswith("open ")}
        self.roots = {name for name in found if name.startswith("root ")}
        self.certifies = {name for name in found if name.startswith("sign ")} | self.roots
        self.secrets = found | typed
        assert {f"{each} 2" for each in ("root", "open", "sign", "checkpoint", "older")} <= found.keys()
        assert {"root 1", "open 1"} <= found.keys()


def _hybrid(name: str, seed: bytes) -> dict[str, bytes]:
    """X-Wing (its Internet draft, section 5.2), FIPS 203 (algorithm 13), RFC 7748 (section 5)."""
    expanded = hashlib.shake_256(seed).digest(96)
    d, z, scalar = expanded[:32], expanded[32:64], bytearray(expanded[64:])
    found = {f"{name}, ML-KEM d": d, f"{name}, ML-KEM z": z, f"{name}, X25519": bytes(scalar)}
    found[f"{name}, ML-KEM sigma"] = hashlib.sha3_512(d + b"\3").digest()[32:]
    return found | {f"{name}, X25519 clamped": _clamped(scalar)}


def _signing(name: str, seed: bytes) -> dict[str, bytes]:
    """RFC 8032, section 5.1.5."""
    hashed = hashlib.sha512(seed).digest()
    return {f"{name}, scalar": _clamped(bytearray(hashed[:32])), f"{name}, prefix": hashed[32:]}


def _clamped(scalar: bytearray) -> bytes:
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return bytes(scalar)


def _written(name: str, key: RecoveryKey) -> dict[str, bytes]:
    """As it is written down, whole and line by line; `secret` is what is made of it."""
    found = {f"{name}, secret": bytes(key.view())}
    for kind, lines in (("as shown", key.lines), ("dense", [line.replace(" ", "") for line in key.lines])):
        found |= {f"{name}, {kind}": "\n".join(lines).encode(), f"{name}, {kind} in one": "".join(lines).encode()}
        found |= {f"{name}, line {number} {kind}": line.encode() for number, line in enumerate(lines, 1)}
    return found
