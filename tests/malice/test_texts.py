"""Slots, epoch records, certificates and the marker: changed in every byte and as JSON, signed by whom you like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import pytest

from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey
from chatkeep.daemon.keys.signed import LIMITS, Kind, _message, split_text
from chatkeep.daemon.keys.strict_json import encode_b64
from chatkeep.daemon.vault.names import DeviceName, EpochName, SlotName, VaultName, parse
from chatkeep.daemon.verify.scrub import scrub
from tests.malice.conftest import Attempts
from tests.support.hostile_texts import EVERY_BIT, Variant, cut, extended, flipped, lines_of
from tests.support.hostile_vault import HostileVault, ask, ask_to_unlock, key_of

KINDS: Mapping[Kind, type] = {"slot": SlotName, "epoch": EpochName, "device": DeviceName}
LINES: Mapping[Kind, int] = {"slot": 2, "epoch": 1, "device": 1}
STRANGER = EpochKeys(RootSecret(bytearray(b"s" * 32)))

Change = Mapping[str, bytes | None]


def signed(kind: Kind, vault_id: bytes, lines: tuple[bytes, ...], key: SigningKey) -> bytes:
    """A signed text of any lines: the product's own function refuses to make most of these."""
    signature = key.sign(_message(kind, vault_id, lines))
    return b"".join(line + b"\n" for line in lines) + b"sig %s %s\n" % (
        key.public.key_id.hex().encode(),
        encode_b64(signature).encode(),
    )


def texts(vault: HostileVault, kind: Kind) -> list[tuple[str, bytes]]:
    return [(name, vault.objects[name]) for name in vault.names(KINDS[kind])]


def bytes_changed(vault: HostileVault, kind: Kind) -> Iterator[tuple[str, Change]]:
    """Every byte (of certificates every bit), every length; records also under the name that their bytes hash to."""
    for name, raw in texts(vault, kind):
        if name == str(vault.epochs.records[1].name):
            continue  # made like the newest
        masks = EVERY_BIT if kind == "device" else ()
        variants = [*flipped(raw, masks), *cut(raw), *extended(raw)]
        for number, (what, changed) in enumerate(variants):
            yield f"{name}: {what}", {name: changed}
            if kind == "epoch" and number % 4 == 0:
                own = parse(name)
                assert isinstance(own, EpochName)
                renamed = str(EpochName(own.epoch, hashlib.sha256(changed).digest()))
                yield f"{name}: {what}, under its own name", {name: None, renamed: changed}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_byte_and_length(vault: HostileVault, attempts: Attempts, kind: Kind) -> None:
    for what, change in attempts.some(bytes_changed(vault, kind), 130):
        try:
            ask_to_unlock(vault, vault.storage(change))
        except Exception as exc:
            raise AssertionError(what) from exc


