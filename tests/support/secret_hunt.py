"""Every secret of a vault, computed the way docs/format.md says, and the search for them in what a run left behind."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.keys.methods import PasskeyMethod, PassphraseMethod, RecoveryMethod
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.vault.labels import MANIFEST_CAPSULE, MANIFEST_HEADER, PACK_CAPSULE, PACK_FOOTER, PACK_PUBLIC

P = b"chatkeep/v1/"
KEY = 32
LEAST = 8  # bytes of a spelling that is looked for
Method = RecoveryMethod | PassphraseMethod | PasskeyMethod


def hkdf(secret: bytes, info: bytes, size: int = KEY, salt: bytes | None = None) -> bytes:
    return HKDF(SHA256(), size, salt, info).derive(secret)


class Hunt:
    """What must not be found: names of secrets, and their bytes."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = objects
        self.secrets: dict[str, bytes] = {}

    def slots(self, **methods: Method) -> None:
        """Opens every slot that one of the methods opens, and takes down all that it leads to."""
        for name, raw in self._objects.items():
            if not name.startswith("slots/"):
                continue
            slot = SlotFile.parse(raw)
            for called, method in methods.items():
                if slot.kind == method.kind:
                    self._slot(f"{called} {slot.slot_id.hex()[:6]}", slot, raw, bytes(method.secret(slot)))

    def _slot(self, called: str, slot: SlotFile, raw: bytes, secret: bytes) -> None:
        place = slot.vault_id + slot.slot_id
        first, second, _ = raw.split(b"\n", 2)
        salt = _b64(json.loads(first)["salt"])
        schedule = hkdf(secret, P + b"kek/" + slot.kind.encode() + b"\0" + place, 2 * KEY, salt)
        if schedule[KEY:].hex() != json.loads(second)["commit"]:
            return  # of another secret of this kind
        seed = AESGCM(schedule[:KEY]).decrypt(
            bytes(12), _b64(json.loads(second)["wrapped"]), P + b"slot\0" + first + b"\n"
        )
        stem = hkdf(seed, P + b"slot-kem\0")
        self.secrets |= {f"{called} secret": secret, f"{called} kek": schedule[:KEY]}
        self.secrets |= {f"{called} seed": seed, f"{called} key": stem}
        private = HybridPrivate.from_seed(stem)
        envelopes = {slot.epoch: _b64(json.loads(second)["env"])}
        for record in self._records():
            listed = record["slots"].get(slot.slot_id.hex())
            if listed is not None:
                envelopes[record["epoch"]] = _b64(listed["env"])
        for epoch, envelope in envelopes.items():
            info = P + b"slot-env\0" + slot.vault_id + epoch.to_bytes(4, "big") + slot.slot_id
            self._root(slot.vault_id, epoch, private.open(envelope, info))

    def _root(self, vault_id: bytes, epoch: int, root: bytes) -> None:
        if f"root {epoch}" in self.secrets:
            return
        self.secrets[f"root {epoch}"] = root
        for name in ("open", "sign", "checkpoint", "older"):
            self.secrets[f"{name} {epoch}"] = hkdf(root, P + name.encode() + b"\0")
        for record in self._records():
            if record["epoch"] == epoch and record["older"] is not None:
                keys = EpochKeys(RootSecret(bytearray(root)))
                older = keys.unwrap_older(_b64(record["older"]), vault_id, epoch)
                self._root(vault_id, epoch - 1, bytes(older.view()))

    def objects(self) -> None:
        """Takes down the key of every pack and manifest; the slots were opened before."""
        keys = [HybridPrivate.from_seed(seed) for name, seed in self.secrets.items() if name.startswith("open ")]
        private = {key.public.key_id: key for key in keys}
        for name, body in self._objects.items():
            if "/p/" in name:
                footer = body[-PACK_FOOTER:]
                public = footer[PACK_CAPSULE : PACK_CAPSULE + PACK_PUBLIC]
                content = private[public[20:36]].open(footer[:PACK_CAPSULE], P + b"pack\0" + public)
                self.secrets[f"pack {name[-64:][:6]}"] = content[:KEY]
            elif "/s/" in name:
                header, capsule = body[:MANIFEST_HEADER], body[MANIFEST_HEADER : MANIFEST_HEADER + MANIFEST_CAPSULE]
                self.secrets[f"manifest {name[-64:][:6]}"] = private[header[28:44]].open(
                    capsule, P + b"manifest\0" + header
                )

    def _records(self) -> Iterator[Any]:
        for name, raw in self._objects.items():
            if name.startswith("epochs/"):
                yield json.loads(raw.split(b"\n", 1)[0])


def _b64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def spellings(secret: bytes) -> dict[str, bytes]:
    """As it could have been written: each spelling alone would be enough to find it."""
    found = {
        "raw": secret,
        "hex": secret.hex().encode(),
        "upper hex": secret.hex().upper().encode(),
        "decimal": str(int.from_bytes(secret, "big")).encode(),
        "little-endian decimal": str(int.from_bytes(secret, "little")).encode(),
        "list": ", ".join(map(str, secret)).encode(),
        "dense list": ",".join(map(str, secret)).encode(),
        "escapes": "".join(f"\\x{byte:02x}" for byte in secret).encode(),
        "base32": base64.b32encode(secret)[:-8],
        "as Python shows it": repr(secret)[2:-1].encode(),
    }
    for shift in range(3):
        # Where it begins in what was encoded is unknown; the characters at both ends hold bits of neighbours.
        coded = base64.b64encode(b"x" * shift + secret + b"x" * (-(len(secret) + shift) % 3))
        inner = coded[4 if shift else 0 : -4]
        if len(inner) < LEAST:
            continue  # of a short secret: four characters are found somewhere by chance
        found[f"base64 at {shift}"] = inner
        found[f"url base64 at {shift}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    return found


def typed(name: str, text: str) -> dict[str, bytes]:
    """The secrets that a typed one is: its bytes, in two widths, and without what is between the words."""
    dense = "".join(text.split())
    return {name: text.encode(), f"{name}, wide": text.encode("utf-16-le"), f"{name}, dense": dense.encode()}


def found_in(body: bytes, secrets: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Name and spelling of each secret in `body`, which is also searched without its white space."""
    dense = b"".join(body.split())
    return {
        (name, spelling)
        for name, secret in secrets.items()
        for spelling, text in spellings(secret).items()
        if text in body or b"".join(text.split()) in dense
    }


def files(*tops: Path, but: Iterable[Path] = ()) -> dict[str, bytes]:
    """What lies below, by path; names of files are searched as well, as if they were content."""
    left_out = set(but)
    paths = [path for top in tops for path in sorted(top.rglob("*")) if path.is_file() and path not in left_out]
    return {str(path): path.read_bytes() + b"\n" + str(path).encode() for path in paths}
