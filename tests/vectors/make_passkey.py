"""Makes the frozen slots of passkeys: `python -m tests.vectors.make_passkey [FOLDER]`.

`passkey.json`: what a passkey is asked (deterministic), three slots with everything on the way from the authenticator's
CredRandom to the root secret, and what is said of each of their damages. `vault-passkey.json`: a small vault with a
recovery slot, a passkey's, and a passkey's that was removed. Existing files are left alone, as in make.py.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.passkey import Answer, PasskeyParams
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import create_slot, open_label, open_slot
from chatkeep.daemon.keys.strict_json import encode_b64
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault.epoch import vault_id_of
from chatkeep.daemon.vault.names import VaultName
from chatkeep.daemon.vault.reader import VaultReader
from tests import independent_reader
from tests.support.hostile_vault import HostileVault
from tests.support.passkeys import AtHand, evaluation_of, prf, salt_of
from tests.support.sources import HOUR, Clock, fill
from tests.support.vaults import NOW, Epochs, recovery
from tests.vectors.make import FOLDER, ROOT
from tests.vectors.make_vault import FALLOUT, damaged, places, probe, tree_of

SLOTS, VAULT = FOLDER / "passkey.json", FOLDER / "vault-passkey.json"
MADE = (  # credential id, CredRandomWithUV, CredRandomWithoutUV, label, synced
    (bytes(range(0xA0, 0xE0)), b"\x11" * 32, b"\x12" * 32, "blue key", False),
    (bytes(range(16)), b"\x21" * 32, b"\x22" * 32, "", True),
    (bytes(range(256)) * 3 + bytes(255), b"\x31" * 32, b"\x32" * 32, "Caf\u00e9 " * 19 + "!", False),
)
SEEDED = (bytes(range(0x30, 0x40)), b"\x41" * 32), (bytes(range(0x50, 0x70)), b"\x51" * 32)
"""Of the small vault: the passkey that stays, and the one that was removed."""

Damage = Mapping[str, Any]


def keys() -> tuple[EpochKeys, bytes]:
    """The epoch of the slots, and the id of their vault."""
    made = EpochKeys(RootSecret(bytearray(ROOT)))
    return made, vault_id_of(made.sign.public)


def evaluations() -> Iterator[dict[str, str]]:
    """What is asked, for vaults, slots and salts that differ in one bit: nothing at random."""
    base = [bytes(16), bytes(16), bytes(32)]
    for place, at in ((0, 0), (0, 15), (1, 0), (1, 15), (2, 0), (2, 31)):
        changed = [bytearray(one) for one in base]
        changed[place][at] = 1
        vault, slot, salt = map(bytes, changed)
        asked = evaluation_of(vault, slot, salt)
        answer = prf(b"\x5a" * 32, asked)
        yield {
            "vault": vault.hex(),
            "slot": slot.hex(),
            "salt": salt.hex(),
            "evaluation": asked.hex(),
            "salt1": salt_of(asked).hex(),
            "cred_random": "5a" * 32,
            "output": answer.hex(),
        }


def lines_of(raw: bytes) -> list[dict[str, Any]]:
    """The two lines of a slot as JSON."""
    return [json.loads(line) for line in raw.split(b"\n")[:2]]


def changed(raw: bytes, damage: Damage) -> bytes:
    """A slot with one damage. `flip`: one bit of the byte there; `cut`: what is left; `set`: a line's keys with other
    values, signed again by the epoch's key, as whoever has the root secret can."""
    if "flip" in damage:
        at = damage["flip"]
        return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
    if "cut" in damage:
        return raw[: damage["cut"]]
    if "set" not in damage:
        return raw
    lines = lines_of(raw)
    line, values = damage["set"]
    lines[line] |= values
    epoch, _ = keys()
    whose = bytes.fromhex(lines[0]["vault"]) if isinstance(lines[0]["vault"], str) else bytes(16)
    packed = [json.dumps(one, separators=(",", ":"), ensure_ascii=False).encode() for one in lines]
    return sign_text("slot", whose, packed, epoch.sign)