@pytest.mark.parametrize("kind", list(KINDS))
def test_some_of_them_up_to_the_files(vault: HostileVault, attempts: Attempts, kind: Kind) -> None:
    changes = list(bytes_changed(vault, kind))
    for what, change in attempts.all(changes[:: len(changes) // (400 if attempts.whole else 10)]):
        try:
            ask(vault, vault.storage(change))
        except Exception as exc:
            raise AssertionError(what) from exc


def as_json(vault: HostileVault, kind: Kind) -> Iterator[tuple[str, Change]]:
    """Every line changed as JSON: with the old signature, with a stranger's, and with that of the key that has the say,
    which shows that the form is refused and not only the signature."""
    for name, raw in texts(vault, kind)[:2]:
        text = split_text(kind, raw, LINES[kind])
        signature = raw.split(b"\n")[-2]
        for number, line in enumerate(text.lines):
            for what, changed in lines_of(line):
                lines = (*text.lines[:number], changed, *text.lines[number + 1 :])
                for by, body in (
                    ("nobody", b"\n".join((*lines, signature, b""))),
                    ("a stranger", signed(kind, vault.vault_id, lines, STRANGER.sign)),
                    ("the vault", signed(kind, vault.vault_id, lines, signer(vault, kind, name))),
                ):
                    if body == raw:
                        continue
                    target = name
                    if kind == "epoch":
                        own = parse(name)
                        assert isinstance(own, EpochName)
                        target = str(EpochName(own.epoch, hashlib.sha256(body).digest()))
                    yield f"{name}: line {number}: {what}, signed by {by}", {name: None} | {target: body}


def signer(vault: HostileVault, kind: Kind, name: str) -> SigningKey:
    """Whoever signs this object."""
    if kind == "epoch":
        own = parse(name)
        assert isinstance(own, EpochName)
        return vault.epochs.keys[max(0, own.epoch - 2)].sign
    return vault.epochs.keys[0].sign


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_field(vault: HostileVault, attempts: Attempts, kind: Kind) -> None:
    for what, change in attempts.some(as_json(vault, kind), 150):
        try:
            ask_to_unlock(vault, vault.storage(change))
        except Exception as exc:
            raise AssertionError(what) from exc


def signature_lines(vault: HostileVault, kind: Kind) -> Iterator[Variant]:
    for name, raw in texts(vault, kind)[:1]:
        lines = raw.split(b"\n")
        word, key_id, value = lines[-2].split(b" ")
        for what, line in {
            "none": b"",
            "another word": b"SIG " + key_id + b" " + value,
            "two spaces": word + b"  " + key_id + b" " + value,
            "a stranger's key": word + b" " + STRANGER.sign.public.key_id.hex().encode() + b" " + value,
            "zeros": word + b" " + key_id + b" " + b"A" * 86,
            "padded": lines[-2] + b"==",
            "longer": lines[-2] + b"A",
            "a tab": lines[-2].replace(b" ", b"\t"),
            "capitals": word + b" " + key_id.upper() + b" " + value,
            "not ASCII": lines[-2][:-1] + b"\xc3\xa9",
        }.items():
            yield f"{name}: {what}", b"\n".join((*lines[:-2], line, b""))
        yield f"{name}: twice", b"\n".join((*lines[:-2], lines[-2], lines[-2], b""))
        yield f"{name}: first", b"\n".join((lines[-2], *lines[:-2], b""))
        yield f"{name}: without the end of line", b"\n".join(lines[:-1])
        yield f"{name}: with carriage returns", raw.replace(b"\n", b"\r\n")
        yield f"{name}: too long", raw[:-1] + b" " * LIMITS[kind] + b"\n"


@pytest.mark.parametrize("kind", list(KINDS))
def test_signature_lines(vault: HostileVault, attempts: Attempts, kind: Kind) -> None:
    for what, changed in attempts.all(signature_lines(vault, kind)):
        name = what.split(":")[0]
        try:
            ask_to_unlock(vault, vault.storage({name: changed}))
        except Exception as exc:
            raise AssertionError(what) from exc


@pytest.mark.parametrize("kind", list(KINDS))
def test_one_kind_of_text_for_another(vault: HostileVault, attempts: Attempts, kind: Kind) -> None:
    names = [name for name in vault.objects if not name.startswith("d/")]
    for name, _ in texts(vault, kind):
        for source in attempts.all(own for own in names if own != name):
            ask_to_unlock(vault, vault.storage({name: vault.objects[source]}))


def test_the_marker(vault: HostileVault, attempts: Attempts) -> None:
    """Nothing rests on it: every change leaves the vault readable, and a scrub tells it."""
    (name,) = vault.names(VaultName)
    raw = vault.objects[name]
    for what, changed in attempts.some([*flipped(raw), *cut(raw), *extended(raw), *lines_of(raw[:-1])], 100):
        provider = vault.storage({name: changed})
        told = [one for one in scrub(provider, vault.vault_id).findings if key_of(one) not in vault.usual]
        assert told, what
    answer = ask(vault, vault.storage({name: b"x"}))
    assert (answer.refused, answer.lost) == (None, 0)