def said(slot: Mapping[str, Any], damage: Damage) -> dict[str, Any] | None:
    """What a reader says of a slot with a damage, and how often it asked the authenticator; None: that it is sound."""
    epoch, _ = keys()
    credential = bytes.fromhex(slot["credential"])
    hands = AtHand({credential: bytes.fromhex(slot["cred_random_with_uv"])})
    if "answer" in damage:
        whose = bytes.fromhex(damage.get("credential", slot["credential"]))
        hands.instead[credential] = Answer(whose, bytearray.fromhex(damage["answer"]))
    method = hands.method()
    try:
        file = SlotFile.parse(changed(base64.b64decode(slot["raw"]), damage))
        for one in method.among([file]):
            opened = open_slot(one, method)
            assert opened.open_envelope(file.envelope, file.epoch).view() == ROOT
            assert open_label(file, epoch.open) == (*slot["label"],)
            return None
    except ChatkeepError as exc:
        found = {"code": exc.code, "reason": exc.params.get("reason"), "key": exc.params.get("key")}
        return {name: value for name, value in found.items() if value is not None} | {"asked": len(hands.asked)}
    raise AssertionError("no slot was tried")


def other(value: Any) -> Any:
    """Another value of the same form: the first letter of hex or base64 changed, the next number."""
    if isinstance(value, int):
        return value + 1
    assert isinstance(value, str)
    return ("b" if value[0] == "a" else "a") + value[1:]


def damages(slot: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every damage, not answered yet."""
    raw = base64.b64decode(slot["raw"])
    for what, at in places(raw, "slots/"):
        yield {"what": f"{what}, one bit", "flip": at}
    yield {"what": "half is missing", "cut": len(raw) // 2}
    outer, inner = lines_of(raw)
    for number, line in enumerate((outer, inner)):
        for key, value in line.items():
            if key not in ("kind", "params", "pin"):
                yield {"what": f"another {key}, signed", "set": [number, {key: other(value)}]}
    yield {"what": "another vault's, signed", "set": [0, {"vault": "99" * 16}]}
    for kind in ("recovery-64", "passphrase", "webauthn-prf-2"):
        yield {"what": f"kind {kind}, signed", "set": [0, {"kind": kind}]}
    params = outer["params"]
    fields: dict[str, list[Any]] = {
        "rp_id": ["bank.example", "localhost.example", "Localhost", "localhost.", "127.0.0.1", "", "x" * 254, 7, None],
        "cred": [other(params["cred"]), "", encode_b64(bytes(15)), encode_b64(bytes(1024)), params["cred"] + "=", 7],
        "salt": [other(params["salt"]), "", encode_b64(bytes(31)), encode_b64(bytes(33)), 7],
    }
    for key, values in fields.items():
        for value in values:
            shown = f"{value[:20]!r} of {len(value)}" if isinstance(value, str) else repr(value)
            yield {"what": f"{key} {shown}, signed", "set": [0, {"params": params | {key: value}}]}
        less = {name: value for name, value in params.items() if name != key}
        yield {"what": f"no {key}, signed", "set": [0, {"params": less}]}
    yield {"what": "a parameter more, signed", "set": [0, {"params": params | {"uv": True}}]}
    yield {"what": "no parameters, signed", "set": [0, {"params": {}}]}
    answer = slot["output"]
    wrong = {"one bit": other(answer), "without the user": slot["output_without_uv"], "nothing": "", "zeros": "00" * 32}
    wrong |= {"31 bytes": answer[:-2], "33 bytes": answer + "00", "two outputs": answer * 2}
    for what, given in wrong.items():
        yield {"what": f"answer: {what}", "answer": given}
    yield {"what": "answer of another credential", "answer": answer, "credential": "77" * 32}


def make_slot(number: int) -> dict[str, Any]:
    """A slot, and every value on the way to what it opens."""
    credential, with_uv, without_uv, text, synced = MADE[number]
    epoch, vault_id = keys()
    hands = AtHand({credential: with_uv}, synced=synced)
    slot_id, raw = create_slot(hands.method(), epoch, vault_id, 1, text, NOW)
    file = SlotFile.parse(raw)
    assert isinstance(file.params, PasskeyParams)
    asked = evaluation_of(vault_id, slot_id, file.params.salt)
    output = prf(with_uv, asked)
    hkdf = independent_reader.hkdf
    both = hkdf(output, b"kek/webauthn-prf\0" + vault_id + slot_id, 64, file.salt)
    seed = independent_reader.unseal(both[:32], file.wrapped, b"chatkeep/v1/slot\0" + file.first_line + b"\n")
    made: dict[str, Any] = {
        "credential": credential.hex(),
        "cred_random_with_uv": with_uv.hex(),
        "cred_random_without_uv": without_uv.hex(),
        "slot": slot_id.hex(),
        "rp_id": file.params.rp_id,
        "salt": file.params.salt.hex(),
        "evaluation": asked.hex(),
        "salt1": salt_of(asked).hex(),
        "output": output.hex(),
        "output_without_uv": prf(without_uv, asked).hex(),
        "kek": both[:32].hex(),
        "commit": both[32:].hex(),
        "seed": seed.hex(),
        "label": [text, NOW, synced],
        "raw": base64.b64encode(raw).decode(),
    }
    assert said(made, {}) is None
    answered = [damage | {"expect": said(made, damage)} for damage in damages(made)]
    return made | {"damages": [one for one in answered if number == 0 or "answer" in one]}


def make() -> dict[str, Any]:
    """All slots."""
    _, vault_id = keys()
    return {
        "format": 1,
        "root_secret": ROOT.hex(),
        "vault": vault_id.hex(),
        "epoch": 1,
        "evaluations": list(evaluations()),
        "slots": [make_slot(number) for number in range(len(MADE))],
    }


class SmallVault(HostileVault):
    """Two epochs, one device, three slots of which one was removed."""

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        self.clock = Clock()
        self.epochs = Epochs(self.provider, seed=4)
        self.vault_id = self.epochs.vault_id
        marker = b'{"chatkeep":1,"vault":"%s"}\n' % self.vault_id.hex().encode()
        self.provider.put(str(VaultName(self.vault_id)), marker)
        self.slot = self.epochs.add_slot(recovery())
        self.second_slot, self.removed = (self.epochs.add_slot(AtHand(dict([one])).method()) for one in SEEDED)
        self._enrol("ana")
        self._source("ana")
        self.back_up("ana")
        self.rotate(keep=("ana",))
        self.clock.now += HOUR
        self.back_up("ana")
        self.objects = dict(self.provider.objects)

    def _source(self, name: str) -> None:
        source = self.directory / f"source-{name}"
        source.mkdir()
        (source / "note.txt").write_bytes(b"Good morning!")
        fill(source / "messages.db", 20)


def vault_damages(made: SmallVault) -> Iterator[dict[str, Any]]:
    """Damages of the passkey's slot, with no other slot there, and what is said of each."""
    method = AtHand(dict([SEEDED[0]])).method
    name, *others = (f"slots/{slot.hex()}.json" for slot in (made.second_slot, made.slot, made.removed))
    raw = made.objects[name]
    tried: list[dict[str, Any]] = [{"what": what, "flip": at} for what, at in places(raw, name)]
    tried += [{"what": "half is missing", "cut": len(raw) // 2}, {"what": "it is missing", "gone": True}]
    usual = set(probe(made.objects, method()))
    for one in tried:
        damage = {"object": name, **one, "without": others}
        codes = set(probe(damaged(made.objects, damage), method())) - usual
        assert codes, damage
        yield damage | {"expect": sorted(codes - FALLOUT or codes)}


def make_vault(folder: Path) -> dict[str, Any]:
    """The small vault as JSON has it."""
    made = SmallVault(folder / "vault")
    reader = VaultReader([made.provider], made.unlocked())
    (stream,) = reader.streams()
    snapshots: list[dict[str, Any]] = []
    for snapshot in reader.snapshots(reader.chain(stream)):
        target = folder / f"out-{len(snapshots)}"
        restore(reader, snapshot, plan(reader, snapshot), os.fsencode(target))
        where = {"device": stream.device_id.hex(), "stream": stream.stream_id.hex(), "seq": snapshot.header.seq}
        snapshots.append(where | {"paths": tree_of(target)})
    (stays, gone) = (
        {"slot": slot.hex(), "credential": credential.hex(), "cred_random_with_uv": random.hex()}
        for slot, (credential, random) in zip((made.second_slot, made.removed), SEEDED, strict=True)
    )
    return {
        "format": 1,
        "vault": made.vault_id.hex(),
        "roots": [bytes(one.root.view()).hex() for one in made.epochs.keys],
        "recovery": "7777777" * 8,
        "passkey": stays,
        "removed_passkey": gone,
        "snapshots": snapshots,
        "damages": list(vault_damages(made)),
        "objects": {name: base64.b64encode(raw).decode() for name, raw in sorted(made.objects.items())},
    }


def main(folder: Path) -> None:
    """Makes what is not there."""
    with tempfile.TemporaryDirectory() as scratch:
        for file in (folder / SLOTS.name, folder / VAULT.name):
            if file.exists():
                sys.stdout.write(f"{file.name} is there and stays\n")
                continue
            meaning = make() if file.name == SLOTS.name else make_vault(Path(scratch))
            file.write_text(json.dumps(meaning, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
